"""The three scripts end to end, as a user runs them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from tests.official import assert_same, official_scores
from utils import distributed
from utils.inference.predictor import Predictor
from utils.weights.checkpoint import read_checkpoint

REPOSITORY = Path(__file__).parent.parent
CONFIG = """
model: {backbone: resnet18, width: 0.25, base_size: 64, crop_size: 64}
dataset: {name: streets, root: data, streets: {train: 5, val: 3, height: 64, width: 128}}
train: {train_batch_size: 2, epochs: 2, ckpt_dir: run, num_workers: 0}
test: {runtime: pytorch}
"""


def run(script, *arguments, cwd, code=0):
    """Run a script in a process of its own; return what it printed."""
    command = [sys.executable, str(REPOSITORY / script), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a tiny network trained on tiny generated streets, and what train.py printed."""
    folder = tmp_path_factory.mktemp("scripts")
    (folder / "tiny.yaml").write_text(CONFIG)
    return folder, run("train.py", "--config", "tiny.yaml", cwd=folder)


def test_training_reports_and_writes_the_best_and_the_last_checkpoint(trained):
    folder, printed = trained
    (best,) = (folder / "run").glob("icnet_resnet18_*_best_model.pth")
    for words in ("no CUDA device", "bicycle", "mIoU", str(best.relative_to(folder)), "train.log", "next: python"):
        assert words in printed, printed
    records = [json.loads(line) for line in (folder / "run" / "train.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2]
    assert [record["iteration"] for record in records] == [2, 4]  # five images, batches of two, the rest dropped
    assert records[0]["lr_backbone"] == 0.01 and records[0]["loss"] > 0
    last = read_checkpoint(folder / "run" / "last.pth")
    assert (last.epoch, last.iteration, last.backbone, len(last.classes)) == (2, 4, "resnet18", 19)
    assert last.training is not None and read_checkpoint(best).training is None
    assert best.name.split("_")[3] == f"{max(record['miou'] for record in records):.3f}"


def test_evaluation_needs_only_the_checkpoint_and_agrees_with_training(trained, monkeypatch):
    folder, _ = trained
    printed = run(
        "evaluate.py", "test.ckpt_path=run/last.pth", "test.submission=handed_in", "test.runtime=pytorch", cwd=folder
    )
    metrics = json.loads((folder / "ckpt" / "evaluate_output" / "metrics.json").read_text())
    validated = json.loads((folder / "run" / "train.jsonl").read_text().splitlines()[-1])
    assert metrics["images"] == 3
    assert metrics["miou"] == pytest.approx(validated["miou"], abs=2e-3)  # folded norms round differently
    assert metrics["class_iou"] == pytest.approx(validated["class_iou"], abs=5e-3)
    assert f"mIoU {100 * metrics['miou']:.2f}%" in printed
    pictures = sorted((folder / "ckpt" / "evaluate_output").glob("*_pred.png"))
    assert len(pictures) == 3 and Image.open(pictures[0]).size == (128, 64)
    assert "handed_in/submission.zip, 3 files" in printed
    labels = sorted((folder / "data" / "gtFine" / "val").rglob("*_labelIds.png"))
    preds = sorted((folder / "handed_in").glob("*.png"))
    assert_same(metrics, official_scores(preds, labels, monkeypatch))


def test_inference_on_images_and_a_video_skips_a_broken_file(trained):
    folder, _ = trained
    inputs, rng = folder / "inputs", np.random.default_rng(0)
    inputs.mkdir()
    Image.fromarray(rng.integers(0, 255, (50, 71, 3), dtype=np.uint8)).save(inputs / "a.jpg")
    Image.fromarray(rng.integers(0, 255, (20, 33), dtype=np.uint8)).save(inputs / "b.png")
    (inputs / "broken.png").write_bytes(b"not an image")
    video = cv2.VideoWriter(str(inputs / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 12.5, (96, 64))
    for _ in range(4):
        video.write(rng.integers(0, 255, (64, 96, 3), dtype=np.uint8))
    video.release()

    printed = run("inference.py", "--config", "tiny.yaml", "--input", "inputs", cwd=folder, code=1)
    assert "broken.png" in printed and "3 of 4" in printed
    output = folder / "run" / "inference_output"
    images = {f"{stem}_{kind}.png" for stem in "ab" for kind in ("pred", "overlay")}
    assert {path.name for path in output.iterdir()} == images | {"v_overlay.mp4"}
    pred = Image.open(output / "a_pred.png")
    assert pred.mode == "P" and pred.size == Image.open(output / "a_overlay.png").size == (71, 50)
    best = next((folder / "run").glob("*_best_model.pth"))
    assert np.array_equal(np.asarray(pred), Predictor(best).predict(inputs / "a.jpg"))

    result = cv2.VideoCapture(str(output / "v_overlay.mp4"))
    assert result.get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)
    assert [result.get(p) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)] == [96, 64]
    assert sum(1 for _ in iter(lambda: result.read()[0], False)) == 4


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "train.jsonl").read_text().splitlines()]


def test_a_seed_determines_the_run_whatever_the_number_of_workers(trained, run_script, monkeypatch):
    folder, _ = trained
    monkeypatch.chdir(folder)
    for name, workers in (("first", 0), ("second", 2)):
        overrides = [f"train.ckpt_dir={name}", f"train.num_workers={workers}", "train.epochs=1"]
        result = run_script("train", "--config", "tiny.yaml", *overrides)
        assert result.code == 0, result.err
    first, second = (read_checkpoint(folder / name / "last.pth").state_dict for name in ("first", "second"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert losses(folder / "first") == losses(folder / "second")


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_scripts_start_a_process_per_gpu(folder_data, run_script, monkeypatch, name):
    def start(gpus):
        raise ValueError(f"processes on {gpus}")

    monkeypatch.setattr(distributed, "start_process_per_gpu", start)
    result = run_script(name, "--config", folder_data.config, 'train.specific_gpu_num="0, 1"')
    assert result.err == "error: processes on 0, 1\n"


def test_training_without_a_configuration_follows_the_published_recipe(run_script, tmp_path):
    given = [f"train.cityscapes_root={tmp_path}/none", f"train.ckpt_dir={tmp_path}/run", "train.seed=3"]
    result = run_script("train", *given)
    assert "configs/icnet.yaml" in result.out
    assert result.code == 2 and f"{tmp_path}/none" in result.err
    assert torch.initial_seed() == 3  # seeded before anything is built


@pytest.mark.parametrize("name", ["evaluate", "inference"])
def test_the_configured_network_comes_before_a_better_one_of_another(run_script, folder_data, checkpoint_path, name):
    folder_data.ckpt_dir.mkdir()
    (folder_data.ckpt_dir / "icnet_resnet50_1_0.900_best_model.pth").write_bytes(b"-")  # unreadable
    shutil.copy(checkpoint_path, folder_data.ckpt_dir)
    given = ["--input", folder_data.root / "val" / "0.png"] if name == "inference" else []
    result = run_script(name, "--config", folder_data.config, *given)
    assert result.code == 0, result.err
