"""The instance-level IoU (iIoU) by hand; test_official.py compares it with the official evaluator."""

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.cityscapes import find_cityscapes
from dataset.labels import cityscapes_classes, cityscapes_train_ids
from dataset.segmentation import SegmentationDataset
from utils.evaluation.instances import AVERAGE_SIZE, InstanceScores, find_instances

CAR, ROAD = 13, 0


@pytest.fixture
def data(cityscapes_data):
    return SegmentationDataset(
        find_cityscapes(cityscapes_data, "val").complete(), cityscapes_classes(), cityscapes_train_ids()
    )


def write_instances(data, values):
    mask = data.samples[0].mask
    Image.fromarray(values.astype(np.uint16)).save(mask.with_name(mask.name.replace("labelIds", "instanceIds")))


def test_a_small_instance_counts_as_much_as_a_large_one(data):
    ids = np.full((32, 64), 7)
    ids[:10, :10], ids[20:22, :5], ids[30] = 26001, 26002, 26  # 100 and 10 pixels, and a group without instances
    write_instances(data, ids)
    pred = np.full((32, 64), ROAD, np.uint8)
    pred[:10, :10] = CAR  # all of the large instance, nothing of the small one
    pred[31, :7] = CAR  # false positives
    counts = torch.zeros(19, 19, dtype=torch.int64)
    counts[ROAD, CAR] = 7
    scores = InstanceScores(data, find_instances(data))
    scores.update(0, pred)
    average = AVERAGE_SIZE["car"]
    iiou = average / (average + average + 7)
    summary = scores.summary(counts)
    assert summary["class_iiou"]["car"] == pytest.approx(iiou)
    assert summary["category_iiou"] == {"human": None, "vehicle": pytest.approx(iiou)}
    assert summary["class_iiou"]["bus"] is None and "road" not in summary["class_iiou"]
    assert summary["miiou"] == pytest.approx(iiou)


def test_data_without_instance_files(data):
    assert find_instances(data) == []


def test_instance_files_are_checked(data):
    write_instances(data, np.zeros((32, 63)))
    with pytest.raises(ValueError, match=r"_instanceIds\.png is 63x32 .* 64x32"):
        find_instances(data)
    write_instances(data, np.zeros((32, 64)))
    (path,) = find_instances(data)
    assert path.name.endswith("_gtFine_instanceIds.png")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match="cannot be read"):
        find_instances(data)


def test_missing_instance_files(cityscapes_data):
    samples = find_cityscapes(cityscapes_data, "train").complete()
    data = SegmentationDataset(samples, cityscapes_classes(), cityscapes_train_ids())
    write_instances(data, np.zeros((32, 64)))
    with pytest.raises(ValueError, match="2 of 3 label files have no"):
        find_instances(data)


def test_an_instance_of_an_unknown_label(data):
    write_instances(data, np.full((32, 64), 50_001))
    with pytest.raises(ValueError, match="the instance 50001"):
        InstanceScores(data, find_instances(data)).update(0, np.zeros((32, 64), np.uint8))
