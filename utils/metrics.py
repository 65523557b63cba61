"""Segmentation quality, from one confusion matrix over all images."""

from typing import Any

import torch
from torch import Tensor

from dataset.labels import IGNORE_INDEX


class ConfusionMatrix:
    """Count pixels by (label, prediction), image after image.

    Attributes:
        counts: (C, C) int64; row = label, column = prediction; ignored pixels are in none.
        running: mIoU and pixel accuracy of all images so far, after each image, computed as the published code did,
            with 0 for classes not met yet.
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
        self.running: list[Tensor] = []

    def update(self, pred: Tensor, target: Tensor) -> None:
        """Add one image: class indices (H, W) each; where `target` is 255 nothing is counted."""
        valid = target != IGNORE_INDEX
        pairs = target[valid].long() * self.num_classes + pred[valid].long()
        self.counts += torch.bincount(pairs, minlength=self.num_classes**2).view_as(self.counts)
        iou = class_iou(self.counts).nan_to_num(0.0)
        self.running.append(torch.stack([iou.mean(), pixel_accuracy(self.counts)]))

    def summary(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Return all figures as plain numbers.

        Returns:
            `miou` (mean over the classes that occur in labels or predictions), `pixel_accuracy`, `class_iou` by name
            (None for a class that does not occur), `absent_classes` (how many), `images`, and as
            `miou_running_mean` and `pixel_accuracy_running_mean` what the published code reported: the means, over the
            images, of the running figures.
        """
        iou = class_iou(self.counts).cpu()
        absent = iou.isnan()
        running = torch.stack(self.running).nan_to_num(0.0).mean(0) if self.running else torch.zeros(2)
        return {
            "miou": iou[~absent].mean().item() if not absent.all() else 0.0,
            "pixel_accuracy": pixel_accuracy(self.counts).nan_to_num(0.0).item(),
            "class_iou": {n: None if v != v else v for n, v in zip(names, iou.tolist(), strict=True)},
            "absent_classes": int(absent.sum()),
            "images": len(self.running),
            "miou_running_mean": running[0].item(),
            "pixel_accuracy_running_mean": running[1].item(),
        }


def class_iou(counts: Tensor) -> Tensor:
    """Intersection over union of each class (C,) float64, NaN for one that occurs nowhere."""
    counts = counts.double()
    hits = counts.diagonal()
    return hits / (counts.sum(0) + counts.sum(1) - hits)


def pixel_accuracy(counts: Tensor) -> Tensor:
    """Share of the labelled pixels that are right, () float64, NaN without labelled pixels."""
    return counts.diagonal().sum().double() / counts.sum()


def format_table(summary: dict[str, Any]) -> str:
    """Write the figures of `ConfusionMatrix.summary` as a table for people."""
    width = max(map(len, summary["class_iou"]), default=0)
    rows = [
        f"  {name:<{width}}  {'absent' if value is None else f'{100 * value:6.2f}'}"
        for name, value in summary["class_iou"].items()
    ]
    absent = f", {summary['absent_classes']} absent classes left out" if summary["absent_classes"] else ""
    return "\n".join(
        [
            f"  {'class':<{width}}   IoU %",
            *rows,
            f"mIoU {100 * summary['miou']:.2f} %, pixel accuracy {100 * summary['pixel_accuracy']:.2f} % "
            f"({summary['images']} images{absent})",
        ]
    )
