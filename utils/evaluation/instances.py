"""The instance-weighted IoU of Cityscapes (iIoU): small instances count as much as large ones."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataset.images import open_image, read_header
from dataset.labels import UNKNOWN
from dataset.segmentation import SegmentationDataset
from utils import runtime
from utils.metrics import by_name, marginals

# Pixels of the average instance in the training set, as cityscapesscripts' evalPixelLevelSemanticLabeling gives them.
AVERAGE_SIZE = {
    "person": 3462.4756337644,
    "rider": 3930.4788056518,
    "car": 12794.0202738185,
    "truck": 27855.1264367816,
    "bus": 35732.1511111111,
    "train": 67583.7075812274,
    "motorcycle": 6298.7200839748,
    "bicycle": 4672.3249222261,
}


class InstanceScores:
    """Count the pixels of each instance, scaled by its class's average size over its own.

    False positives belong to no instance and are counted plainly, in the confusion matrix. A category is scored where
    all of its classes have instances; there a pixel is right with any class of the category.

    Args:
        data: in the layout of Cityscapes, with `*_instanceIds.png` beside `*_labelIds.png`, see `has_instances`.

    Attributes:
        images: of each image, by its index in the set, (4, C) float64: hits and misses of each class, then of its
            category.
    """

    def __init__(self, data: SegmentationDataset) -> None:
        self.classes = data.classes
        self.files = list(_instance_files(data).values())
        self.train_ids = data.train_ids
        categories = list(dict.fromkeys(data.classes.categories))
        self.category = np.full(256, -1)  # of no class: none
        self.category[: len(data.classes)] = [categories.index(name) for name in data.classes.categories]
        self.size = np.array([AVERAGE_SIZE.get(name, 0.0) for name in data.classes.names])
        self.images: dict[int, np.ndarray] = {}

    def update(self, index: int, pred: np.ndarray) -> None:
        """Add image `index`, predicted as the class indices (H, W) uint8; reads its file of instances."""
        instances = np.asarray(open_image(self.files[index])).astype(np.int64)
        inside = instances > 1000  # what is less is a class without instances, or a group: its label id alone
        ids, pred = instances[inside], pred[inside]
        sizes = np.bincount(ids)
        found = np.flatnonzero(sizes)
        label_of = np.zeros(len(sizes), dtype=np.uint8)
        label_of[found] = self._labels(found, index)
        target = label_of[ids]
        found = found[label_of[found] < len(self.classes)]  # the others are ignored
        label = label_of[found]
        weights, rows = self.size[label] / sizes[found], []
        for right in (pred == target, self.category[pred] == self.category[target]):
            hits = np.bincount(ids[right], minlength=len(sizes))[found]
            for pixels in (hits, sizes[found] - hits):
                rows.append(np.bincount(label, weights=pixels * weights, minlength=len(self.classes)))
        self.images[index] = np.stack(rows)

    def _labels(self, ids: np.ndarray, index: int) -> np.ndarray:
        """Return the class index of each instance id."""
        labels = self.train_ids[np.minimum(ids // 1000, 255)]
        if (labels == UNKNOWN).any():
            raise ValueError(f"{self.files[index]} holds the instance {ids[labels == UNKNOWN][0]}, of no known label")
        return labels

    def merge(self) -> None:
        """Take in what the other processes counted; all of them must ask."""
        self.images = {index: image for part in runtime.gather(self.images) for index, image in part.items()}

    def summary(self, counts: Tensor) -> dict[str, Any]:
        """Return the figures of all images; `counts` is theirs in `ConfusionMatrix`.

        Returns:
            `class_iiou` and `category_iiou` by name (None for one that does not occur), and their means `miiou` and
            `category_miiou`.
        """
        images = np.stack([self.images[index] for index in sorted(self.images)])
        hits, misses, category_hits, category_misses = torch.from_numpy(images.sum(0))
        right, _, predicted = marginals(counts.cpu())
        own = torch.from_numpy(self.size > 0)
        iou = (hits / (hits + misses + (predicted - right)))[own]
        names = [name for name in self.classes.names if name in AVERAGE_SIZE]
        kinds, kind_iou = [], []
        for name in dict.fromkeys(self.classes.categories):
            member = torch.tensor([category == name for category in self.classes.categories])
            if own[member].all():
                hit, missed = category_hits[member].sum(), category_misses[member].sum()
                kinds.append(name)
                kind_iou.append(hit / (hit + missed + counts.cpu()[:, :-1][~member][:, member].sum()))
        return {
            "class_iiou": by_name(names, iou),
            "miiou": iou.nanmean().nan_to_num(0.0).item(),
            "category_iiou": by_name(kinds, torch.stack(kind_iou)),
            "category_miiou": torch.stack(kind_iou).nanmean().nan_to_num(0.0).item(),
        }


def has_instances(data: SegmentationDataset) -> bool:
    """Tell whether a set has files of instances, after a look at their headers.

    Raises:
        ValueError: only some images have one, or one is broken, or of another size than its labels.
    """
    if not data.classes.categories or any(sample.mask is None for sample in data.samples):
        return False
    files = _instance_files(data)
    missing = [str(path) for path in files.values() if not path.is_file()]
    if len(missing) == len(files):
        return False
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(files)} label files have no *_instanceIds.png beside them; "
            f"the first: {missing[0]}; unpack gtFine_trainvaltest.zip again, or move the others away to go without iIoU"
        )
    for mask, path in files.items():
        (size, mode), (mask_size, _) = read_header(path, checksums=True), read_header(mask)
        if size != mask_size or not (mode.startswith("I") or mode in ("L", "P")):
            raise ValueError(
                f"{path} is {size[0]}x{size[1]} of mode {mode!r}; "
                f"instance ids in one channel of {mask_size[0]}x{mask_size[1]} are needed, as in {mask.name}"
            )
    return True


def _instance_files(data: SegmentationDataset) -> dict[Path, Path]:
    """Name the file of instances that belongs to each mask."""
    masks = [sample.mask for sample in data.samples if sample.mask is not None]
    return {mask: mask.with_name(mask.name.replace("_labelIds", "_instanceIds")) for mask in masks}
