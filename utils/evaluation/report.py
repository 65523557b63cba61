"""Human-readable reports of an evaluation: terminal tables, the confusion matrix, and sheets of the worst images."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate
from torch import Tensor

from dataset.labels import IGNORE_INDEX
from dataset.segmentation import SegmentationDataset
from utils.inference.segmenter import Segmenter
from utils.io.drawing import colorize, grid
from utils.io.files import replacing, save_image

WORST = 10  # number of images shown
ERROR_COLOR = (230, 40, 40)
MAX_ANNOTATED = 40  # classes; the plot of a larger confusion matrix has no numbers in its cells


def branch_table(branches: dict[str, dict[str, Any]]) -> str:
    """Format accuracy and latency of each part of the cascade, given `measure`'s metrics by name."""
    rows = [
        [name, metrics.get("miou"), metrics.get("pixel_accuracy"), metrics["speed"]["latency_median_ms"]]
        for name, metrics in branches.items()
    ]
    headers = ["branches", "mIoU", "pixel accuracy", "latency ms"]
    return tabulate(rows, headers, floatfmt=("", ".2%", ".2%", ".1f"), missingval="-")


def speed_lines(speed: dict[str, Any]) -> str:
    """Format `Timer.summary` for the terminal."""
    return (
        f"latency {speed['latency_median_ms']:.1f} ms median, {speed['latency_p95_ms']:.1f} ms p95 "
        f"({speed['latency_of']})\n"
        f"throughput {speed['images_per_second']:.2f} images/s ({speed['images_per_second_of']})\n"
        f"peak memory {speed['peak_memory_mib']:.0f} MiB ({speed['peak_memory_of']})"
    )


def write_confusion(folder: Path, counts: Tensor, names: Sequence[str]) -> None:
    """Write `confusion.csv` (pixels) and `confusion.png` (per cent of each label's pixels), see `ConfusionMatrix`."""
    pixels = counts.cpu().numpy()
    with replacing(folder / "confusion.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["label \\ prediction", *names])
        writer.writerows([name, *row] for name, row in zip(names, pixels.tolist(), strict=True))
    _plot(folder / "confusion.png", pixels, names)


def _plot(path: Path, pixels: np.ndarray, names: Sequence[str]) -> None:
    from matplotlib.figure import Figure  # slow to import

    percent = 100 * pixels / np.maximum(pixels.sum(1, keepdims=True), 1)
    annotated = len(names) <= MAX_ANNOTATED
    side = 3 + (0.55 if annotated else 0.18) * max(4, len(names))  # inches
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="prediction", ylabel="label", title="% of the label's pixels (empty: class without labels)")
    for row, column in zip(*np.nonzero(percent >= 0.5), strict=True) if annotated else ():
        value = percent[row, column]
        color = "white" if value > 55 else "black"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=9, color=color)
    figure.colorbar(image, ax=axes, shrink=0.8, label="%")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)


def remove_worst(folder: Path) -> None:
    """Delete all files of this folder that are named like the sheets of `write_worst`."""
    for sheet in folder.glob("[0-9][0-9]_*.png"):
        sheet.unlink(missing_ok=True)  # several processes delete them


def write_worst(
    folder: Path, iou: dict[int, float], data: SegmentationDataset, segmenter: Segmenter, names: Sequence[str]
) -> None:
    """Write a sheet `{rank}_{name}.png` (image, label, prediction, errors) for each of the images with the lowest mIoU.

    Args:
        iou: mIoU of each image, by its index in `data`.
        segmenter: predicts these images again, so that no predictions need to be kept during evaluation.
        names: of all images.
    """
    for rank, index in enumerate(sorted(iou, key=lambda index: (iou[index], index))[:WORST], start=1):
        sample = data[index]
        pred = segmenter(sample["image"][None])[0].cpu().numpy()
        image, target = sample["image"].permute(1, 2, 0).numpy(), sample["target"].numpy()
        panels = {
            f"{names[index]}: mIoU {100 * iou[index]:.1f}%": image,
            "label (black: ignored)": colorize(target, data.classes),
            "prediction": colorize(pred, data.classes),
            "errors: red (black: ignored)": error_map(image, pred, target),
        }
        sheet = grid(list(panels.values()), columns=4, captions=list(panels), width=640)
        save_image(folder / f"{rank:02}_{names[index]}.png", sheet)


def error_map(image: np.ndarray, pred: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return a pale greyscale copy of the image (H, W, 3) uint8 with errors in red and ignored pixels in black."""
    grey = image.mean(2, keepdims=True) / 2 + 100
    errors = np.repeat(grey, 3, axis=2).astype(np.uint8)
    errors[pred != target] = ERROR_COLOR
    errors[target == IGNORE_INDEX] = 0
    return errors
