"""The three real scripts, one after the other, as a user runs them."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from tests.official import assert_same, official_scores
from utils.inference.predictor import Predictor
from utils.weights.checkpoint import read_checkpoint

REPOSITORY = Path(__file__).parent.parent
CONFIG = """
model: {backbone: resnet18, base_size: 64, crop_size: 64}
dataset: {name: streets, root: data, streets: {train: 5, val: 3, height: 64, width: 128}}
train: {train_batch_size: 2, epochs: 2, ckpt_dir: run, num_workers: 0}
"""


def run(script, *arguments, cwd, code=0):
    """Run a script as a user does; return what it printed."""
    command = [sys.executable, str(REPOSITORY / script), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which a tiny network was trained on tiny generated streets, and what was printed."""
    folder = tmp_path_factory.mktemp("scripts")
    (folder / "tiny.yaml").write_text(CONFIG)
    return folder, run("train.py", "--config", "tiny.yaml", cwd=folder)


def test_training_reports_and_leaves_best_and_last(trained):
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


def test_evaluation_needs_only_the_checkpoint_and_agrees_with_training(trained):
    folder, _ = trained
    printed = run("evaluate.py", "test.ckpt_path=run/last.pth", cwd=folder)
    metrics = json.loads((folder / "ckpt" / "evaluate_output" / "metrics.json").read_text())
    validated = json.loads((folder / "run" / "train.jsonl").read_text().splitlines()[-1])
    assert metrics["images"] == 3
    assert metrics["miou"] == pytest.approx(validated["miou"], abs=2e-3)  # folded norms round differently
    assert metrics["class_iou"] == pytest.approx(validated["class_iou"], abs=5e-3)
    assert f"mIoU {100 * metrics['miou']:.2f} %" in printed
    pictures = sorted((folder / "ckpt" / "evaluate_output").glob("*_pred.png"))
    assert len(pictures) == 3 and Image.open(pictures[0]).size == (128, 64)


def test_submitted_files_of_a_trained_network_score_officially_what_was_reported(trained, monkeypatch):
    folder, _ = trained
    printed = run("evaluate.py", "test.ckpt_path=run/last.pth", "test.submission=handed_in", cwd=folder)
    assert "handed_in/submission.zip, 3 files, checked" in printed
    metrics = json.loads((folder / "ckpt" / "evaluate_output" / "metrics.json").read_text())
    labels = sorted((folder / "data" / "gtFine" / "val").rglob("*_labelIds.png"))
    preds = sorted((folder / "handed_in").glob("*.png"))
    assert_same(metrics, official_scores(preds, labels, monkeypatch))


def test_inference_on_an_image_a_folder_a_glob_and_a_video(trained):
    folder, _ = trained
    pictures = folder / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (50, 71, 3), dtype=np.uint8)).save(pictures / "a.jpg")
    Image.fromarray(rng.integers(0, 255, (20, 33), dtype=np.uint8)).save(pictures / "b.png")
    (pictures / "broken.png").write_bytes(b"no picture")
    video = cv2.VideoWriter(str(folder / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 12.5, (96, 64))
    for _ in range(4):
        video.write(rng.integers(0, 255, (64, 96, 3), dtype=np.uint8))
    video.release()

    config = ("--config", "tiny.yaml")
    run("inference.py", *config, "--input", "pictures/a.jpg", cwd=folder)
    output = folder / "run" / "inference_output"
    pred = Image.open(output / "a_pred.png")
    assert pred.mode == "P" and pred.size == (71, 50)
    assert Image.open(output / "a_overlay.png").size == (71, 50)
    best = next((folder / "run").glob("*_best_model.pth"))
    assert np.array_equal(np.asarray(pred), Predictor(best).predict(pictures / "a.jpg"))

    printed = run("inference.py", *config, "--input", "pictures", "--output", "all", cwd=folder, code=1)
    assert "broken.png" in printed and "2 of 3" in printed
    assert {p.name for p in (folder / "all").iterdir()} == {
        f"{stem}_{kind}.png" for stem in "ab" for kind in ("pred", "overlay")
    }
    run("inference.py", *config, "--input", "pictures/[ab].*", "--output", "globbed", cwd=folder)
    assert len(list((folder / "globbed").iterdir())) == 4

    run("inference.py", *config, "--input", "v.avi", cwd=folder)
    result = cv2.VideoCapture(str(output / "v_overlay.mp4"))
    assert result.get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)
    assert [result.get(p) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)] == [96, 64]
    assert sum(1 for _ in iter(lambda: result.read()[0], False)) == 4


def test_the_same_seed_gives_the_same_run_with_any_number_of_workers(trained):
    folder, _ = trained
    run("train.py", "--config", "tiny.yaml", "train.ckpt_dir=again", "train.num_workers=2", cwd=folder)
    first, second = (read_checkpoint(folder / name / "last.pth").state_dict for name in ("run", "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    losses = [
        [json.loads(line)["loss"] for line in (folder / name / "train.jsonl").read_text().splitlines()]
        for name in ("run", "again")
    ]
    assert losses[0] == losses[1]


def test_another_seed_gives_another_run(trained):
    folder, _ = trained
    run("train.py", "--config", "tiny.yaml", "train.ckpt_dir=other", "train.seed=1", "train.epochs=1", cwd=folder)
    first = json.loads((folder / "run" / "train.jsonl").read_text().splitlines()[0])
    other = json.loads((folder / "other" / "train.jsonl").read_text().splitlines()[0])
    assert first["loss"] != other["loss"]
