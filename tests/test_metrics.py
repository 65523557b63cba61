import pytest
import torch

from utils.metrics import ConfusionMatrix, class_iou, format_table

NAMES = ("road", "car", "sky")


def image(*rows):
    return torch.tensor(rows, dtype=torch.uint8)


def test_counts_by_hand():
    confusion = ConfusionMatrix(3)
    confusion.update(pred=image([0, 0, 1, 2]), target=image([0, 1, 1, 255]))
    assert confusion.counts.dtype == torch.int64
    assert confusion.counts.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert class_iou(confusion.counts)[:2].tolist() == [0.5, 0.5]
    summary = confusion.summary(NAMES)
    assert summary["class_iou"] == {"road": 0.5, "car": 0.5, "sky": None}
    assert (summary["miou"], summary["absent_classes"], summary["images"]) == (0.5, 1, 1)
    assert summary["pixel_accuracy"] == pytest.approx(2 / 3)


def test_a_class_that_is_only_predicted_counts_as_zero():
    confusion = ConfusionMatrix(3)
    confusion.update(pred=image([0, 2]), target=image([0, 0]))
    assert confusion.summary(NAMES)["class_iou"] == {"road": 0.5, "car": None, "sky": 0.0}
    assert confusion.summary(NAMES)["miou"] == 0.25


def test_miou_is_of_the_whole_set_not_a_mean_over_images():
    confusion = ConfusionMatrix(2)
    confusion.update(pred=image([0, 0]), target=image([0, 0]))
    confusion.update(pred=image([1, 1]), target=image([0, 1]))
    summary = confusion.summary(NAMES[:2])
    assert summary["miou"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    # after the first image 1 and, for the class not met yet, 0; as the published code averaged
    assert summary["miou_running_mean"] == pytest.approx((0.5 + summary["miou"]) / 2)
    assert summary["pixel_accuracy_running_mean"] == pytest.approx((1 + 3 / 4) / 2)


def test_an_image_without_labels_changes_nothing():
    confusion = ConfusionMatrix(3)
    confusion.update(pred=image([0, 1]), target=image([255, 255]))
    assert confusion.counts.sum() == 0
    summary = confusion.summary(NAMES)
    assert (summary["miou"], summary["pixel_accuracy"], summary["absent_classes"]) == (0.0, 0.0, 3)


def test_table_names_every_class():
    confusion = ConfusionMatrix(3)
    confusion.update(pred=image([0, 0, 1]), target=image([0, 1, 1]))
    table = format_table(confusion.summary(NAMES))
    assert [line.split() for line in table.splitlines()[1:4]] == [
        ["road", "50.00"],
        ["car", "50.00"],
        ["sky", "absent"],
    ]
    assert "mIoU 50.00 %" in table and "1 absent" in table
