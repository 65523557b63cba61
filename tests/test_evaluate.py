"""evaluate.py end to end, on tiny data."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
from dataset.labels import cityscapes_classes
from models import ICNet
from tests.conftest import save_array
from tests.test_distributed import start_processes
from utils import runtime
from utils.config import load_config
from utils.evaluation import measure
from utils.evaluation.measure import WARM_UP, Timer
from utils.inference import opening
from utils.weights import run_folder
from utils.weights.checkpoint import Checkpoint, read_checkpoint, save_checkpoint


@pytest.fixture
def evaluated(run_script, folder_data, checkpoint_path):
    """Return a function that evaluates the folder data and returns the metrics and the output folder."""

    def run(*overrides):
        given = ["--config", folder_data.config, f"test.ckpt_path={checkpoint_path}", *overrides]
        result = run_script("evaluate", *given)
        assert (result.code, result.err) == (0, ""), result
        folder = folder_data.ckpt_dir / "evaluate_output"
        return json.loads((folder / "metrics.json").read_text()), folder

    return run


def test_all_files_are_written(evaluated):
    metrics, folder = evaluated()
    assert {path.name for path in folder.iterdir()} == {
        *("0_pred.png", "1_pred.png", "confusion.csv", "confusion.png", "metrics.json", "worst")
    }
    assert sorted(path.name[:3] for path in (folder / "worst").iterdir()) == ["01_", "02_"]
    assert metrics["images"] == 2 and metrics["precision"] == "fp32" and metrics["processes"] == 1
    assert metrics["versions"]["torch"] == torch.__version__ and "CPU" in metrics["device"]
    assert metrics["config"]["dataset"]["classes"] == ["road", "sky", "car"]
    assert not {"category_iou", "class_iiou", "branches"} & set(metrics)
    assert "1 calls after 1 to warm up" in metrics["speed"]["latency_of"]
    assert metrics["speed"]["peak_memory_mib"] > 1 and metrics["speed"]["images_per_second"] > 0


def test_the_last_line_names_what_was_written(run_script, folder_data, checkpoint_path):
    given = ["--config", folder_data.config, f"test.ckpt_path={checkpoint_path}"]
    for save, files in (
        ("none", "confusion matrix, worst images"),
        ("pred", "confusion matrix, worst images, predictions"),
    ):
        stale = folder_data.ckpt_dir / "evaluate_output" / "worst" / "07_old.png"  # of an earlier evaluation
        stale.parent.mkdir(parents=True, exist_ok=True)
        stale.touch()
        result = run_script("evaluate", *given, f"test.save={save}")
        assert not stale.exists()
        assert len(list(stale.parent.parent.glob("*.png"))) == (1 if save == "none" else 3)  # confusion.png
        assert result.out.splitlines()[-1] == f"in {folder_data.ckpt_dir / 'evaluate_output'}: metrics.json, {files}"


def test_predictions_or_overlays_are_saved(evaluated, folder_data):
    _, folder = evaluated("test.save=overlay")
    assert sorted(path.name for path in folder.glob("*_overlay.png")) == ["0_overlay.png", "1_overlay.png"]
    assert not list(folder.glob("*_pred.png"))
    image = np.asarray(Image.open(folder_data.root / "val" / "0.png"), float)
    evaluated("test.save=pred")
    colors = np.asarray(Image.open(folder / "0_pred.png").convert("RGB"), float)
    overlay = np.asarray(Image.open(folder / "0_overlay.png"), float)
    assert np.abs(overlay - (image + colors) / 2).max() <= 1


def deterministic(metrics):
    return {key: metrics[key] for key in metrics if key not in ("speed", "config", "checkpoint", "processes")}


def test_images_of_different_sizes_in_one_batch(evaluated, folder_data):
    rng = np.random.default_rng(0)
    for index, shape in enumerate([(48, 64), (40, 40), (40, 40), (90, 33)]):
        save_array(folder_data.root / "val" / f"{index}.png", rng.integers(0, 256, (*shape, 3)))
        save_array(folder_data.root / "val_mask" / f"{index}.png", rng.integers(0, 3, shape))
    one, _ = evaluated("test.save=none")
    four, _ = evaluated("test.save=none", "train.valid_batch_size=4")
    assert "after 3 to warm up" in one["speed"]["latency_of"] and "after 2 to warm up" in four["speed"]["latency_of"]
    assert one["images"] == four["images"] == 4
    assert four["speed"]["images_per_second"] * four["speed"]["seconds"] == pytest.approx(4)
    assert four["miou"] == pytest.approx(one["miou"], abs=1e-3)


def test_metrics_of_every_branch(evaluated):
    metrics, _ = evaluated("test.branches=true", "test.save=none")
    assert list(metrics["branches"]) == ["sub4", "sub4 + sub2", "sub4 + sub2 + sub1"]
    assert metrics["branches"]["sub4 + sub2 + sub1"]["miou"] == metrics["miou"]
    assert len({part["miou"] for part in metrics["branches"].values()}) == 3
    assert all(part["speed"]["latency_median_ms"] > 0 for part in metrics["branches"].values())


def test_settings_of_the_views_reach_the_network(evaluated, monkeypatch):
    given = []
    monkeypatch.setattr(opening, "with_options", lambda segmenter, test: given.append(test) or segmenter)
    monkeypatch.setattr(runtime, "cpu_has_bf16", lambda: True)  # no warning
    options = ["test.tta={scales: [0.75, 1], flip: true}", "test.window=40", "test.stride=24", "test.precision=bf16"]
    metrics, _ = evaluated("test.save=none", *options)
    assert metrics["precision"] == "bf16"
    assert [(test.window, test.stride, test.tta.scales, test.tta.flip) for test in given] == [
        (40, 24, (0.75, 1.0), True)
    ]


@pytest.fixture
def own(folder_data, checkpoint_path, tmp_path):
    """Arguments naming a checkpoint whose own configuration has the folder data and a `test.short_side`."""
    trained = load_config(folder_data.config, ["test.short_side=80"])
    save_checkpoint(tmp_path / "own.pth", replace(read_checkpoint(checkpoint_path), config=trained.as_dict()))
    return [f"test.ckpt_path={tmp_path / 'own.pth'}", f"train.ckpt_dir={tmp_path}"]


def test_defaults_come_from_the_checkpoints_own_configuration(own, evaluated, run_script, tmp_path):
    """The data set only without --config, the input size unless test.short_side is set."""

    def metrics_without_config(*overrides):
        assert run_script("evaluate", *own, "test.save=none", *overrides).code == 0
        return json.loads((tmp_path / "evaluate_output" / "metrics.json").read_text())

    plain, larger = evaluated("test.save=none")[0], evaluated("test.save=none", "test.short_side=80")[0]
    own_size, original_size = metrics_without_config(), metrics_without_config("test.short_side=0")
    assert own_size["class_iou"] == larger["class_iou"] != plain["class_iou"]
    assert (own_size["short_side"], plain["short_side"]) == (80, None)
    assert evaluated(own[0], "test.save=none")[0]["class_iou"] == larger["class_iou"]
    assert original_size["class_iou"] == plain["class_iou"]


@pytest.mark.parametrize("name", ["evaluate", "inference"])
def test_without_a_trained_network_the_included_weights_are_used(
    own, run_script, folder_data, tmp_path, monkeypatch, name
):
    monkeypatch.setattr(run_folder, "INCLUDED", tmp_path / "own.pth")
    monkeypatch.chdir(tmp_path)
    given = [] if name == "evaluate" else ["--input", folder_data.root / "val" / "0.png"]
    result = run_script(name, *given)
    assert result.code == 0 and "ckpt has no best checkpoint, using the included weights\n" in result.out, result.err
    (tmp_path / "ckpt" / "last.pth").touch()  # of a run before its first validation
    assert "has not been validated yet; test.ckpt_path=ckpt/last.pth uses it)" in run_script(name, *given).out
    for other in (["train.ckpt_dir=misspelt"], ["--config", folder_data.config, "train.ckpt_dir=ckpt"]):
        result = run_script(name, *given, *other)
        assert result.code == 2 and "no *_best_model.pth in" in result.err


def test_each_row_is_of_its_own_branches(monkeypatch):
    monkeypatch.setattr(evaluate, "open_network", lambda path, device, test, *, branches: (None, branches))
    monkeypatch.setattr(evaluate, "measure", lambda segmenter, *_, title: (None, {"branches": segmenter}))
    found = evaluate.measure_branches(Path("x.pth"), None, load_config({}), torch.device("cpu"))
    assert found == {"sub4": {"branches": 1}, "sub4 + sub2": {"branches": 2}}


def test_branches_without_labels_are_only_timed(cityscapes, run_script, tmp_path):
    given = [*cityscapes, "test.split=test", f"test.submission={tmp_path / 'submission'}", "test.branches=true"]
    result = run_script("evaluate", *given)
    assert result.code == 0, result.err
    metrics = json.loads((tmp_path / "ckpt" / "evaluate_output" / "metrics.json").read_text())
    assert all("miou" not in part and part["speed"] for part in metrics["branches"].values())


@pytest.fixture
def cityscapes(cityscapes_data, tmp_path):
    """Arguments that evaluate a network for the 19 classes on the tiny Cityscapes data."""
    network, path = ICNet(19, "resnet18"), tmp_path / "cityscapes.pth"
    save_checkpoint(
        path, Checkpoint(state_dict=network.state_dict(), backbone="resnet18", classes=cityscapes_classes())
    )
    locations = [f"train.cityscapes_root={cityscapes_data}", f"train.ckpt_dir={tmp_path / 'ckpt'}"]
    return [f"test.ckpt_path={path}", *locations, "train.num_workers=0"]


def test_submission_of_an_unlabelled_split(run_script, cityscapes, tmp_path):
    result = run_script("evaluate", *cityscapes, "test.split=test", f"test.submission={tmp_path / 'out'}")
    assert (result.code, result.err) == (0, ""), result
    assert "1 files" in result.out and "mIoU" not in result.out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"berlin_000000_000019_pred.png", "submission.zip"}
    metrics = json.loads((tmp_path / "ckpt" / "evaluate_output" / "metrics.json").read_text())
    assert "miou" not in metrics and metrics["split"] == "test"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda mask: mask.unlink(), "no mask"),
        (lambda mask: mask.write_bytes(mask.read_bytes()[:-20]), "cannot be read as an image"),
        (lambda mask: save_array(mask, np.zeros((48, 63))), "63x48"),
        (lambda mask: save_array(mask, np.zeros((48, 64, 3))), "8-bit"),
    ],
    ids=["missing", "truncated", "size", "mode"],
)
def test_faulty_masks_are_found_before_the_network_runs(
    run_script, folder_data, checkpoint_path, monkeypatch, damage, message
):
    monkeypatch.setattr("evaluate.measure", lambda *_, **__: pytest.fail("the network ran"))
    damage(folder_data.root / "val_mask" / "1.png")
    result = run_script("evaluate", "--config", folder_data.config, f"test.ckpt_path={checkpoint_path}")
    assert result.code == 2 and message in result.err and "1.png" in result.err
    assert not (folder_data.ckpt_dir / "evaluate_output").exists()


@pytest.mark.parametrize("step", ["save_labels", "write_confusion", "write_worst"])
def test_a_full_disk_is_reported_and_leaves_no_metrics(run_script, folder_data, checkpoint_path, monkeypatch, step):
    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(f"utils.evaluation.results.{step}", full)
    result = run_script("evaluate", "--config", folder_data.config, f"test.ckpt_path={checkpoint_path}")
    assert result.code == 2 and "No space left" in result.err
    assert not (folder_data.ckpt_dir / "evaluate_output" / "metrics.json").exists()


def test_latency_excludes_the_warm_up():
    timer = Timer(lambda image: image[:, 0], torch.device("cpu"))
    assert timer(torch.zeros(1, 3, 4, 4)).shape == (1, 4, 4) and len(timer.seconds) == 1
    timer.seconds = [9.0] * WARM_UP + [0.001] * 19 + [0.003]
    timer.start -= 1000
    speed = timer.summary(images=2500, batch_size=1)
    assert speed["images_per_second"] == pytest.approx(2.5, rel=0.01)
    assert speed["latency_median_ms"] == pytest.approx(1) and speed["latency_p95_ms"] == pytest.approx(1.1)


def test_a_call_is_timed_until_the_device_has_finished(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: sum(clock))
    monkeypatch.setattr(runtime, "synchronize", lambda device: clock.append(1.0))
    timer = Timer(lambda image: image, torch.device("cpu"))
    timer(torch.zeros(1))
    assert timer.seconds == [1] and sum(clock) == 2


@pytest.mark.parametrize(("calls", "kept"), [(1, 1), (2, 1), (5, 1), (6, 1), (500, 495)])
def test_at_least_one_call_is_timed(calls, kept):
    timer = Timer(lambda image: image, torch.device("cpu"))
    timer.seconds = [0.001] * calls
    assert f"; {kept} calls after {calls - kept} to warm up" in timer.summary(images=1, batch_size=1)["latency_of"]


def test_two_processes_give_bitwise_the_metrics_of_one(run_script, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.evaluation.report._plot", lambda *_: None)  # slower than the evaluation
    path, state = tmp_path / "x.pth", ICNet(19, "resnet18").state_dict()
    save_checkpoint(path, Checkpoint(state_dict=state, backbone="resnet18", classes=cityscapes_classes()))
    given = [f"test.ckpt_path={path}", "test.runtime=pytorch"]
    given += ["dataset.name=streets", f"dataset.root={tmp_path / 'data'}"]
    given += [f"dataset.streets.{key}" for key in ("train=1", "val=5", "height=64", "width=128")]
    given += ["train.valid_batch_size=2", "train.num_workers=0"]
    assert run_script("evaluate", *given, f"train.ckpt_dir={tmp_path / 'one'}").code == 0
    start_processes("evaluate", *given, f"train.ckpt_dir={tmp_path / 'two'}", store=tmp_path / "store")
    one, two = (json.loads((tmp_path / n / "evaluate_output" / "metrics.json").read_text()) for n in ("one", "two"))
    assert (one["processes"], two["processes"]) == (1, 2)
    assert len(one["class_iiou"]) == 8 and deterministic(one) == deterministic(two)
    assert len(list((tmp_path / "two" / "evaluate_output").glob("*_pred.png"))) == 5
