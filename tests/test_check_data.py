import math

import numpy as np
import pytest
from PIL import Image

from dataset.labels import class_table, lookup_table
from dataset.pairs import Pairs, Sample
from dataset.segmentation import SegmentationDataset
from tests.conftest import CLASSES
from tools.check_data import check_split


def write_sample(folder, name, mask, size=(4, 2)):
    """Write an image of the given size (width, height), and a mask."""
    Image.new("RGB", size).save(folder / f"{name}.jpg")
    Image.fromarray(np.array(mask, np.uint8)).save(folder / f"{name}.png")
    return Sample(folder / f"{name}.jpg", folder / f"{name}.png")


def check(*samples, images=(), masks=()):
    """Check a split of two classes, whose masks store 7, 8 and, for ignored pixels, 0."""
    classes, train_ids = class_table(["road", "sky"], ()), lookup_table({7: 0, 8: 1, 0: 255})
    dataset = SegmentationDataset(list(samples), classes, train_ids)
    return check_split(dataset, Pairs(list(samples), list(images), list(masks)), name="train")


def assert_problems(problems, expected):
    """Assert that each problem contains the expected words, in order."""
    assert len(problems) == len(expected), problems
    for problem, words in zip(problems, expected, strict=True):
        assert all(str(word) in problem for word in words), problem


def test_pixels_and_sizes_are_counted(tmp_path):
    found = check(
        write_sample(tmp_path, "a", [[7, 7, 7, 8], [0, 0, 0, 0]]),
        write_sample(tmp_path, "b", [[8, 8], [0, 7]], size=(2, 2)),
        write_sample(tmp_path, "c", [[7, 7, 7, 7], [7, 7, 7, 7]]),
    )
    assert found.problems == [] and found.valid == [0, 1, 2]
    assert found.sizes == {(4, 2): 2, (2, 2): 1}
    assert (found.pixels[0], found.pixels[1], found.pixels[255]) == (3 + 1 + 8, 1 + 2, 4 + 1)
    assert found.pixels.sum() == 20


def test_every_problem_of_every_file_is_listed(tmp_path):
    good = write_sample(tmp_path, "good", [[7, 7, 7, 8], [0, 0, 0, 0]])
    unknown = write_sample(tmp_path, "unknown", [[7, 9, 9, 8], [0, 255, 0, 0]])
    size = write_sample(tmp_path, "size", [[9, 7], [7, 7]])
    broken = write_sample(tmp_path, "broken", [[7]])
    broken.image.write_bytes(b"not an image")
    broken.mask.write_bytes(b"not an image")
    rgb = Sample(good.image, good.image)
    found = check(
        *(good, unknown, size, broken, rgb), images=[tmp_path / "unpaired.jpg"], masks=[tmp_path / "unpaired.png"]
    )
    expected = [
        ("unpaired.jpg", "this image has no mask"),
        ("unknown.png", "9 (2 pixels), 255 (1 pixels)"),
        ("size.png", "9 (1 pixels)"),
        ("size.jpg is 4x2", "size.png is 2x2"),
        ("broken.jpg", "cannot be read"),
        ("broken.png", "cannot be read"),
        ("good.jpg", "mask"),
    ]
    assert_problems(found.problems, expected)
    assert found.valid == [0] and found.pixels[254] == 4 and found.unused_masks == 1


def test_a_split_without_labelled_pixels_is_a_problem(tmp_path):
    ignored = write_sample(tmp_path, "a", [[0, 0, 0, 0]] * 2)
    assert_problems(check(ignored).problems, [("train", "not a single labelled pixel")])


@pytest.fixture
def halves(folder_data):
    """The folder data with masks of one half road, one quarter sky, the rest ignored (in `val`: car)."""
    for split, last in (("train", 255), ("val", 2)):
        mask = np.full((48, 64), last, np.uint8)
        mask[:24], mask[24:36] = 0, 1
        for path in (folder_data.root / f"{split}_mask").iterdir():
            Image.fromarray(mask).save(path)
    return folder_data


def test_valid_data_is_reported(halves, run_script):
    result = run_script("tools.check_data", "--config", halves.config, "loss.balance_offset=2")
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    for line in (
        "train: 4 readable images: 64x48 (4)",
        "  25.00% of the pixels are ignored, 0 problems",
        "val: 2 readable images: 64x48 (2)",
        "not in the training masks: car; check their values, and dataset.ignore_index",
        "no problems",
    ):
        assert line in lines, result.out
    road, sky, car = (1 / math.log(2 + share) for share in (2 / 3, 1 / 3, 0))
    mean = (road + sky + car) / 3
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    assert rows[0] == ["class", "train %", "val %", "loss.balance=log"]
    assert rows[2:] == [
        ["road", "66.667", "50.000", f"{road / mean:.3f}"],
        ["sky", "33.333", "25.000", f"{sky / mean:.3f}"],
        ["car", "none", "25.000", f"{car / mean:.3f}"],
    ]
    assert list(halves.ckpt_dir.iterdir()) == [halves.ckpt_dir / "check_data.png"]


def test_images_in_both_splits_are_reported(folder_data, run_script):
    result = run_script("tools.check_data", "--config", folder_data.config)
    assert result.code == 0 and "in both splits" not in result.out
    val = "dataset.val={images: 'train/[02].png', masks: 'train_mask/[02].png'}"
    result = run_script("tools.check_data", "--config", folder_data.config, val)
    assert result.code == 0, result.err
    assert f"images in both splits: 2, such as {folder_data.root / 'train' / '0.png'}; they make" in result.out


def test_samples_are_drawn_beside_their_labels(halves, run_script):
    overrides = ["model.crop_size=48", "augment.scale_max=1", "augment.scale_min=1", "augment.blur=0"]
    run_script("tools.check_data", "--config", halves.config, *overrides)
    sheet = np.asarray(Image.open(halves.ckpt_dir / "check_data.png"))
    side, band = 360, 22
    assert sheet.shape == (2 * (side + band + 4) + 4, 4 * (side + 4) + 4, 3)  # four samples, two in a row
    for top, left in ((4 + band, 4 + side + 4), (8 + 2 * band + side, 4 + 3 * (side + 4))):
        label = sheet[top : top + side, left : left + side]
        assert (label[20] == CLASSES.colors[0]).all() and (label[-20] == 0).all()
        assert (label[5 * side // 8] == CLASSES.colors[1]).all()


def test_problems_are_printed_with_exit_code_2(halves, run_script):
    train, masks = halves.root / "train", halves.root / "train_mask"
    (train / "0.png").write_bytes(b"not an image")
    Image.fromarray(np.full((48, 64), 7, np.uint8)).save(masks / "1.png")
    (masks / "2.png").unlink()
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(masks / "9.png")
    Image.new("RGB", (64, 31)).save(halves.root / "val" / "0.png")
    result = run_script("tools.check_data", "--config", halves.config)
    assert result.code == 2
    expected = [
        (train / "2.png", "no mask"),
        (train / "0.png", "cannot be read"),
        (masks / "1.png", "7 (3072 pixels)"),
        (halves.root / "val_mask" / "0.png", "differ in size"),
    ]
    assert_problems([line for line in result.out.splitlines() if line.startswith("  problem: ")], expected)
    assert "problems: 4; fix them" in result.out and "masks without an image, which are not used: 1" in result.out
    assert not result.err
    assert Image.open(halves.ckpt_dir / "check_data.png").width > 0  # of the remaining valid sample


def test_nothing_is_drawn_without_a_valid_sample(halves, run_script):
    for path in (halves.root / "train").iterdir():
        path.write_bytes(b"not an image")
    result = run_script("tools.check_data", "--config", halves.config)
    assert result.code == 2 and "train: 0 readable images: none" in result.out
    assert not halves.ckpt_dir.exists()


def test_a_missing_or_unlabelled_split_is_a_one_line_error(halves, run_script):
    result = run_script("tools.check_data", "--config", halves.config, "train.split=test")
    assert result.code == 2 and len(result.err.splitlines()) == 1
    assert "dataset.test.images" in result.err
    halves.values["dataset"]["val"]["masks"] = None
    result = run_script("tools.check_data", "--config", halves.write())
    assert result.code == 2 and "'val' has no labels" in result.err and not result.out


def test_cityscapes_with_one_split_for_both(cityscapes_data, folder_data, run_script):
    overrides = ["dataset.name=cityscapes", "dataset.root=null", f"train.cityscapes_root={cityscapes_data}"]
    overrides += ["train.split=val"]
    result = run_script("tools.check_data", "--config", folder_data.config, *overrides)
    assert result.code == 0, result.out + result.err
    assert "val: 1 readable images: 64x32 (1)" in result.out and "bicycle" in result.out and "train:" not in result.out


def test_streets_are_generated_and_surplus_samples_are_not_drawn(folder_data, tmp_path, run_script, monkeypatch):
    monkeypatch.setattr("tools.check_data.SHEET_SAMPLES", 2)
    overrides = ["dataset.name=streets", f"dataset.root={tmp_path / 'streets'}", "model.base_size=64"]
    overrides += ["dataset.streets.train=3", "dataset.streets.val=1"]
    size = ["dataset.streets.height=64", "dataset.streets.width=128"]
    result = run_script("tools.check_data", "--config", folder_data.config, *overrides, *size)
    assert result.code == 0, result.out + result.err
    assert Image.open(folder_data.ckpt_dir / "check_data.png").height == 360 + 22 + 4 + 4
