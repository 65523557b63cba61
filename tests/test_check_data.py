"""tools/check_data.py on sound data and on broken."""

import math

import numpy as np
import pytest
from PIL import Image

from tests.conftest import CLASSES
from tools.check_data import SHEET_SAMPLES, largest


@pytest.fixture
def halves(folder_data):
    """The folder data with masks of half a road, a quarter sky, and below that nothing (to validate: a car)."""
    for split, last in (("train", 255), ("val", 2)):
        mask = np.full((48, 64), last, np.uint8)
        mask[:24], mask[24:36] = 0, 1
        for path in (folder_data.root / f"{split}_mask").iterdir():
            Image.fromarray(mask).save(path)
    return folder_data


def test_sound_data_by_hand(halves, run_script):
    result = run_script("tools.check_data", "--config", halves.config)
    assert result.code == 0, result.err
    road, sky, car = (1 / math.log(1.05 + share) for share in (2 / 3, 1 / 3, 0))
    mean = (road + sky + car) / 3
    for line in (
        "train: 4 readable images: 64x48 (4)",
        "  25.00 % of the pixels are ignored, 0 faults",
        "val: 2 readable images: 64x48 (2)",
        f"road    66.667 %   50.000 %{road / mean:9.3f}",
        f"sky     33.333 %   25.000 %{sky / mean:9.3f}",
        f"car         none   25.000 %{car / mean:9.3f}",
        "no faults",
    ):
        assert line in result.out.splitlines(), result.out
    assert list(halves.ckpt_dir.iterdir()) == [halves.ckpt_dir / "check_data.png"]


def test_the_sheet_shows_samples_beside_their_labels(halves, run_script):
    overrides = ["model.crop_size=48", "augment.scale_max=1", "augment.scale_min=1", "augment.blur=0"]
    run_script("tools.check_data", "--config", halves.config, *overrides)
    sheet = np.asarray(Image.open(halves.ckpt_dir / "check_data.png"))
    side, band = 360, 22
    assert sheet.shape == (2 * (side + band + 4) + 4, 4 * (side + 4) + 4, 3)  # four samples, two in a row
    for top, left in ((4 + band, 4 + side + 4), (8 + 2 * band + side, 4 + 3 * (side + 4))):
        label = sheet[top : top + side, left : left + side]
        assert (label[20] == CLASSES.colors[0]).all() and (label[-20] == 0).all()
        assert (label[5 * side // 8] == CLASSES.colors[1]).all()


def test_every_fault_is_named_and_the_code_is_2(halves, run_script):
    train, masks = halves.root / "train", halves.root / "train_mask"
    (train / "0.png").write_bytes(b"no picture")
    Image.fromarray(np.full((48, 64), 7, np.uint8)).save(masks / "1.png")
    (masks / "2.png").unlink()
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(masks / "9.png")
    Image.new("RGB", (64, 31)).save(halves.root / "val" / "0.png")
    result = run_script("tools.check_data", "--config", halves.config)
    assert result.code == 2
    faults = [line for line in result.out.splitlines() if line.startswith("  fault: ")]
    expected = [
        (train / "2.png", "no mask"),
        (masks / "9.png", "no image"),
        (train / "0.png", "cannot be read"),
        (masks / "1.png", "7 (3072 pixels)"),
        (halves.root / "val_mask" / "0.png", "differ in size"),
    ]
    assert len(faults) == len(expected)
    for fault, words in zip(faults, expected, strict=True):
        assert all(str(word) in fault for word in words), fault
    assert "5 faults" in result.out and not result.err
    assert Image.open(halves.ckpt_dir / "check_data.png").width > 0  # of the one that is left


def test_nothing_sound_leaves_no_sheet(halves, run_script):
    for path in (halves.root / "train").iterdir():
        path.write_bytes(b"no picture")
    result = run_script("tools.check_data", "--config", halves.config)
    assert result.code == 2 and "train: 0 readable images: none" in result.out
    assert not halves.ckpt_dir.exists()


def test_a_split_that_is_not_there_is_one_line(halves, run_script):
    result = run_script("tools.check_data", "--config", halves.config, "train.split=test")
    assert result.code == 2 and len(result.err.splitlines()) == 1
    assert "dataset.test.images" in result.err
    halves.values["dataset"]["val"]["masks"] = None
    result = run_script("tools.check_data", "--config", halves.write())
    assert result.code == 2 and "'val' has no labels" in result.err


def test_cityscapes_and_a_split_that_serves_both(cityscapes_data, folder_data, run_script):
    overrides = ["dataset.name=cityscapes", f"train.cityscapes_root={cityscapes_data}", "train.split=val"]
    result = run_script("tools.check_data", "--config", folder_data.config, *overrides)
    assert result.code == 0, result.out + result.err
    assert "val: 1 readable images: 64x32 (1)" in result.out and "bicycle" in result.out and "train:" not in result.out


def test_streets_are_generated_and_more_than_fit_are_not_drawn(folder_data, tmp_path, run_script):
    overrides = ["dataset.name=streets", f"dataset.root={tmp_path / 'streets'}", "model.base_size=64"]
    overrides += [f"dataset.streets.train={SHEET_SAMPLES + 1}", "dataset.streets.val=1"]
    size = ["dataset.streets.height=64", "dataset.streets.width=128"]
    result = run_script("tools.check_data", "--config", folder_data.config, *overrides, *size)
    assert result.code == 0, result.out + result.err
    assert Image.open(folder_data.ckpt_dir / "check_data.png").height == SHEET_SAMPLES // 2 * (360 + 22 + 4) + 4


def test_the_largest_classes_are_named():
    label = np.array([[0, 0, 0, 0, 0, 1, 1, 255, 255, 255]], np.uint8)
    assert largest(label, ("road", "sky")) == "road 50 %, ignored 30 %, sky 20 %"
    assert largest(label[:, :5], ("road", "sky")) == "road 100 %"
