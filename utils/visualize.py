"""Label maps as pictures."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from dataset.labels import ClassTable
from utils.files import replacing


def palette(classes: ClassTable) -> np.ndarray:
    """Colours (256, 3) uint8 by class index; black for what is no class."""
    colors = np.zeros((256, 3), dtype=np.uint8)
    colors[: len(classes)] = classes.colors
    return colors


def colorize(labels: np.ndarray, classes: ClassTable) -> np.ndarray:
    """Paint class indices (H, W) in their colours, (H, W, 3) uint8 RGB."""
    return palette(classes).take(labels, axis=0)


def overlay(image: np.ndarray, labels: np.ndarray, classes: ClassTable, *, alpha: float = 0.5) -> np.ndarray:
    """Lay the classes' colours over an RGB image (H, W, 3) uint8; `alpha` 0 shows the image, 1 the colours."""
    return cv2.addWeighted(image, 1 - alpha, colorize(labels, classes), alpha, 0)


def class_shares(labels: np.ndarray, classes: ClassTable) -> dict[str, float]:
    """Return the share of the label map (H, W) that each class present takes, largest first."""
    counts = np.bincount(labels.ravel(), minlength=len(classes))[: len(classes)]
    order = np.argsort(-counts, kind="stable")
    return {classes.names[index]: float(counts[index] / labels.size) for index in order if counts[index]}


def save_image(path: str | Path, image: np.ndarray) -> None:
    """Write an RGB image (H, W, 3) uint8."""
    with replacing(path) as temporary:
        Image.fromarray(image).save(
            temporary, compress_level=3
        )  # as small as with 6 on photographs, in 40 % of the time


def save_labels(path: str | Path, labels: np.ndarray, classes: ClassTable) -> None:
    """Write class indices (H, W) uint8 as a palette PNG: its pixel values are the indices, viewers show colours."""
    image = Image.fromarray(labels)
    image.putpalette(palette(classes).tobytes())
    with replacing(path) as temporary:
        image.save(temporary)
