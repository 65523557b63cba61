"""Segmentation quality, from one confusion matrix over all images."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from utils import runtime


class ConfusionMatrix:
    """Count pixels by (label, prediction), image after image.

    Attributes:
        counts: (C, C + 1) int64; row = label, column = prediction, the last one: no class; ignored pixels are in none.
        images: of each image, by its index in the set, (3, C) int64: pixels that are right, labelled and predicted as
            each class.
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, num_classes + 1, dtype=torch.int64, device=device)
        self.images: dict[int, Tensor] = {}

    def update(self, pred: Tensor, target: Tensor, *, index: int | None = None) -> None:
        """Add one image: class indices (H, W) each; where `target` is 255 nothing is counted.

        Args:
            pred: 255 where it gives no class, which is wrong for the label and counts against no other class.
            index: of the image in the set; without it, images are numbered as they come.
        """
        pairs = target.to(torch.int32) << 8 | pred  # all 256 x 256 pairs: counting them is quicker than choosing pixels
        table = torch.bincount(pairs.flatten(), minlength=1 << 16).view(256, 256).to(self.counts.device)
        known, void = table[: self.num_classes].split([self.num_classes, 256 - self.num_classes], dim=1)
        counts = torch.cat([known, void.sum(1, keepdim=True)], 1)  # the row of what is ignored is left out
        self.counts += counts
        self.images[len(self.images) if index is None else index] = torch.stack(marginals(counts))

    def merge(self) -> None:
        """Take in what the other processes counted; all of them must ask."""
        runtime.sum_over_processes(self.counts)
        parts = runtime.gather((list(self.images), self._stacked(list(self.images))))
        self.images = {index: image for keys, images in parts for index, image in zip(keys, images, strict=True)}

    @property
    def running(self) -> Tensor:
        """MIoU and pixel accuracy of all images so far, after each image (images, 2).

        Computed as the published code did, with 0 for classes not met yet.
        """
        hits, labelled, predicted = self._stacked(sorted(self.images)).cumsum(0).double().unbind(1)
        iou = (hits / (labelled + predicted - hits)).nan_to_num(0.0)
        return torch.stack([iou.mean(1), hits.sum(1) / labelled.sum(1)], 1).nan_to_num(0.0)

    def image_iou(self) -> dict[int, float]:
        """Mean IoU over the classes of each image that has labels, by its index in the set."""
        indices = sorted(self.images)
        hits, labelled, predicted = self._stacked(indices).double().unbind(1)
        iou = (hits / (labelled + predicted - hits)).nanmean(1).tolist()
        return {index: value for index, value in zip(indices, iou, strict=True) if value == value}

    def summary(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Return all figures as plain numbers, None where there is nothing to compute one from.

        Returns:
            `miou` (mean over the classes that occur in labels or predictions), `pixel_accuracy`, `mean_accuracy` (mean
            recall of the labelled classes), `frequency_weighted_iou`; by name `class_iou`, `class_precision`,
            `class_recall`, `class_share` (of the labelled pixels); `absent_classes` (how many), `images`, and as
            `miou_running_mean` and `pixel_accuracy_running_mean` what the published code reported: the means, over the
            images, of the running figures.
        """
        hits, labelled, predicted = (counts.double() for counts in marginals(self.counts.cpu()))
        iou, recall, share = class_iou(self.counts.cpu()), hits / labelled, labelled / labelled.sum()
        running = self.running.mean(0) if self.images else torch.zeros(2)
        return {
            "miou": iou.nanmean().nan_to_num(0.0).item(),
            "pixel_accuracy": pixel_accuracy(self.counts).nan_to_num(0.0).item(),
            "mean_accuracy": recall.nanmean().nan_to_num(0.0).item(),
            "frequency_weighted_iou": (share * iou.nan_to_num(0.0)).sum().nan_to_num(0.0).item(),
            "class_iou": by_name(names, iou),
            "class_precision": by_name(names, hits / predicted),
            "class_recall": by_name(names, recall),
            "class_share": by_name(names, share),
            "absent_classes": int(iou.isnan().sum()),
            "images": len(self.images),
            "miou_running_mean": running[0].item(),
            "pixel_accuracy_running_mean": running[1].item(),
        }

    def _stacked(self, indices: list[int]) -> Tensor:
        """Return `images` (images, 3, C) in that order."""
        images = [self.images[index] for index in indices]
        return torch.stack(images).cpu() if images else torch.zeros(0, 3, self.num_classes, dtype=torch.int64)


def marginals(counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return, of each class, how many pixels are right, labelled and predicted as it, (C,) int64 each."""
    return counts.diagonal(), counts.sum(1), counts.sum(0)[: len(counts)]


def class_iou(counts: Tensor) -> Tensor:
    """Intersection over union of each class (C,) float64, NaN for one that occurs nowhere."""
    hits, labelled, predicted = (part.double() for part in marginals(counts))
    return hits / (labelled + predicted - hits)


def pixel_accuracy(counts: Tensor) -> Tensor:
    """Share of the labelled pixels that are right, () float64, NaN without labelled pixels."""
    return counts.diagonal().sum().double() / counts.sum()


def category_summary(counts: Tensor, categories: Sequence[str]) -> dict[str, Any]:
    """Return the IoU of categories, each of which counts its classes as one.

    Args:
        counts: see `ConfusionMatrix`.
        categories: the category of each class.

    Returns:
        `category_iou` by name (None for one that does not occur), and their mean as `category_miou`.
    """
    names = tuple(dict.fromkeys(categories))
    member = torch.tensor([[category == name for category in categories] for name in names], device=counts.device)
    columns = torch.cat([member, torch.zeros_like(member[:, :1])], 1).double()  # (categories, C + 1)
    rows = member.double() @ counts.double()  # exact, as long as there are less than 2**53 pixels
    merged = torch.cat([rows @ columns.T, rows[:, -1:]], 1)
    iou = class_iou(merged.cpu())
    return {"category_iou": by_name(names, iou), "category_miou": iou.nanmean().nan_to_num(0.0).item()}


def by_name(names: Sequence[str], values: Tensor) -> dict[str, float | None]:
    """Pair names with plain numbers; None for NaN."""
    return {name: None if value != value else value for name, value in zip(names, values.tolist(), strict=True)}


_TITLES = {
    "iou": "IoU %",
    "precision": "precision %",
    "recall": "recall %",
    "share": "share %",
    "iiou": "iIoU %",
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "miiou": "mean iIoU",
    "category_miou": "mIoU of categories",
    "category_miiou": "mean iIoU of categories",
    "miou_running_mean": "mean of the running mIoU",
    "pixel_accuracy_running_mean": "of the running pixel accuracy",
}


def format_table(summary: dict[str, Any]) -> str:
    """Write the figures of `ConfusionMatrix.summary`, and those of categories and instances, if any, as tables."""
    columns = ("iou", "precision", "recall", "share", "iiou")
    lines = _table("class", {key: summary[f"class_{key}"] for key in columns if f"class_{key}" in summary})
    if "category_iou" in summary:
        found = {key: summary[f"category_{key}"] for key in ("iou", "iiou") if f"category_{key}" in summary}
        lines += ["", *_table("category", found), ""]
    absent = f", {summary['absent_classes']} absent classes left out" if summary["absent_classes"] else ""
    lines.append(f"{_means(summary, ['miou', 'pixel_accuracy'])} ({summary['images']} images{absent})")
    lines.append(_means(summary, ["mean_accuracy", "frequency_weighted_iou"]))
    if "category_miou" in summary:
        lines.append(_means(summary, ["category_miou", "miiou", "category_miiou"]))
    lines.append(f"as published, {_means(summary, ['miou_running_mean', 'pixel_accuracy_running_mean'])}")
    return "\n".join(lines)


def _means(summary: dict[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(f"{_TITLES[key]} {100 * summary[key]:.2f} %" for key in keys if key in summary)


def _table(head: str, columns: dict[str, dict[str, float | None]]) -> list[str]:
    """Write a row for each name of the first column; `absent` for a class that does not occur, `-` for no figure."""
    names = next(iter(columns.values()))
    width = max(len(name) for name in [head, *names])
    rows = [f"  {head:<{width}}" + "".join(f"  {_TITLES[key]:>11}" for key in columns)]
    for name in names:
        cells = []
        for number, values in enumerate(columns.values()):
            value = values.get(name)
            cells.append(("-" if number else "absent") if value is None else f"{100 * value:.2f}")
        rows.append(f"  {name:<{width}}" + "".join(f"  {cell:>11}" for cell in cells))
    return rows


def branch_table(branches: dict[str, dict[str, Any]]) -> str:
    """Write the figures of each part of the cascade, by name, as a table."""
    rows = [f"  {'branches':<22}  {'mIoU %':>7}  {'pixel accuracy %':>16}  {'latency ms':>10}"]
    for name, part in branches.items():
        quality = [f"{100 * part[key]:.2f}" if key in part else "-" for key in ("miou", "pixel_accuracy")]
        rows.append(f"  {name:<22}  {quality[0]:>7}  {quality[1]:>16}  {part['speed']['latency_median_ms']:>10.1f}")
    return "\n".join(rows)
