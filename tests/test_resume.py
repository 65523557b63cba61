"""A run that is stopped and resumed is the run that was not."""

import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.conftest import EPOCHS, records
from utils.cli import Interruption
from utils.config import load_config
from utils.training import trainer as trainer_module
from utils.training.state import check_resumable
from utils.weights.checkpoint import read_checkpoint

REPOSITORY = Path(__file__).parent.parent


def stop_after(monkeypatch, trainer, iteration):
    """Let the trainer believe that a signal came during that iteration."""

    @contextmanager
    def catching():
        yield lambda: trainer.state.iteration >= iteration

    monkeypatch.setattr(trainer_module, "catching_signals", catching)


@pytest.mark.parametrize(
    ("iteration", "options"),
    [
        (1, {"dropout": 0.5}),
        (2, {"dropout": 0.5}),
        (3, {"ema": 0.9}),
        (5, {"precision": "bf16", "accumulate": 2, "clip": 1.0}),
    ],
)
def test_stopped_and_resumed_equals_uninterrupted(build, tmp_path, monkeypatch, iteration, options):
    whole = build(tmp_path / "whole", **options)
    whole.fit(epochs=EPOCHS, val_epoch=1)
    with monkeypatch.context() as context:
        stopped = build(tmp_path / "parts", **options)
        stop_after(context, stopped, iteration)
        with pytest.raises(Interruption, match=rf"after iteration {iteration}, .*train\.resume=auto"):
            stopped.fit(epochs=EPOCHS, val_epoch=1)
    last = read_checkpoint(tmp_path / "parts" / "last.pth")
    assert (last.iteration, last.epoch) == (iteration, iteration // 2)

    resumed = build(tmp_path / "parts", **options)
    torch.rand(7)  # the generators are somewhere else by now
    resumed.state.restore(last, device=resumed.device, folder=resumed.folder)
    resumed.fit(epochs=EPOCHS, val_epoch=1)
    for ours, theirs in ((resumed.network, whole.network), (resumed.state.trained, whole.state.trained)):
        state = ours.state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in theirs.state_dict().items())
    assert records(tmp_path / "parts") == records(tmp_path / "whole")
    assert resumed.state.best_path.name == whole.state.best_path.name
    assert len(list((tmp_path / "parts").glob("*_best_model.pth"))) == 1


def test_the_scale_of_fp16s_gradients_is_resumed(build, tmp_path):
    trainer, resumed = (build(tmp_path / name, precision="fp16") for name in ("run", "resumed"))
    trainer.state.scaler.scale(torch.ones(1))
    trainer.state.scaler.update(8.0)
    last = trainer.state.describe_run(trainer.description, epoch=0)
    resumed.state.restore(last, device=resumed.device, folder=resumed.folder)
    assert resumed.state.scaler.get_scale() == 8


def test_save_iter_saves_within_an_epoch(build, tmp_path, monkeypatch):
    trainer = build(tmp_path, save_iter=1)
    saved = []
    monkeypatch.setattr(trainer, "_save_last", lambda: saved.append(trainer.state.iteration))
    trainer.fit(epochs=2, val_epoch=5)
    assert saved == [1, 2, 3, 4]


def test_weights_alone_are_not_resumed(build, tmp_path, checkpoint_path):
    trainer = build(tmp_path / "run")
    with pytest.raises(ValueError, match=r"weights only; training goes on from a last\.pth"):
        trainer.state.restore(read_checkpoint(checkpoint_path), device=trainer.device, folder=trainer.folder)


def test_only_harmless_keys_may_change(folder_data):
    trained = load_config(folder_data.config).as_dict()
    check_resumable(load_config(folder_data.config, ["train.num_workers=1", "train.log_iter=3"]), trained)
    with pytest.raises(ValueError, match=r"train\.epochs \(was 1, is 9\), model\.crop_size \(was 64|model\.crop_size"):
        check_resumable(load_config(folder_data.config, ["train.epochs=9", "model.crop_size=32"]), trained)


def test_sigterm_finishes_the_iteration_and_resume_goes_on(folder_data):
    arguments = ["--config", str(folder_data.config), "train.epochs=12", "train.val_epoch=12", "train.resume=auto"]
    command = [sys.executable, str(REPOSITORY / "train.py"), *arguments]
    figures = folder_data.ckpt_dir / "train.jsonl"
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        while not figures.exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        printed, errors = process.communicate(timeout=60)
    assert process.returncode == 130, printed + errors
    assert "train.resume=auto goes on" in errors and "Traceback" not in errors
    stopped = read_checkpoint(folder_data.ckpt_dir / "last.pth")
    assert 0 < stopped.iteration < 24
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"iteration {stopped.iteration}" in done.stdout
    assert [record["epoch"] for record in records(folder_data.ckpt_dir)] == list(range(1, 13))


def test_a_validation_that_failed_is_made_up_for(build, tmp_path, folder_data):
    mask = folder_data.root / "val_mask" / "0.png"
    content = mask.read_bytes()
    trainer = build(tmp_path)
    mask.write_bytes(b"broken")
    with pytest.raises(ValueError, match="cannot be read"):
        trainer.fit(epochs=1, val_epoch=1)
    assert not (tmp_path / "train.jsonl").exists()

    mask.write_bytes(content)
    resumed = build(tmp_path)
    resumed.state.restore(read_checkpoint(tmp_path / "last.pth"), device=torch.device("cpu"), folder=tmp_path)
    resumed.fit(epochs=1, val_epoch=1)
    (record,) = records(tmp_path)
    assert record["epoch"] == 1 and record["loss"] > 0 and record["miou"] == resumed.state.best_miou
    assert resumed.state.best_path.exists()
    assert read_checkpoint(tmp_path / "last.pth").training["losses"] == {}
