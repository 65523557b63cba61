"""The instance-level IoU (iIoU) of Cityscapes, in which small instances count as much as large ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataset.images import open_image, read_header
from dataset.labels import UNKNOWN
from dataset.segmentation import SegmentationDataset
from utils import distributed
from utils.metrics import by_name, defined_mean, marginals, merge_classes

# Mean instance size in pixels over the training set, from cityscapesscripts' evalPixelLevelSemanticLabeling.
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


def find_instances(data: SegmentationDataset) -> list[Path]:
    """Return the `*_instanceIds.png` of each `*_labelIds.png` of Cityscapes data, [] if there are none.

    Raises:
        ValueError: files that are missing, damaged, or of another size than their labels.
    """
    masks = [sample.mask for sample in data.samples if sample.mask is not None]
    files = [mask.with_name(mask.name.replace("_labelIds", "_instanceIds")) for mask in masks]
    missing = [path for path in files if not path.is_file()]
    if not data.classes.categories or len(masks) < len(data) or len(missing) == len(files):
        return []
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(files)} label files have no *_instanceIds.png next to them, e.g. {missing[0]}; "
            "unpack gtFine_trainvaltest.zip again, or remove the other *_instanceIds.png to evaluate without iIoU"
        )
    for mask, path in zip(masks, files, strict=True):
        (size, mode), (mask_size, _) = read_header(path, checksums=True), read_header(mask)
        if size != mask_size or not (mode.startswith("I") or mode in ("L", "P")):
            raise ValueError(
                f"{path} is {size[0]}x{size[1]} of mode {mode!r}; "
                f"expected instance ids in one channel of {mask_size[0]}x{mask_size[1]}, as in {mask.name}"
            )
    return files


class InstanceScores:
    """Pixel counts of each class, weighted by the ratio of the class's average instance size to the instance's size.

    False positives belong to no instance and enter unweighted, from the confusion matrix. A category is scored if all
    of its classes have instances; any class of the category then counts as correct.

    Args:
        files: the instance ids of each image, see `find_instances`.

    Attributes:
        by_image: for each image, by its index, (4, C) float64: weighted true positives and false negatives of each
            class, then the same with any class of the category as correct.
    """

    def __init__(self, data: SegmentationDataset, files: Sequence[Path]) -> None:
        self.files = files
        self.train_ids = data.train_ids
        self.names = data.classes.names
        self.category_names = list(dict.fromkeys(data.classes.categories))
        self.category = np.full(256, -1)  # by class index; -1 for no class
        self.category[: len(self.names)] = [self.category_names.index(name) for name in data.classes.categories]
        self.average_size = np.array([AVERAGE_SIZE.get(name, 0.0) for name in self.names])
        self.by_image: dict[int, np.ndarray] = {}

    def update(self, index: int, pred: np.ndarray) -> None:
        """Add image `index`, predicted as class indices (H, W) uint8; reads its instance ids."""
        instances = np.asarray(open_image(self.files[index])).astype(np.int64)
        inside = instances > 1000  # smaller values are label ids: of classes without instances, and of groups
        ids, pred = instances[inside], pred[inside]
        sizes = np.bincount(ids)
        found = np.flatnonzero(sizes)
        class_of = np.zeros(len(sizes), dtype=np.uint8)  # by instance id
        class_of[found] = self.train_ids[np.minimum(found // 1000, 255)]
        if (unknown := found[class_of[found] == UNKNOWN]).size:
            raise ValueError(f"{self.files[index]} contains the instance {unknown[0]} of an unknown label")
        target = class_of[ids]
        found = found[class_of[found] < len(self.names)]  # the others are ignored
        classes = class_of[found]
        weights = self.average_size[classes] / sizes[found]
        rows = []
        for correct in (pred == target, self.category[pred] == self.category[target]):
            hits = np.bincount(ids[correct], minlength=len(sizes))[found]
            for pixels in (hits, sizes[found] - hits):
                rows.append(np.bincount(classes, weights=pixels * weights, minlength=len(self.names)))
        self.by_image[index] = np.stack(rows)

    def merge(self) -> None:
        """Combine the counts of all processes, each of which must call this."""
        self.by_image = {index: image for part in distributed.gather(self.by_image) for index, image in part.items()}

    def summary(self, counts: Tensor) -> dict[str, Any]:
        """Return the iIoU over all images, given their confusion matrix.

        Returns:
            `class_iiou` and `category_iiou` by name (None if absent), and their means `miiou` and `category_miiou`.
        """
        ordered = [self.by_image[index] for index in sorted(self.by_image)]
        images = torch.from_numpy(np.stack(ordered).sum(0)).double()
        category = torch.from_numpy(self.category[: len(self.names)])
        merged = torch.zeros(2, len(self.category_names), dtype=torch.float64).index_add_(1, category, images[2:])
        scored = torch.from_numpy(self.average_size > 0)
        categories_scored = ~torch.isin(torch.arange(len(self.category_names)), category[~scored])
        class_iiou = _iiou(images[:2], counts.cpu())[scored]
        category_iiou = _iiou(merged, merge_classes(counts.cpu(), category))[categories_scored]
        category_names = [name for name, keep in zip(self.category_names, categories_scored, strict=True) if keep]
        return {
            "class_iiou": by_name([name for name in self.names if name in AVERAGE_SIZE], class_iiou),
            "miiou": defined_mean(class_iiou),
            "category_iiou": by_name(category_names, category_iiou),
            "category_miiou": defined_mean(category_iiou),
        }


def _iiou(instance_counts: Tensor, counts: Tensor) -> Tensor:
    """Return iIoU (C,) from weighted true positives and false negatives (2, C) and the confusion matrix."""
    hits, misses = instance_counts
    correct, _, predicted = marginals(counts)
    return hits / (hits + misses + (predicted - correct))
