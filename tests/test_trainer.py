"""A run that is stopped and resumed is the run that was not."""

import json
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image

from dataset.transforms import Normalize
from models import ICNet
from train import build_trainer
from utils.checkpoint import Checkpoint, read_checkpoint
from utils.config import load_config
from utils.data import build_dataset, build_transform, eval_loader, train_loader
from utils.loss import CascadeLoss
from utils.optim import build_optimizer, build_scheduler
from utils.program import Interruption
from utils.runtime import seed_everything
from utils.segmenter import Segmenter
from utils.training import trainer as trainer_module
from utils.training.records import Records
from utils.training.run_state import check_resumable
from utils.training.trainer import Trainer

REPOSITORY = Path(__file__).parent.parent
EPOCHS = 3  # of two iterations


@pytest.fixture
def build(folder_data):
    """Give a function that builds a trainer from nothing, as train.py does, with files in the given folder."""
    config = load_config(folder_data.config)

    def make(folder: Path, *, dropout: float = 0.0, **options) -> Trainer:
        seed_everything(0)
        transform = build_transform(config.model, config.augment)
        train_set = build_dataset(config.dataset, "train", cityscapes_root="", transform=transform)
        network = ICNet(3, "resnet18", dropout=dropout)
        optimizer = build_optimizer(network, config.optimizer)
        batches = train_loader(train_set, batch_size=2, workers=0, seed=0)
        return Trainer(
            network=network,
            criterion=options.pop("criterion", CascadeLoss()),
            optimizer=optimizer,
            scheduler=build_scheduler(optimizer, config.optimizer, iterations=EPOCHS * len(batches)),
            normalize=Normalize(),
            train_batches=batches,
            val_batches=eval_loader(build_dataset(config.dataset, "val", cityscapes_root=""), batch_size=1, workers=0),
            device=torch.device("cpu"),
            description=Checkpoint(state_dict={}, backbone="resnet18", classes=train_set.classes),
            records=Records(folder),
            name="icnet_resnet18",
            **options,
        )

    return make


def records(folder):
    """The figures of each epoch, without the times."""
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("run", "seconds")} for line in lines]


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


def test_what_is_validated_and_kept_is_the_running_mean(build, tmp_path, monkeypatch):
    trainer = build(tmp_path / "run", ema=0.5)
    beginning = trainer.network.classifier.weight.clone()
    validated = []

    def segmenter(network, **options):
        validated.append(network)
        return Segmenter(network, **options)

    monkeypatch.setattr(trainer_module, "Segmenter", segmenter)
    trainer.fit(epochs=1, val_epoch=1)
    assert validated == [trainer.state.mean.module]
    kept, mean = read_checkpoint(trainer.state.best_path).state_dict, trainer.state.mean.module.state_dict()
    assert all(torch.equal(kept[name], mean[name]) for name in mean)
    for other in (trainer.network.classifier.weight, beginning):
        assert not torch.equal(kept["classifier.weight"], other)


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


def test_validation_looks_at_images_in_the_configured_size(build, tmp_path, monkeypatch):
    sizes = []

    def segmenter(network, **options):
        segment = Segmenter(network, **options)
        scores = segment.scores
        segment.scores = lambda image: sizes.append(image.shape[-2:]) or scores(image)
        return segment

    monkeypatch.setattr(trainer_module, "Segmenter", segmenter)
    build(tmp_path, short_side=96).fit(epochs=1, val_epoch=1)
    assert set(sizes) == {(96, 128)}  # the images are 48x64


# label 0 eight times, 1 and 2 once; by epoch, mIoU 0.27, 0.57, 0.5 and pixel accuracy 0.8, 0.6, 0.9
LABELS = [0] * 8 + [1, 2]
PREDICTED = [[0] * 10, [0] * 4 + [1] * 4 + [1, 2], [0] * 8 + [2, 2]]


def test_the_best_is_chosen_by_miou_not_by_loss_accuracy_or_age(build, tmp_path, monkeypatch):
    def validate(segment, batches, *, confusion, on_image):
        orders.append(trainer.train_batches.sampler.epoch)
        assert not trainer.network.training
        pred = PREDICTED[trainer.epoch - 1]
        confusion.update(torch.tensor([pred], dtype=torch.uint8), torch.tensor([LABELS], dtype=torch.uint8))

    def falling(outputs, target):
        return {"loss": 0 * outputs["out"].sum() + 10 - trainer.state.iteration}

    orders = []
    monkeypatch.setattr(trainer_module, "evaluate", validate)
    trainer = build(tmp_path, criterion=falling)
    trainer.fit(epochs=EPOCHS, val_epoch=1)
    (best,) = tmp_path.glob("*_best_model.pth")
    assert best == trainer.state.best_path and best.name == "icnet_resnet18_2_0.567_best_model.pth"
    assert read_checkpoint(best).epoch == 2
    figures = records(tmp_path)
    assert orders == [1, 2, 3]  # each epoch has an order of its own
    assert [record["loss"] for record in figures] == [9.5, 7.5, 5.5]
    assert [record["pixel_accuracy"] for record in figures] == pytest.approx([0.8, 0.6, 0.9])


def test_every_setting_of_the_run_reaches_its_part(folder_data, tmp_path):
    overrides = ["train.epochs=3", "train.accumulate=2", "train.ema=0.8", "train.freeze_bn=true", "train.amp=bf16"]
    overrides += ["train.log_iter=3", "train.save_iter=5", "optimizer.clip_norm=0.5", "optimizer.momentum=0.3"]
    overrides += ["model.variant=psp", "model.ppm=none", "model.dropout=0.1", "loss.aux_weight=0.2", "test.split=train"]
    overrides += ["train.valid_batch_size=3", "train.seed=4"]
    config = load_config(folder_data.config, overrides)
    trainer = build_trainer(config, torch.device("cpu"), Records(tmp_path))
    assert (trainer.accumulate, trainer.ema, trainer.freeze_bn, trainer.precision) == (2, 0.8, True, "bf16")
    assert (trainer.log_iter, trainer.save_iter, trainer.clip) == (3, 5, 0.5)
    assert {group["momentum"] for group in trainer.optimizer.param_groups} == {0.3}
    assert trainer.network.structure == {"variant": "psp", "ppm": "none", "sub4_input": "sub2", "dropout": 0.1}
    assert trainer.criterion.aux_weight == 0.2 and trainer.criterion.align_corners is False
    assert trainer.name == "icnet_psp_resnet18" and trainer.description.config == config.as_dict()
    assert (trainer.train_batches.batch_size, trainer.train_batches.sampler.seed) == (2, 4)
    assert trainer.train_batches.dataset.seed == 4 and trainer.train_batches.dataset.transform is not None
    assert [len(batch) for batch in trainer.val_batches] == [3, 1]
    factor = trainer.scheduler.lr_lambdas[0]  # of three epochs of two iterations each
    assert factor(5) > 0 and factor(6) == 0


def test_the_published_network_is_trained_with_aligned_corners(folder_data, tmp_path):
    trainer = build_trainer(load_config(folder_data.config), torch.device("cpu"), Records(tmp_path))
    assert trainer.network.align_corners and trainer.criterion.align_corners


def test_a_loss_that_is_not_finite_ends_the_run_with_its_images(build, tmp_path):
    trainer = build(tmp_path / "run", log_iter=1)
    with torch.no_grad():
        trainer.network.classifier.weight[0] = torch.inf
    with pytest.raises(
        ValueError, match=r"not finite at iteration 1 \(learning rates: backbone 0\.0.*images: .*png"
    ) as error:
        trainer.fit(epochs=1, val_epoch=1)
    saved = torch.load(tmp_path / "run" / "diverged.pth")
    assert saved["iteration"] == 1 and len(saved["batch"]) == 2
    assert all(image in str(error.value) for image in saved["images"])
    seen = next(iter(trainer.train_batches))["image"]
    assert torch.equal(torch.stack([sample["image"] for sample in saved["batch"]]), seen)


def test_a_run_leaves_curves_and_tensorboard_files(folder_data, run_script):
    folder_data.ckpt_dir.mkdir()
    (folder_data.ckpt_dir / ".last.123.part.pth").write_text("left by a kill")
    assert run_script("train", "--config", folder_data.config).code == 0
    assert Image.open(folder_data.ckpt_dir / "curves.png").width > 500
    assert list(folder_data.ckpt_dir.glob("events.out.tfevents.*"))
    assert not list(folder_data.ckpt_dir.glob(".*"))
    record = records(folder_data.ckpt_dir)[0]
    total = record["loss_out"] + 0.4 * (record["loss_aux_8"] + record["loss_aux_16"])
    assert record["loss"] == pytest.approx(total, rel=1e-5)


def test_a_batch_of_one_at_the_smallest_crop_and_an_incomplete_last_batch(folder_data, run_script):
    """Of 32x32 pixels the deep layers are left with one; four validation images come in batches of three."""
    overrides = ["train.train_batch_size=1", "model.crop_size=32", "test.split=train", "train.valid_batch_size=3"]
    result = run_script("train", "--config", folder_data.config, *overrides)
    assert result.code == 0, result.err
    last = read_checkpoint(folder_data.ckpt_dir / "last.pth")
    assert last.iteration == 4 and last.metrics["images"] == 4
    assert all(tensor.isfinite().all() for tensor in last.state_dict.values())
