"""Segmentation metrics, computed from a confusion matrix over all images."""

from collections.abc import Sequence
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor

from utils import distributed


class ConfusionMatrix:
    """Pixel counts by (label, prediction), for the whole set and, as marginals, for each image.

    Attributes:
        counts: (C, C) int64; rows are labels, columns predictions. Ignored pixels are not counted.
        by_image: `marginals` of each image (3, C) int64, by its index in the set.
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
        self.by_image: dict[int, Tensor] = {}

    def update(self, pred: Tensor, target: Tensor, *, index: int | None = None) -> None:
        """Add one image, given as class indices (H, W) uint8; pixels whose target is 255 are ignored.

        Args:
            index: of the image in the set; by default images are numbered in order of arrival.
        """
        pairs = target.to(torch.int32) << 8 | pred  # counting all 256 x 256 pairs is faster than selecting valid pixels
        table = torch.bincount(pairs.flatten(), minlength=1 << 16).view(256, 256)
        counts = table[: self.num_classes, : self.num_classes].to(self.counts.device)
        self.counts += counts
        self.by_image[len(self.by_image) if index is None else index] = marginals(counts)

    def merge(self) -> None:
        """Combine the counts of all processes, each of which must call this."""
        parts = distributed.gather((self.counts.cpu(), sorted(self.by_image), self._marginals()))
        self.counts = torch.stack([counts for counts, _, _ in parts]).sum(0)
        self.by_image = {index: row for _, indices, rows in parts for index, row in zip(indices, rows, strict=True)}

    @property
    def running(self) -> Tensor:
        """Cumulative mIoU and pixel accuracy after each image (N, 2), as the published code computed them.

        Classes that have not occurred yet have an IoU of 0.
        """
        totals = self._marginals().cumsum(0)
        hits, labelled, _ = totals.double().sum(2).unbind(1)
        return torch.stack([iou(totals).nan_to_num(0.0).mean(1), hits / labelled], 1).nan_to_num(0.0)

    def image_iou(self) -> dict[int, float]:
        """Return the mIoU of each image that has labelled pixels, by its index in the set."""
        values = iou(self._marginals()).nanmean(1).tolist()
        return {index: value for index, value in zip(sorted(self.by_image), values, strict=True) if value == value}

    def summary(self, names: Sequence[str]) -> dict[str, Any]:
        """Return all metrics as plain numbers from 0 to 1; undefined ones are None for a class and 0 for a mean.

        Returns:
            `miou` (mean over the classes that occur in labels or predictions), `pixel_accuracy`, `mean_accuracy` (mean
            recall of the labelled classes), `frequency_weighted_iou`; by class name `class_iou`, `class_precision`,
            `class_recall`, `class_share` (of the labelled pixels); the numbers of `absent_classes` and `images`; and
            `miou_running_mean` and `pixel_accuracy_running_mean`, the means of `running`, which the published code
            reported.
        """
        counts = self.counts.cpu()
        hits, labelled, predicted = marginals(counts).double()
        ious, recall, share = iou(marginals(counts)), hits / labelled, labelled / labelled.sum()
        running = self.running
        return {
            "miou": defined_mean(ious),
            "pixel_accuracy": defined_mean(hits.sum() / labelled.sum()),
            "mean_accuracy": defined_mean(recall),
            "frequency_weighted_iou": (share * ious).nansum().item(),
            "class_iou": by_name(names, ious),
            "class_precision": by_name(names, hits / predicted),
            "class_recall": by_name(names, recall),
            "class_share": by_name(names, share),
            "absent_classes": int(ious.isnan().sum()),
            "images": len(self.by_image),
            "miou_running_mean": defined_mean(running[:, 0]),
            "pixel_accuracy_running_mean": defined_mean(running[:, 1]),
        }

    def _marginals(self) -> Tensor:
        """Stack `by_image` (N, 3, C) in the order of their indices."""
        images = [self.by_image[index] for index in sorted(self.by_image)]
        return torch.stack(images).cpu() if images else torch.zeros(0, 3, self.num_classes, dtype=torch.int64)


def marginals(counts: Tensor) -> Tensor:
    """Return (3, C): the correctly predicted, the labelled and the predicted pixels of each class."""
    return torch.stack([counts.diagonal(), counts.sum(1), counts.sum(0)])


def iou(marginals: Tensor) -> Tensor:
    """Return intersection over union (..., C) float64 from marginals (..., 3, C); NaN for absent classes."""
    hits, labelled, predicted = marginals.double().unbind(-2)
    return hits / (labelled + predicted - hits)


def category_summary(counts: Tensor, categories: Sequence[str]) -> dict[str, Any]:
    """Return the IoU of each category as `category_iou` (None if absent), and their mean as `category_miou`.

    Args:
        counts: see `ConfusionMatrix`.
        categories: the category of each class.
    """
    names = list(dict.fromkeys(categories))
    group = torch.tensor([names.index(name) for name in categories])
    ious = iou(marginals(merge_classes(counts.cpu(), group)))
    return {"category_iou": by_name(names, ious), "category_miou": defined_mean(ious)}


def merge_classes(counts: Tensor, group: Tensor) -> Tensor:
    """Merge the classes of a confusion matrix (C, C) into groups (G, G), given the group of each class (C,)."""
    groups = int(group.max()) + 1
    merged = torch.zeros(groups, groups, dtype=torch.int64)
    return merged.index_put_((group[:, None], group), counts, accumulate=True)


def defined_mean(values: Tensor) -> float:
    """Return the mean of the values that are not NaN, 0 if there are none."""
    return values.nanmean().nan_to_num(0.0).item()


def by_name(names: Sequence[str], values: Tensor) -> dict[str, float | None]:
    """Pair names with plain numbers; None for NaN."""
    return {name: None if value != value else value for name, value in zip(names, values.tolist(), strict=True)}


_TITLES = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "miiou": "mean iIoU",
    "category_miou": "category mIoU",
    "category_miiou": "category mean iIoU",
    "miou_running_mean": "running mIoU, mean over images (as published)",
    "pixel_accuracy_running_mean": "running pixel accuracy, mean over images (as published)",
}


def format_table(summary: dict[str, Any]) -> str:
    """Format `ConfusionMatrix.summary`, with category and instance metrics if present, for the terminal."""
    tables = [_metric_table(summary, kind) + "\n" for kind in ("class", "category") if f"{kind}_iou" in summary]
    means = [f"{title} {100 * summary[key]:.2f}%" for key, title in _TITLES.items() if key in summary]
    return "\n".join([*tables, *means, f"{summary['images']} images, {summary['absent_classes']} absent classes"])


def _metric_table(summary: dict[str, Any], kind: str) -> str:
    """Format the metrics of each class or category; undefined ones are shown as -."""
    metrics = [name for name in ("iou", "precision", "recall", "share", "iiou") if f"{kind}_{name}" in summary]
    rows = [[name, *(summary[f"{kind}_{metric}"].get(name) for metric in metrics)] for name in summary[f"{kind}_iou"]]
    headers = [kind, *(metric.replace("iou", "IoU") for metric in metrics)]
    return tabulate(rows, headers, floatfmt=".2%", missingval="-", disable_numparse=[0])
