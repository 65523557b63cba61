"""What an evaluation found, for people: the confusion matrix as a picture and as CSV, the worst images."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from dataset.labels import IGNORE_INDEX
from dataset.segmentation import SegmentationDataset
from utils.inference.segmenter import Segments
from utils.io.drawing import colorize, grid, save_image
from utils.io.files import replacing

WORST = 10  # images that are shown
WRONG = (230, 40, 40)
NUMBERED = 40  # classes up to which the picture of the confusion matrix has a number in each cell


def write_confusion(folder: Path, counts: Tensor, names: Sequence[str]) -> None:
    """Write `confusion.csv` (pixels) and `confusion.png` (per cent of each label's pixels).

    Args:
        counts: see `ConfusionMatrix`; its last column is shown if it is not empty.
        names: of the classes.
    """
    counts = counts.cpu()
    columns = [*names, "no class"] if counts[:, -1].any() else list(names)
    pixels = counts[:, : len(columns)].numpy()
    with replacing(folder / "confusion.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["label \\ prediction", *columns])
        table.writerows([name, *row] for name, row in zip(names, pixels.tolist(), strict=True))
    _draw(folder / "confusion.png", pixels, names, columns)


def _draw(path: Path, pixels: np.ndarray, names: Sequence[str], columns: Sequence[str]) -> None:
    from matplotlib.figure import Figure  # takes a second to import

    share = 100 * pixels / np.maximum(pixels.sum(1, keepdims=True), 1)
    numbered = len(names) <= NUMBERED
    side = 3 + (0.55 if numbered else 0.18) * max(4, len(names))  # inches
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(len(columns)), columns, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("prediction")
    axes.set_ylabel("label")
    axes.set_title("per cent of the label's pixels; the row of a class without pixels is empty")
    for row, column in zip(*np.nonzero(share >= 0.5), strict=True) if numbered else ():
        value = share[row, column]
        color = "white" if value > 55 else "black"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=9, color=color)
    figure.colorbar(shown, ax=axes, shrink=0.8, label="%")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)


def write_worst(
    folder: Path, iou: dict[int, float], *, data: SegmentationDataset, segment: Segments, names: Sequence[str]
) -> None:
    """Show the images with the lowest IoU: `{rank}_{name}.png`, image | label | prediction | errors.

    Args:
        folder: what an earlier evaluation left in it is removed.
        iou: mean IoU of the classes of each image, by its index in `data`.
        segment: predicts them once more, so that no prediction is kept while evaluating.
        names: of the images.
    """
    for old in folder.glob("[0-9][0-9]_*.png"):
        old.unlink()
    for rank, index in enumerate(sorted(iou, key=lambda index: (iou[index], index))[:WORST], start=1):
        sample = data[index]
        pred = segment(sample["image"][None])[0].cpu().numpy()
        image, target = sample["image"].permute(1, 2, 0).numpy(), sample["target"].numpy()
        pictures = [image, colorize(target, data.classes), colorize(pred, data.classes), errors(image, pred, target)]
        captions = [f"{names[index]}: mean IoU {100 * iou[index]:.1f} %", "label (black: ignored)", "prediction"]
        captions.append("errors: red (black: ignored)")
        sheet = grid(pictures, columns=4, captions=captions, width=640)
        save_image(folder / f"{rank:02}_{names[index]}.png", sheet)


def errors(image: np.ndarray, pred: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Paint wrong pixels red and ignored ones black over a faded grey of the image (H, W, 3) uint8."""
    grey = image.mean(2, keepdims=True) / 2 + 100
    picture = np.repeat(grey, 3, axis=2).astype(np.uint8)
    picture[pred != target] = WRONG
    picture[target == IGNORE_INDEX] = 0
    return picture
