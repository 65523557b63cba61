"""Terminal tables, the confusion matrix and the sheets of the worst images."""

import csv

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from PIL import Image

from dataset.segmentation import Sample, SegmentationDataset
from tests.conftest import CLASSES
from utils.evaluation import report
from utils.evaluation.report import ERROR_COLOR, branch_table, error_map, remove_worst, write_confusion, write_worst

NAMES = ("road", "car", "sky")


def test_table_of_branches():
    part = {"miou": 0.5, "pixel_accuracy": 0.25, "speed": {"latency_median_ms": 12.34}}
    table = branch_table({"sub4": part, "all": {"speed": {"latency_median_ms": 1.0}}})
    assert [line.split() for line in table.splitlines()[2:]] == [
        ["sub4", "50.00%", "25.00%", "12.3"],
        ["all", "-", "-", "1.0"],
    ]


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_csv_of_the_confusion_matrix(tmp_path):
    write_confusion(tmp_path, torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 0]]), NAMES)
    rows = read_csv(tmp_path / "confusion.csv")
    assert rows[0][1:] == list(NAMES) and rows[2] == ["car", "1", "1", "0"]


@pytest.mark.parametrize("classes", [2, 50])
def test_plot_of_the_confusion_matrix_fits_any_number_of_classes(tmp_path, classes):
    counts = torch.randint(0, 1000, (classes, classes))
    write_confusion(tmp_path, counts, [f"class {n}" for n in range(classes)])
    with Image.open(tmp_path / "confusion.png") as plot:
        assert min(plot.size) > 15 * classes


def test_error_map_by_hand():
    image = np.full((1, 3, 3), 100, np.uint8)
    errors = error_map(image, np.array([[0, 1, 1]]), np.array([[0, 0, 255]]))
    assert errors[0].tolist() == [[150, 150, 150], list(ERROR_COLOR), [0, 0, 0]]


def test_worst_images_are_ranked_and_replace_earlier_ones(folder_data, monkeypatch):
    samples = [
        Sample(folder_data.root / "train" / f"{n}.png", folder_data.root / "train_mask" / f"{n}.png") for n in range(4)
    ]
    table = np.arange(256, dtype=np.uint8)
    data = SegmentationDataset(samples, CLASSES, table)
    folder = folder_data.root / "worst"
    folder.mkdir()
    (folder / "09_earlier.png").write_bytes(b"")
    (folder / "mine.png").write_bytes(b"")
    names = [f"image{n}" for n in range(4)]
    iou = {3: 0.5, 0: 0.1, 2: 0.7}
    remove_worst(folder)
    write_worst(folder, iou, data, lambda x: torch.zeros(1, *x.shape[-2:]).byte(), names)
    assert sorted(path.name for path in folder.iterdir()) == [
        "01_image0.png",
        "02_image3.png",
        "03_image2.png",
        "mine.png",
    ]
    with Image.open(folder / "01_image0.png") as sheet:
        assert sheet.width > 4 * 640
    monkeypatch.setattr(report, "WORST", 2)
    remove_worst(folder)
    write_worst(folder, iou, data, lambda x: torch.zeros(1, *x.shape[-2:]).byte(), names)
    assert sorted(path.name for path in folder.iterdir()) == ["01_image0.png", "02_image3.png", "mine.png"]


def test_the_plot_shows_shares_of_the_labels(tmp_path, monkeypatch):
    shown, write = {}, Axes.text

    def text(axes, x, y, words, **options):
        shown[int(y), int(x)] = words
        return write(axes, x, y, words, **options)

    monkeypatch.setattr(Axes, "text", text)
    write_confusion(tmp_path, torch.tensor([[3, 1, 0], [0, 4, 0]]), ("road", "car"))
    assert shown == {(0, 0): "75", (0, 1): "25", (1, 1): "100"}


def test_panels_of_the_worst_images_are_the_label_and_the_prediction(tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "i.png")
    Image.new("L", (64, 48), 1).save(tmp_path / "m.png")
    table = np.arange(256, dtype=np.uint8)
    data = SegmentationDataset([Sample(tmp_path / "i.png", tmp_path / "m.png")], CLASSES, table)
    write_worst(tmp_path, {0: 0.0}, data, lambda x: torch.full((1, 48, 64), 2, dtype=torch.uint8), ["x"])
    sheet = np.asarray(Image.open(tmp_path / "01_x.png"))
    panels = [tuple(sheet[60, 4 + n * 644 + 60].tolist()) for n in (1, 2)]  # panels of 640 pixels, 4 apart
    assert panels == [CLASSES.colors[1], CLASSES.colors[2]]
