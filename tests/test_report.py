"""Tables and pictures of an evaluation."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.labels import cityscapes_classes
from dataset.segmentation import Sample, SegmentationDataset
from tests.conftest import CLASSES
from utils.evaluation.report import WRONG, errors, write_confusion, write_worst
from utils.metrics import ConfusionMatrix, branch_table, category_summary, format_table

NAMES = ("road", "car", "sky")


def confusion_of(pred, target, classes=3):
    confusion = ConfusionMatrix(classes)
    confusion.update(torch.tensor([pred], dtype=torch.uint8), torch.tensor([target], dtype=torch.uint8))
    return confusion


def test_table_names_every_class():
    table = format_table(confusion_of([0, 0, 1], [0, 1, 1]).summary(NAMES))
    assert [line.split() for line in table.splitlines()[1:4]] == [
        ["road", "50.00", "50.00", "100.00", "33.33"],
        ["car", "50.00", "100.00", "50.00", "66.67"],
        ["sky", "absent", "-", "-", "0.00"],
    ]
    assert "mIoU 50.00 %" in table and "1 absent" in table and "category" not in table


def test_table_of_categories_and_instances():
    confusion = confusion_of([0, 1, 2], [0, 1, 1])
    figures = confusion.summary(NAMES) | category_summary(confusion.counts, ["flat", "vehicle", "sky"])
    figures |= {"class_iiou": {"car": 0.25}, "category_iiou": {"vehicle": 0.125}, "miiou": 0.25, "category_miiou": 0.1}
    lines = [line.split() for line in format_table(figures).splitlines()]
    assert lines[2][-1] == "25.00" and lines[1][-1] == "-"
    assert ["vehicle", "50.00", "12.50"] in lines and ["flat", "100.00", "-"] in lines


def test_table_of_branches():
    part = {"miou": 0.5, "pixel_accuracy": 0.25, "speed": {"latency_median_ms": 12.34}}
    table = branch_table({"sub4": part, "all": {"speed": {"latency_median_ms": 1.0}}})
    assert [line.split() for line in table.splitlines()[1:]] == [
        ["sub4", "50.00", "25.00", "12.3"],
        ["all", "-", "-", "1.0"],
    ]


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_confusion_as_csv_and_picture(tmp_path):
    write_confusion(tmp_path, confusion_of([0, 0, 1], [0, 1, 1]).counts, NAMES)
    rows = read_csv(tmp_path / "confusion.csv")
    assert rows[0][1:] == list(NAMES) and rows[2] == ["car", "1", "1", "0"]
    write_confusion(tmp_path, confusion_of([0, 255, 1], [0, 1, 1]).counts, NAMES)
    rows = read_csv(tmp_path / "confusion.csv")
    assert rows[0][1:] == [*NAMES, "no class"] and rows[2] == ["car", "0", "1", "0", "1"]


@pytest.mark.parametrize("classes", [2, 60])
def test_confusion_matrix_is_drawn_for_any_number_of_classes(tmp_path, classes):
    counts = torch.randint(0, 1000, (classes, classes + 1))
    write_confusion(tmp_path, counts, [f"class {n}" for n in range(classes)])
    with Image.open(tmp_path / "confusion.png") as picture:
        assert min(picture.size) > 15 * classes


def test_error_map_by_hand():
    image = np.full((1, 3, 3), 100, np.uint8)
    picture = errors(image, np.array([[0, 1, 1]]), np.array([[0, 0, 255]]))
    assert picture[0].tolist() == [[150, 150, 150], list(WRONG), [0, 0, 0]]


def test_worst_images_come_first_and_old_ones_go(folder_data):
    samples = [
        Sample(folder_data.root / "train" / f"{n}.png", folder_data.root / "train_mask" / f"{n}.png") for n in range(4)
    ]
    table = np.arange(256, dtype=np.uint8)
    data = SegmentationDataset(samples, CLASSES, table)
    folder = folder_data.root / "worst"
    folder.mkdir()
    (folder / "09_of_before.png").write_bytes(b"")
    (folder / "mine.png").write_bytes(b"")
    names = [f"image{n}" for n in range(4)]
    iou = {3: 0.5, 0: 0.1, 2: 0.7}
    write_worst(folder, iou, data=data, segment=lambda x: torch.zeros(1, *x.shape[-2:]).byte(), names=names)
    assert sorted(path.name for path in folder.iterdir()) == [
        "01_image0.png",
        "02_image3.png",
        "03_image2.png",
        "mine.png",
    ]
    with Image.open(folder / "01_image0.png") as picture:
        assert picture.width > 4 * 640


def test_cityscapes_classes_have_categories():
    classes = cityscapes_classes()
    assert dict(zip(classes.names, classes.categories, strict=True))["rider"] == "human"
    assert len(set(classes.categories)) == 7
