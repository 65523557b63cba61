"""The whole of evaluate.py, on tiny data."""

import json
import os
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.labels import cityscapes_classes
from models import ICNet
from tests.test_distributed import REPOSITORY, TORCHRUN
from utils.config import load_config
from utils.evaluation.measure import Meter, Timed, warm_up
from utils.inference.predictor import Predictor
from utils.inference.segmenter import open_segmenter
from utils.weights.checkpoint import Checkpoint, read_checkpoint, save_checkpoint


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


@pytest.fixture
def evaluated(run_script, folder_data, checkpoint_path):
    """Give a function that evaluates the folder data, and returns the metrics and the folder."""

    def run(*overrides):
        given = ["--config", folder_data.config, f"test.ckpt_path={checkpoint_path}", *overrides]
        result = run_script("evaluate", *given)
        assert (result.code, result.err) == (0, ""), result
        folder = folder_data.ckpt_dir / "evaluate_output"
        return json.loads((folder / "metrics.json").read_text()), folder

    return run


def test_everything_is_written(evaluated):
    metrics, folder = evaluated()
    assert {path.name for path in folder.iterdir()} == {
        *("0_pred.png", "1_pred.png", "confusion.csv", "confusion.png", "metrics.json", "worst")
    }
    assert sorted(path.name[:3] for path in (folder / "worst").iterdir()) == ["01_", "02_"]
    assert metrics["images"] == 2 and metrics["precision"] == "fp32" and metrics["processes"] == 1
    assert metrics["versions"]["torch"] == torch.__version__ and "CPU" in metrics["device"]
    assert metrics["config"]["dataset"]["classes"] == ["road", "sky", "car"]
    assert not {"category_iou", "class_iiou", "branches"} & set(metrics)
    assert "the first 1 left out" in metrics["speed"]["latency_of"]
    assert metrics["speed"]["peak_memory_mib"] > 1 and metrics["speed"]["images_per_second"] > 0


def test_what_is_saved(evaluated, folder_data):
    _, folder = evaluated("test.save=overlay")
    assert sorted(path.name for path in folder.glob("*_overlay.png")) == ["0_overlay.png", "1_overlay.png"]
    assert not list(folder.glob("*_pred.png"))
    image = np.asarray(Image.open(folder_data.root / "val" / "0.png"), float)
    evaluated("test.save=pred")
    colors = np.asarray(Image.open(folder / "0_pred.png").convert("RGB"), float)
    laid_over = np.asarray(Image.open(folder / "0_overlay.png"), float)
    assert np.abs(laid_over - (image + colors) / 2).max() <= 1


def figures_of(metrics):
    return {key: metrics[key] for key in metrics if key not in ("speed", "config", "checkpoint", "processes")}


def test_images_of_different_sizes_in_any_batches(evaluated, folder_data):
    rng = np.random.default_rng(0)
    for index, shape in enumerate([(48, 64), (40, 40), (40, 40), (90, 33)]):
        save(folder_data.root / "val" / f"{index}.png", rng.integers(0, 256, (*shape, 3)))
        save(folder_data.root / "val_mask" / f"{index}.png", rng.integers(0, 3, shape))
    one, _ = evaluated("test.save=none")
    four, _ = evaluated("test.save=none", "train.valid_batch_size=4")
    assert one["images"] == four["images"] == 4
    assert four["miou"] == pytest.approx(one["miou"], abs=1e-3)


def test_branches_are_measured_by_themselves(evaluated):
    metrics, _ = evaluated("test.branches=true", "test.save=none")
    assert list(metrics["branches"]) == ["sub4", "sub4 + sub2", "sub4 + sub2 + sub1"]
    assert metrics["branches"]["sub4 + sub2 + sub1"]["miou"] == metrics["miou"]
    assert len({part["miou"] for part in metrics["branches"].values()}) == 3
    assert all(part["speed"]["latency_median_ms"] > 0 for part in metrics["branches"].values())


def test_views_windows_and_half_precision(evaluated):
    options = ["test.tta={scales: [0.75, 1], flip: true}", "test.window=40", "test.stride=24", "test.precision=bf16"]
    metrics, _ = evaluated("test.save=none", *options)
    assert metrics["precision"] == "bf16"
    assert metrics["config"]["test"]["tta"] == {"scales": [0.75, 1.0], "flip": True}


@pytest.fixture
def own(folder_data, checkpoint_path, tmp_path):
    """Arguments that name a checkpoint whose own configuration has the folder data and a size."""
    trained = load_config(folder_data.config, ["test.short_side=80"])
    save_checkpoint(tmp_path / "own.pth", replace(read_checkpoint(checkpoint_path), config=trained.as_dict()))
    return [f"test.ckpt_path={tmp_path / 'own.pth'}", f"train.ckpt_dir={tmp_path}"]


def test_without_a_configuration_the_data_are_the_checkpoints_and_the_size_always(own, evaluated, run_script, tmp_path):
    def metrics(*overrides):
        assert run_script("evaluate", *own, *overrides).code == 0
        return json.loads((tmp_path / "evaluate_output" / "metrics.json").read_text())

    plain, larger = evaluated()[0], evaluated("test.short_side=80")[0]
    assert metrics()["class_iou"] == larger["class_iou"] != plain["class_iou"]
    assert (metrics()["short_side"], plain["short_side"]) == (80, None)
    assert evaluated(own[0])[0]["class_iou"] == larger["class_iou"]
    assert metrics("test.short_side=0")["class_iou"] == plain["class_iou"]
    assert metrics("test.precision=bf16")["precision"] == "bf16"


def test_inference_takes_the_size_of_the_checkpoint(own, run_script, folder_data, tmp_path):
    source = folder_data.root / "val" / "0.png"

    def labels(*overrides):
        given = [*own, *overrides, "--input", source, "--output", tmp_path / "seen", "--overwrite"]
        assert run_script("inference", *given).code == 0
        return np.asarray(Image.open(tmp_path / "seen" / "0_pred.png"))

    larger = labels()
    assert np.array_equal(larger, Predictor(tmp_path / "own.pth", "cpu").predict(source))
    assert not np.array_equal(larger, labels("test.short_side=0"))


def test_branches_on_a_split_without_labels_have_no_figures(cityscapes, run_script, tmp_path):
    given = [*cityscapes, "test.split=test", f"test.submission={tmp_path / 'submission'}", "test.branches=true"]
    result = run_script("evaluate", *given)
    assert result.code == 0, result.err
    metrics = json.loads((tmp_path / "ckpt" / "evaluate_output" / "metrics.json").read_text())
    assert all("miou" not in part and part["speed"] for part in metrics["branches"].values())


def test_branches_of_an_onnx_file(tmp_path):
    with pytest.raises(ValueError, match=r"net\.onnx is one piece"):
        open_segmenter(tmp_path / "net.onnx", "cpu", branches=1)


@pytest.fixture
def cityscapes(cityscapes_data, tmp_path):
    """A checkpoint for the 19 classes, and the arguments to evaluate it on the tiny Cityscapes."""
    torch.manual_seed(0)
    network, path = ICNet(19, "resnet18"), tmp_path / "cityscapes.pth"
    save_checkpoint(
        path, Checkpoint(state_dict=network.state_dict(), backbone="resnet18", classes=cityscapes_classes())
    )
    settings = [f"train.cityscapes_root={cityscapes_data}", f"train.ckpt_dir={tmp_path / 'ckpt'}"]
    return [f"test.ckpt_path={path}", *settings, "train.num_workers=0"]


def test_submission_of_the_unlabelled_split(run_script, cityscapes, tmp_path):
    result = run_script("evaluate", *cityscapes, "test.split=test", f"test.submission={tmp_path / 'out'}")
    assert (result.code, result.err) == (0, ""), result
    assert "1 files, checked" in result.out and "mIoU" not in result.out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"berlin_000000_000019_pred.png", "submission.zip"}
    metrics = json.loads((tmp_path / "ckpt" / "evaluate_output" / "metrics.json").read_text())
    assert "miou" not in metrics and metrics["split"] == "test"


def test_without_labels_and_without_submission(run_script, cityscapes):
    result = run_script("evaluate", *cityscapes, "test.split=test")
    assert result.code == 2 and "no labels" in result.err


def test_submission_of_other_data(run_script, folder_data, checkpoint_path, tmp_path):
    given = ["--config", folder_data.config, f"test.ckpt_path={checkpoint_path}"]
    result = run_script("evaluate", *given, f"test.submission={tmp_path / 'out'}")
    assert result.code == 2 and "test.submission is for data in the layout of Cityscapes" in result.err


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda mask: mask.unlink(), "no mask"),
        (lambda mask: mask.write_bytes(mask.read_bytes()[:-20]), "cannot be read as an image"),
        (lambda mask: save(mask, np.zeros((48, 63))), "63x48"),
        (lambda mask: save(mask, np.zeros((48, 64, 3))), "8-bit"),
    ],
    ids=["missing", "cut short", "size", "mode"],
)
def test_a_bad_label_is_found_before_the_network_runs(
    run_script, folder_data, checkpoint_path, monkeypatch, fault, words
):
    monkeypatch.setattr("evaluate.measure", lambda *_, **__: pytest.fail("it ran"))
    fault(folder_data.root / "val_mask" / "1.png")
    result = run_script("evaluate", "--config", folder_data.config, f"test.ckpt_path={checkpoint_path}")
    assert result.code == 2 and words in result.err and "1.png" in result.err
    assert not (folder_data.ckpt_dir / "evaluate_output").exists()


def test_a_disk_that_is_full_is_said(run_script, folder_data, checkpoint_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("utils.evaluation.results.save_labels", full)
    result = run_script("evaluate", "--config", folder_data.config, f"test.ckpt_path={checkpoint_path}")
    assert result.code == 2 and "No space left" in result.err
    assert not (folder_data.ckpt_dir / "evaluate_output" / "metrics.json").exists()


def test_two_processes_give_the_figures_of_one_to_the_last_bit(evaluated, folder_data, checkpoint_path, tmp_path):
    rng = np.random.default_rng(0)
    for index in range(7):
        save(folder_data.root / "val" / f"{index}.png", rng.integers(0, 256, (48, 64, 3)))
        save(folder_data.root / "val_mask" / f"{index}.png", rng.integers(0, 3, (48, 64)))
    one, _ = evaluated("train.valid_batch_size=2")
    given = ["--config", str(folder_data.config), f"test.ckpt_path={checkpoint_path}", "train.valid_batch_size=2"]
    subprocess.run(
        [*TORCHRUN, "--nproc_per_node=2", str(REPOSITORY / "evaluate.py"), *given, f"train.ckpt_dir={tmp_path}"],
        check=True,
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    two = json.loads((tmp_path / "evaluate_output" / "metrics.json").read_text())
    assert len(list((tmp_path / "evaluate_output").glob("*_pred.png"))) == 7
    assert (one["processes"], two["processes"]) == (1, 2)
    assert figures_of(one) == figures_of(two)


def test_first_calls_are_left_out():
    assert [warm_up(calls) for calls in (0, 1, 2, 5, 6, 500)] == [0, 0, 1, 4, 5, 5]
    device, calls = torch.device("cpu"), [9.0] * 5 + [0.001] * 19 + [0.003]
    speed = Meter(device).summary(calls, images=25, batch_size=1)
    assert speed["latency_median_ms"] == pytest.approx(1) and speed["latency_p95_ms"] == pytest.approx(1.1)
    timed = Timed(lambda image: image[:, 0], device)
    assert timed(torch.zeros(1, 3, 4, 4)).shape == (1, 4, 4) and len(timed.seconds) == 1
