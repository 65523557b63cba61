"""Metrics computed by hand, on images of a few pixels."""

import pytest
import torch

from utils import distributed
from utils.metrics import ConfusionMatrix, category_summary, format_table, iou, marginals

NAMES = ("road", "car", "sky")


def image(*rows):
    return torch.tensor(rows, dtype=torch.uint8)


def test_counts_and_iou_by_hand():
    confusion = ConfusionMatrix(3)
    confusion.update(pred=image([0, 0, 1, 2]), target=image([0, 1, 1, 255]))
    assert confusion.counts.dtype == torch.int64
    assert confusion.counts.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert iou(marginals(confusion.counts))[:2].tolist() == [0.5, 0.5]
    summary = confusion.summary(NAMES)
    assert summary["class_iou"] == {"road": 0.5, "car": 0.5, "sky": None}
    assert (summary["miou"], summary["absent_classes"], summary["images"]) == (0.5, 1, 1)
    assert summary["pixel_accuracy"] == pytest.approx(2 / 3)


def test_a_class_that_is_only_predicted_has_an_iou_of_zero():
    confusion = ConfusionMatrix(3)
    confusion.update(pred=image([0, 2]), target=image([0, 0]))
    assert confusion.summary(NAMES)["class_iou"] == {"road": 0.5, "car": None, "sky": 0.0}
    assert confusion.summary(NAMES)["miou"] == 0.25


def test_miou_is_computed_over_the_whole_set_not_averaged_over_images():
    confusion = ConfusionMatrix(2)
    confusion.update(pred=image([0, 0]), target=image([0, 0]))
    confusion.update(pred=image([1, 1]), target=image([0, 1]))
    summary = confusion.summary(NAMES[:2])
    assert summary["miou"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert summary["pixel_accuracy"] == pytest.approx(3 / 4)
    # after the first image 1 for one class and 0 for the one not seen yet, as the published code averaged
    assert summary["miou_running_mean"] == pytest.approx((0.5 + summary["miou"]) / 2)
    assert summary["pixel_accuracy_running_mean"] == pytest.approx((1 + 3 / 4) / 2)


@pytest.mark.parametrize("images", [0, 1])
def test_without_labelled_pixels_every_metric_is_none_or_zero(images):
    confusion = ConfusionMatrix(2)
    for _ in range(images):
        confusion.update(pred=image([0, 1]), target=image([255, 255]))
    assert confusion.counts.sum() == 0 and confusion.image_iou() == {}
    summary = confusion.summary(NAMES[:2])
    undefined = {"road": None, "car": None}
    assert all(summary.pop(f"class_{name}") == undefined for name in ("iou", "precision", "recall", "share"))
    assert (summary.pop("absent_classes"), summary.pop("images")) == (2, images)
    assert set(summary.values()) == {0.0} and len(summary) == 6
    assert confusion.running.tolist() == [[0, 0]] * images


def test_metrics_of_each_class_by_hand():
    confusion = ConfusionMatrix(3)
    confusion.update(pred=image([0, 0, 0, 1]), target=image([0, 0, 1, 1]))
    summary = confusion.summary(NAMES)
    assert summary["class_precision"] == {"road": pytest.approx(2 / 3), "car": 1.0, "sky": None}
    assert summary["class_recall"] == {"road": 1.0, "car": 0.5, "sky": None}
    assert summary["class_share"] == {"road": 0.5, "car": 0.5, "sky": 0.0}
    assert summary["mean_accuracy"] == pytest.approx(0.75)
    assert summary["frequency_weighted_iou"] == pytest.approx(0.5 * 2 / 3 + 0.5 * 1 / 2)


def test_a_category_merges_its_classes():
    confusion = ConfusionMatrix(3)
    confusion.update(pred=image([1, 0, 0, 2, 2]), target=image([0, 0, 2, 2, 1]))
    figures = category_summary(confusion.counts, ["ground", "ground", "sky"])
    assert figures["category_iou"] == {"ground": pytest.approx(2 / 4), "sky": pytest.approx(1 / 3)}
    assert figures["category_miou"] == pytest.approx(5 / 12)


def test_categories_need_not_be_contiguous_and_keep_their_order():
    confusion = ConfusionMatrix(4)
    confusion.update(pred=image([0, 1, 2, 3, 0, 3]), target=image([0, 0, 1, 1, 1, 1]))
    figures = category_summary(confusion.counts, ["flat", "object", "flat", "sky"])
    # flat: 1 hit, 2 labelled, 3 predicted; object: no hit, 4 labelled, 1 predicted; sky: 2 predicted
    assert list(figures["category_iou"].items()) == [("flat", pytest.approx(1 / 4)), ("object", 0.0), ("sky", 0.0)]
    assert figures["category_miou"] == pytest.approx(1 / 12)
    assert category_summary(ConfusionMatrix(2).counts, ["a", "b"]) == {
        "category_iou": {"a": None, "b": None},
        "category_miou": 0.0,
    }


def test_images_are_sorted_by_index():
    images = [(image([0, 0]), image([0, 0])), (image([1, 1]), image([0, 1])), (image([1, 0]), image([1, 1]))]
    in_order, shuffled = ConfusionMatrix(2), ConfusionMatrix(2)
    for pred, target in images:
        in_order.update(pred, target)
    for index in (2, 0, 1):
        shuffled.update(*images[index], index=index)
    assert torch.equal(in_order.running, shuffled.running)
    assert list(shuffled.image_iou().items()) == [(0, 1.0), (1, pytest.approx(0.25)), (2, pytest.approx(0.25))]


def test_processes_merge_their_counts(monkeypatch):
    images = [(image([0, 0]), image([0, 0])), (image([1, 1]), image([0, 1])), (image([1, 0]), image([1, 1]))]
    whole, one, other, idle = (ConfusionMatrix(2) for _ in range(4))
    for index, (pred, target) in enumerate(images):
        whole.update(pred, target)
        (other if index == 1 else one).update(pred, target, index=index)
    given = []
    monkeypatch.setattr(distributed, "gather", lambda value: given.append(value) or given)
    idle.merge()  # without any images
    assert given[0][2].shape == (0, 3, 2) and given[0][2].dtype == torch.int64
    given.append((other.counts, [1], torch.stack([other.by_image[1]])))
    one.merge()
    assert torch.equal(one.counts, whole.counts) and torch.equal(one.running, whole.running)
    assert one.summary(NAMES[:2]) == whole.summary(NAMES[:2]) and one.image_iou() == whole.image_iou()


def test_table_lists_every_class():
    confusion = ConfusionMatrix(3)
    confusion.update(pred=image([0, 0, 1]), target=image([0, 1, 1]))
    table = format_table(confusion.summary(NAMES))
    assert [line.split() for line in table.splitlines()[2:5]] == [
        ["road", "50.00%", "50.00%", "100.00%", "33.33%"],
        ["car", "50.00%", "100.00%", "50.00%", "66.67%"],
        ["sky", "-", "-", "-", "0.00%"],
    ]
    assert "mIoU 50.00%" in table and "1 absent" in table and "category" not in table


def test_table_with_category_and_instance_metrics():
    confusion = ConfusionMatrix(3)
    confusion.update(pred=image([0, 1, 2]), target=image([0, 1, 1]))
    metrics = confusion.summary(NAMES) | category_summary(confusion.counts, ["flat", "vehicle", "sky"])
    metrics |= {"class_iiou": {"car": 0.25}, "category_iiou": {"vehicle": 0.125}, "miiou": 0.25, "category_miiou": 0.1}
    lines = [line.split() for line in format_table(metrics).splitlines()]
    assert lines[0][-1] == "iIoU"
    assert lines[2][-1] == "-" and lines[3][-1] == "25.00%"
    assert ["vehicle", "50.00%", "12.50%"] in lines and ["flat", "100.00%", "-"] in lines
    assert {"mean iIoU 25.00%", "category mean iIoU 10.00%"} <= {" ".join(line) for line in lines}
