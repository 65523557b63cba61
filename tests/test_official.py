"""Our metrics equal those of the official evaluator on the same files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.cityscapes import find_cityscapes
from dataset.labels import IGNORE_INDEX, cityscapes_classes, cityscapes_label_ids, cityscapes_train_ids
from dataset.segmentation import SegmentationDataset
from tests.official import assert_same, official_scores
from utils.evaluation.instances import InstanceScores, find_instances
from utils.metrics import ConfusionMatrix, category_summary

IMAGES = 5
SHAPE = (48, 80)
COUNTABLE = range(24, 34)  # label ids with instances, including the ignored caravan and trailer


def blocks(rng: np.random.Generator, values: list[int]) -> np.ndarray:
    """Random rectangles of the values."""
    labels = np.full(SHAPE, rng.choice(values))
    for _ in range(40):
        top, left = rng.integers(0, SHAPE[0]), rng.integers(0, SHAPE[1])
        labels[top : top + rng.integers(2, 20), left : left + rng.integers(2, 20)] = rng.choice(values)
    return labels


def instances_of(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Split regions with instances into instances, leaving some as groups."""
    parts = rng.integers(0, 4, SHAPE) if rng.random() < 0.3 else np.arange(SHAPE[1]) // 9
    parts = np.broadcast_to(parts, SHAPE)
    countable = np.isin(labels, COUNTABLE) & (parts != 2)
    return np.where(countable, labels * 1000 + parts, labels)


def write_split(root: Path, rng: np.random.Generator, values: list[int]) -> SegmentationDataset:
    """Write a split `val` in the Cityscapes layout, with ignored borders."""
    for index in range(IMAGES):
        labels = blocks(rng, values)
        labels[:2], labels[-5:], labels[:, -3:] = 3, 1, 0  # out of ROI, ego vehicle, unlabelled
        name = f"somewhere_{index:06}_000019"
        for kind, array in (("labelIds", labels.astype(np.uint8)), ("instanceIds", instances_of(rng, labels))):
            path = root / "gtFine" / "val" / "somewhere" / f"{name}_gtFine_{kind}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype(np.uint8 if kind == "labelIds" else np.uint16)).save(path)
        image = root / "leftImg8bit" / "val" / "somewhere" / f"{name}_leftImg8bit.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SHAPE[::-1]).save(image)
    return SegmentationDataset(find_cityscapes(root, "val").complete(), cityscapes_classes(), cityscapes_train_ids())


def random_prediction(rng: np.random.Generator, target: np.ndarray) -> np.ndarray:
    return rng.integers(0, 19, SHAPE)


def likely_prediction(rng: np.random.Generator, target: np.ndarray) -> np.ndarray:
    """Like a trained network: shifted boundaries, some wrong patches, and predictions in ignored regions too."""
    pred = np.roll(target, rng.integers(-2, 3, 2), (0, 1))
    wrong = rng.random(SHAPE) < 0.1
    pred = np.where(wrong, blocks(rng, list(range(19))), pred)
    return np.where(pred == IGNORE_INDEX, 0, pred)


@pytest.mark.parametrize("predict", [random_prediction, likely_prediction])
@pytest.mark.parametrize(
    "values", [list(range(34)), [7, 8, 11, 21, 26, 26, 24, 25, 4, 29], [7, 23, 4]], ids=["all", "some", "no instance"]
)
def test_metrics_equal_the_official_ones(tmp_path, monkeypatch, predict, values):
    rng = np.random.default_rng(len(values))
    data = write_split(tmp_path, rng, values)
    confusion, instances, files = ConfusionMatrix(19), InstanceScores(data, find_instances(data)), []
    for index, sample in enumerate(data.samples):
        target = np.asarray(data.load_target(index))
        pred = predict(rng, target).astype(np.uint8)
        confusion.update(torch.from_numpy(pred), torch.from_numpy(target.copy()), index=index)
        instances.update(index, pred)
        files.append(tmp_path / "pred" / sample.image.name)
        files[-1].parent.mkdir(exist_ok=True)
        Image.fromarray(cityscapes_label_ids()[pred]).save(files[-1])
    categories = category_summary(confusion.counts, data.classes.categories)
    ours = confusion.summary(data.classes.names) | categories | instances.summary(confusion.counts)
    official = official_scores(files, [sample.mask for sample in data.samples], monkeypatch)
    assert_same(ours, official)
