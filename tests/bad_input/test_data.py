"""Data that is missing, damaged or does not fit."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.bad_input.conftest import arguments, has, untrained
from tests.conftest import save_array
from utils.weights.checkpoint import read_checkpoint, save_checkpoint


@pytest.mark.parametrize("script", ["train", "evaluate"])
def test_missing_cityscapes_data(refused, tmp_path, script):
    checkpoint = tmp_path / "cityscapes.pth"
    save_checkpoint(checkpoint, untrained(19))
    config = tmp_path / "config.yaml"
    settings = {"model": {"backbone": "resnet18"}, "train": {"ckpt_dir": str(tmp_path / "ckpt"), "num_workers": 0}}
    config.write_text(yaml.safe_dump(settings))
    given = ["--config", config, f"test.ckpt_path={checkpoint}"]
    line = refused(script, *given, f"train.cityscapes_root={tmp_path}/nothing")
    assert has(line, tmp_path / "nothing", "train.cityscapes_root", "leftImg8bit")


@pytest.mark.parametrize("script", ["train", "evaluate"])
def test_missing_masks(refused, folder_data, checkpoint_path, script):
    given = [*arguments(script, folder_data), f"test.ckpt_path={checkpoint_path}"]
    for mask in (folder_data.root / "val_mask").iterdir():
        mask.unlink()
    assert has(refused(script, *given), "2 of 2 images", "val/0.png", "val_mask/*.png")


def spoil(mask: Path, fault: str) -> None:
    """Give a mask an undefined value, or another size than its image."""
    if fault == "value":
        values = np.zeros((48, 64))
        values[3, 4] = 7
        save_array(mask, values)
    else:
        save_array(mask, np.zeros((48, 63)))


@pytest.mark.parametrize("script", ["train", "evaluate"])
def test_a_faulty_mask_is_named(refused, folder_data, checkpoint_path, script):
    for mask in folder_data.root.glob("*_mask/*.png"):
        spoil(mask, "value")
    given = [*arguments(script, folder_data), f"test.ckpt_path={checkpoint_path}"]
    line = refused(script, *given, logs=True)
    assert has(line, ".png", "the value 7", "(0-2, 255)", "dataset.classes")
    assert refused(script, *given, "train.num_workers=1", logs=True) == line


def test_a_faulty_validation_mask_ends_the_run_after_its_epoch(refused, folder_data):
    """The weights of that epoch are kept."""
    spoil(folder_data.root / "val_mask" / "1.png", "value")
    assert has(refused("train", "--config", folder_data.config, logs=True), "val_mask/1.png", "the value 7")
    assert read_checkpoint(folder_data.ckpt_dir / "last.pth").epoch == 1


def test_a_broken_validation_file_is_reported_before_the_first_epoch(refused, folder_data):
    spoil(folder_data.root / "val_mask" / "1.png", "size")
    assert has(refused("train", "--config", folder_data.config, logs=True), "val_mask/1.png", "differ in size")
    assert not (folder_data.ckpt_dir / "last.pth").exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_training_without_labels(refused, folder_data, split):
    folder_data.values["dataset"][split]["masks"] = None
    line = refused("train", "--config", folder_data.write())
    assert has(line, f"the split {split!r} has no labels")


def test_training_on_the_test_part_of_cityscapes(refused, cityscapes_data, folder_data):
    line = refused(
        "train",
        *("--config", folder_data.config, "dataset.name=cityscapes", "dataset.root=null"),
        *(f"train.cityscapes_root={cityscapes_data}", "train.split=test", "train.train_batch_size=1"),
    )
    assert has(line, "no labels", "test.submission=FOLDER") and "masks" not in line  # which Cityscapes ignores


def test_evaluation_without_labels(refused, folder_data, checkpoint_path):
    folder_data.values["dataset"]["val"]["masks"] = None
    line = refused("evaluate", "--config", folder_data.write(), f"test.ckpt_path={checkpoint_path}")
    assert has(line, "no labels", "test.split", "set dataset.val.masks")


def test_evaluation_that_fails_leaves_no_figures_of_an_earlier_one(refused, run_script, folder_data, checkpoint_path):
    given = ["--config", folder_data.config, f"test.ckpt_path={checkpoint_path}"]
    assert run_script("evaluate", *given).code == 0
    figures = folder_data.ckpt_dir / "evaluate_output" / "metrics.json"
    assert json.loads(figures.read_text())["images"] == 2
    save_array(folder_data.root / "val_mask" / "1.png", np.full((48, 64), 9))
    refused("evaluate", *given, logs=True)
    assert not figures.exists() and not list((figures.parent / "worst").iterdir())
    assert not list(figures.parent.glob("confusion.*"))
