"""Mean losses, and resuming: an interrupted and resumed run equals an uninterrupted one."""

import math
import os
import shutil
import signal
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import train
from tests.conftest import CLASSES, CPU, records
from utils import distributed
from utils.cli import Interruption
from utils.config import load_config
from utils.training import trainer as trainer_module
from utils.training.records import Records, read_json_lines
from utils.training.state import LossMeter, check_resumable
from utils.weights.checkpoint import Checkpoint, read_checkpoint
from utils.weights.run_folder import find_checkpoint, find_last
from utils.weights.tensors import write_tensors


def meter(*values):
    """Return a meter after iterations with these losses, "out" being half of the total."""
    filled = LossMeter()
    for value in values:
        filled.update({"loss": torch.tensor(value), "out": torch.tensor(value / 2)})
    return filled


def test_means_are_of_all_iterations():
    assert meter(1.0, 2.0, 6.0).means() == {"loss": 3, "loss_out": 1.5}


@pytest.mark.parametrize(
    ("values", "back"),
    [((1.0, 2.0), 0), ((1.0, math.nan, 2.0), 2), ((1.0, math.inf), 1), ((math.nan, math.nan), 2)],
)
def test_divergence_is_found_with_its_iteration(values, back):
    assert meter(*values).find_divergence() == back


def test_each_iteration_is_checked_once_and_memory_does_not_grow():
    filled = meter(math.nan)
    assert filled.find_divergence() == 1
    assert filled.find_divergence() == 0
    for _ in range(3):
        filled.update({"loss": torch.tensor(1.0), "out": torch.tensor(1.0)})
    assert filled.find_divergence() == 0 and filled.unchecked == []


def test_a_restored_meter_continues_to_the_same_means():
    whole, part, resumed = meter(0.1, 0.7, 0.3), meter(0.1, 0.7), LossMeter()
    resumed.load_state_dict(part.state_dict(), CPU)
    resumed.update({"loss": torch.tensor(0.3), "out": torch.tensor(0.15)})
    assert resumed.means() == whole.means()
    empty = LossMeter()
    empty.load_state_dict(LossMeter().state_dict(), CPU)
    empty.update({"loss": torch.tensor(2.0)})
    assert empty.means() == {"loss": 2}


def stop_after(monkeypatch, trainer, iteration):
    """Pretend that a signal arrives during that iteration."""

    @contextmanager
    def catching():
        yield lambda: trainer.state.iteration >= iteration

    monkeypatch.setattr(trainer_module, "catching_signals", catching)


@pytest.mark.parametrize(
    ("stops", "overrides"),
    [
        ((1,), ["loss.distill={checkpoint}"]),
        ((1, 2), ["model.dropout=0.5", "train.ema=0.9"]),
        ((3,), ["train.amp=bf16", "train.accumulate=2", "optimizer.clip_norm=1.0"]),
    ],
)
def test_stopped_and_resumed_equals_uninterrupted(build, tmp_path, monkeypatch, stops, overrides, checkpoint_path):
    overrides = ["train.epochs=2", *(override.format(checkpoint=checkpoint_path) for override in overrides)]
    whole = build(tmp_path / "whole", *overrides)
    whole.fit()
    resumed = build(tmp_path / "parts", *overrides)
    for stop in stops:
        with monkeypatch.context() as context:
            stop_after(context, resumed, stop)
            with pytest.raises(Interruption, match=rf"after iteration {stop}, .*train\.resume=auto"):
                resumed.fit()
        last = read_checkpoint(tmp_path / "parts" / "last.pth")
        assert (last.iteration, last.epoch) == (stop, stop // 2)
        resumed = build(tmp_path / "parts", *overrides)
        torch.rand(7)  # the generators have moved on
        resumed.state.restore(last, CPU)
    resumed.fit()
    for ours, theirs in ((resumed.network, whole.network), (resumed.state.trained, whole.state.trained)):
        state = ours.state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in theirs.state_dict().items())
    assert records(tmp_path / "parts") == records(tmp_path / "whole")
    assert resumed.state.best_path.name == whole.state.best_path.name
    assert len(list((tmp_path / "parts").glob("*_best_model.pth"))) == 1


def test_records_begin_after_the_last_recorded_iteration(build, tmp_path, monkeypatch):
    trainer = build(tmp_path, "train.epochs=2")
    assert trainer.state.next_recorded == 0
    stop_after(monkeypatch, trainer, 3)
    with pytest.raises(Interruption):
        trainer.fit()
    assert trainer.state.next_recorded == 3  # within the second epoch
    monkeypatch.setattr(trainer, "_validate", lambda: pytest.fail("killed"))
    with pytest.raises(pytest.fail.Exception):
        trainer.fit()
    assert trainer.state.next_recorded == 4  # trained, but not validated
    monkeypatch.undo()
    trainer.fit()
    assert trainer.state.next_recorded == 5


def test_the_time_of_an_epoch_includes_what_came_before_resuming(build, tmp_path, monkeypatch):
    trainer = build(tmp_path, "train.epochs=1")
    trainer.state.begun -= 1000
    stop_after(monkeypatch, trainer, 1)
    with pytest.raises(Interruption):
        trainer.fit()
    monkeypatch.undo()
    resumed = build(tmp_path, "train.epochs=1")
    resumed.state.restore(read_checkpoint(tmp_path / "last.pth"), CPU)
    resumed.fit()
    (line,) = read_json_lines(tmp_path / "train.jsonl")
    assert 1000 < line["seconds"] < 2000


def test_saved_losses_are_means_over_the_processes(monkeypatch):
    filled = meter(1.0, 2.0)
    monkeypatch.setattr(distributed, "mean_over_processes", lambda totals: totals + torch.tensor([[1.0], [0.0]]))
    assert filled.state_dict()["totals"].tolist() == [[4, 2.5], [2, 2]]


def test_the_fp16_loss_scale_is_restored(build, tmp_path):
    trainer, resumed = (build(tmp_path, "train.amp=fp16") for _ in range(2))
    trainer.state.scaler.scale(torch.ones(1))
    trainer.state.scaler.update(8.0)
    trainer.state.save_last()
    resumed.state.restore(read_checkpoint(tmp_path / "last.pth"), CPU)
    assert resumed.state.scaler.get_scale() == 8


@pytest.mark.filterwarnings("error:Detected call of `lr_scheduler.step")  # as fp16 skips the first step
@pytest.mark.parametrize(("before", "after"), [("off", "fp16"), ("fp16", "off")])
def test_precision_may_change(build, tmp_path, before, after):
    trainer = build(tmp_path, f"train.amp={before}", "train.epochs=1")
    trainer.fit()
    resumed = build(tmp_path, f"train.amp={after}", "train.epochs=2")
    resumed.state.restore(read_checkpoint(tmp_path / "last.pth"), CPU)
    resumed.fit()
    assert [record["epoch"] for record in records(tmp_path)] == [1, 2]


def test_weights_alone_cannot_be_resumed(folder_data, checkpoint_path):
    with pytest.raises(ValueError, match=r"weights only; train\.resume needs a last\.pth"):
        check_resumable(load_config(folder_data.config), read_checkpoint(checkpoint_path))


def test_a_run_that_continues_in_another_folder_has_a_best_checkpoint_there(build, tmp_path):
    build(tmp_path / "old", "train.epochs=1").fit()
    moved = build(tmp_path / "new", "train.epochs=2")
    moved.state.restore(read_checkpoint(tmp_path / "old" / "last.pth"), CPU)
    moved.fit()
    assert moved.state.best_path == find_checkpoint(None, tmp_path / "new")
    assert len(list((tmp_path / "old").glob("*_best_model.pth"))) == 1


def test_a_new_run_does_not_overwrite_the_state_of_another(tmp_path):
    (tmp_path / "last.pth").write_bytes(b"-")
    with pytest.raises(FileExistsError, match=r"last\.pth is the state of a run; continue it with train\.resume=auto"):
        find_last(None, str(tmp_path))
    (tmp_path / "older").mkdir()
    (tmp_path / "older" / "last.pth").write_bytes(b"-")
    with pytest.raises(FileExistsError, match=r"last\.pth is the state of a run"):
        find_last(str(tmp_path / "older" / "last.pth"), str(tmp_path))


@pytest.mark.parametrize("resume", [None, "auto"])
def test_a_new_run_does_not_start_beside_the_best_checkpoint_of_another(tmp_path, resume):
    (tmp_path / "icnet_resnet50_197_0.710_best_model.pth").touch()  # the published one
    assert find_last(resume, str(tmp_path)) is None
    (tmp_path / "icnet_resnet18_9_0.950_best_model.pth").touch()
    with pytest.raises(FileExistsError, match=r"0\.950_best_model\.pth is of an earlier run; delete or move it"):
        find_last(resume, str(tmp_path))


def test_after_a_change_of_the_validation_the_best_miou_starts_anew(build, tmp_path):
    build(tmp_path, "train.epochs=1").fit()
    last = read_checkpoint(tmp_path / "last.pth")
    changes = ("test.short_side=48", "test.input_size=[48, 64]", "test.split=train", "test.resize_probabilities=true")
    for override in ("test.short_side=0", *changes):
        best = -1 if override in changes else last.training["best_miou"]
        resumed = build(tmp_path, "train.epochs=1", override)
        resumed.state.restore(last, CPU)
        assert resumed.state.best_miou == best and resumed.state.best_path.exists()  # to be replaced by the next


def test_a_run_whose_training_images_have_changed_cannot_resume(build, tmp_path):
    build(tmp_path, "train.epochs=1").fit()
    last = read_checkpoint(tmp_path / "last.pth")
    resumed = build(tmp_path, "train.epochs=1")
    resumed.state.epoch_length += 1
    with pytest.raises(ValueError, match=r"cannot resume: an epoch had \d iterations and now has .* training images"):
        resumed.state.restore(last, CPU)


def test_only_settings_that_do_not_affect_the_result_may_change(folder_data):
    saved = load_config(folder_data.config).as_dict()
    facts = {"backbone": "resnet18", "classes": CLASSES, "source": Path("last.pth")}
    last = Checkpoint(state_dict={}, config=saved, training={}, **facts)
    message = r"changed settings: model\.crop_size \(was 64, is 32\), train\.epochs \(was 1, is 9\); restore them or"
    with pytest.raises(ValueError, match=message):
        check_resumable(load_config(folder_data.config, ["train.epochs=9", "model.crop_size=32"]), last)
    with pytest.raises(ValueError, match=r"^last\.pth: unknown key train\.epoks; did you mean train\.epochs\?$"):
        check_resumable(load_config(folder_data.config), replace(last, config={"train": {"epoks": 1}}))


def test_a_moved_teacher_is_asked_for_and_its_new_place_accepted(folder_data, run_script, checkpoint_path, tmp_path):
    teacher, moved = tmp_path / "teacher.pth", tmp_path / "moved.pth"
    shutil.copy(checkpoint_path, teacher)
    command = ["train", "--config", folder_data.config, "train.resume=auto"]
    assert run_script(*command, f"loss.distill={teacher}").code == 0
    teacher.rename(moved)
    gone = run_script(*command, f"loss.distill={teacher}")
    assert (gone.code, gone.err.count("\n")) == (2, 1)
    assert f"no teacher {teacher}; set loss.distill to the path of its checkpoint, also when resuming" in gone.err
    resumed = run_script(*command, f"loss.distill={moved}")
    assert resumed.code == 0 and "resumed from" in resumed.out, resumed.err
    without = run_script(*command)
    assert without.code == 2 and f"loss.distill (was {teacher}, is None)" in without.err


def test_sigterm_finishes_the_iteration_and_the_run_resumes(folder_data, run_script, monkeypatch):
    log_epoch = Records.log_epoch

    def terminate(self, record, **options):
        log_epoch(self, record, **options)
        os.kill(os.getpid(), signal.SIGTERM)

    command = ["train", "--config", folder_data.config, "train.epochs=3", "train.val_epoch=3", "train.resume=auto"]
    begun, writing = [], Records.writing
    monkeypatch.setattr(
        Records,
        "writing",
        lambda self, *, first, config: begun.append(first) or writing(self, first=first, config=config),
    )
    with monkeypatch.context() as context:
        context.setattr(Records, "log_epoch", terminate)
        stopped = run_script(*command)
    assert stopped.code == 130, stopped.err
    assert "continue with train.resume=auto" in stopped.err and "Traceback" not in stopped.err
    logged = (folder_data.ckpt_dir / "train.log").read_text().splitlines()[-1]
    assert stopped.err.strip() in logged and stopped.err.strip() not in stopped.out  # printed only once
    assert read_checkpoint(folder_data.ckpt_dir / "last.pth").iteration == 2
    resumed = run_script(*command)
    assert resumed.code == 0, resumed.err
    assert "after epoch 1, iteration 2" in resumed.out
    assert begun == [0, 3]  # TensorBoard hides what an interrupted run recorded later
    assert [record["epoch"] for record in records(folder_data.ckpt_dir)] == [1, 2, 3]


def test_a_state_saved_while_this_run_was_being_built_is_not_overwritten(folder_data, run_script, monkeypatch):
    def meanwhile(*arguments, **options):
        folder_data.ckpt_dir.mkdir(exist_ok=True)
        (folder_data.ckpt_dir / "last.pth").write_bytes(b"of another run")
        return build(*arguments, **options)

    build = train.build_trainer
    monkeypatch.setattr(train, "build_trainer", meanwhile)
    result = run_script("train", "--config", folder_data.config, "train.resume=auto")
    assert result.code == 2 and "last.pth in the meantime; start again" in result.err
    assert (folder_data.ckpt_dir / "last.pth").read_bytes() == b"of another run"


def test_the_error_that_ends_a_run_is_in_its_log(folder_data, run_script, monkeypatch):
    def fail(trainer):
        raise ValueError("all went wrong")

    monkeypatch.setattr(trainer_module.Trainer, "fit", fail)
    result = run_script("train", "--config", folder_data.config)
    assert (result.code, result.err) == (2, "error: all went wrong\n")
    assert "all went wrong" in (folder_data.ckpt_dir / "train.log").read_text().splitlines()[-1]


def test_a_run_killed_during_validation_resumes_with_that_validation(build, tmp_path, monkeypatch):
    def kill(*arguments, **options):
        last = read_checkpoint(tmp_path / "last.pth")  # saved before validation
        assert last.iteration == 2 and last.training["losses"]["names"]
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(trainer_module, "evaluate", kill)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path, "train.epochs=1").fit()
    assert not (tmp_path / "train.jsonl").exists()

    resumed = build(tmp_path, "train.epochs=1")
    resumed.state.restore(read_checkpoint(tmp_path / "last.pth"), CPU)
    resumed.fit()
    (record,) = records(tmp_path)
    assert record["epoch"] == 1 and record["loss"] > 0 and record["miou"] == resumed.state.best_miou
    assert resumed.state.best_path.exists()
    assert read_checkpoint(tmp_path / "last.pth").training["losses"] == {}


def test_a_run_killed_before_its_epoch_is_saved_has_recorded_it(build, tmp_path, monkeypatch):
    trainer = build(tmp_path, "train.epochs=1")
    save = trainer.state.save_last

    def kill_at_the_end() -> None:
        if not trainer.state.losses.names:
            raise KeyboardInterrupt
        save()

    monkeypatch.setattr(trainer.state, "save_last", kill_at_the_end)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert [record["epoch"] for record in records(tmp_path)] == [1]


CHANGES = ["train.amp=bf16", "train.accumulate=2", "train.val_epoch=3", "train.save_iter=1", "train.valid_batch_size=2"]
CHANGES += ["train.specific_gpu_num=1", "train.cityscapes_root=x", "train.num_workers=1", "train.log_iter=3"]
CHANGES += ["dataset.root=x", "dataset.cache=true", "test.short_side=96"]
CHANGES += ["dataset.colors=[[1, 2, 3]]", "model.backbone_weights=x.pth"]
FIXED = ["train.seed=1", "train.ema=0.9", "train.freeze_bn=true", "train.freeze=[sub1]", "train.oversample=0.5"]
FIXED += ["train.train_batch_size=4", "optimizer.init_lr=0.1", "loss.ohem=0.7", "augment.blur=0", "model.dropout=0.1"]
FIXED += ["dataset.ignore_index=254", "dataset.train.images=x", "train.split=val"]


@pytest.mark.parametrize("setting", CHANGES + FIXED)
def test_which_settings_may_change_on_resuming(folder_data, setting):
    saved = load_config(folder_data.config).as_dict()
    facts = {"backbone": "resnet18", "classes": CLASSES, "source": Path("last.pth")}
    last = Checkpoint(state_dict={}, config=saved, training={}, **facts)
    config = load_config(folder_data.config, [setting])
    if setting in CHANGES:
        check_resumable(config, last)
    else:
        with pytest.raises(ValueError, match=f"changed settings: {setting.partition('=')[0]} "):
            check_resumable(config, last)


def test_a_run_resumes_from_a_given_file(tmp_path, checkpoint_path):
    shutil.copy(checkpoint_path, tmp_path / "other.pth")
    assert find_last(str(tmp_path / "other.pth"), str(tmp_path / "run")).source == tmp_path / "other.pth"
    shutil.copy(checkpoint_path, tmp_path / "last.pth")
    assert find_last(str(tmp_path / "last.pth"), str(tmp_path)).source == tmp_path / "last.pth"


def test_a_file_that_cannot_grow_is_one_line_and_keeps_the_previous_one(tmp_path):
    """Of a real failure, PyTorch's own message is about its archive, and differs between versions."""
    resource = pytest.importorskip("resource")
    path, limit = tmp_path / "a.pth", resource.getrlimit(resource.RLIMIT_FSIZE)
    write_tensors(path, {"x": torch.zeros(1)})
    before = path.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write .*is the disk full"):
            write_tensors(path, {"x": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_line_and_leaves_no_part_of_a_checkpoint(folder_data, run_script, monkeypatch):
    def save(content, path):
        path.write_bytes(b"half of it")
        raise RuntimeError("[enforce fail] PytorchStreamWriter failed writing file data/3\nmore")

    monkeypatch.setattr(torch, "save", save)
    result = run_script("train", "--config", folder_data.config)
    assert result.code == 2 and len(result.err.splitlines()) == 1
    assert f"cannot write {folder_data.ckpt_dir / 'last.pth'}" in result.err and "is the disk full?" in result.err
    assert not list(folder_data.ckpt_dir.glob("*.pth")) and not list(folder_data.ckpt_dir.glob(".*.pth"))


def test_the_previous_best_stays_until_the_next_is_saved(build, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left")

    trainer = build(tmp_path, "train.epochs=1")
    trainer.fit()
    before, trainer.state.metrics = trainer.state.best_path, {"miou": 1.0}
    monkeypatch.setattr("utils.training.state.save_checkpoint", full)
    with pytest.raises(OSError, match="No space"):
        trainer.state.save_best("icnet")
    assert before.exists()


def test_each_epoch_is_timed_alone(build, tmp_path):
    trainer = build(tmp_path, "train.epochs=2")
    trainer.state.begun -= 1000
    trainer.fit()
    first, second = (line["seconds"] for line in read_json_lines(tmp_path / "train.jsonl"))
    assert first > 1000 > second
