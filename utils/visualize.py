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
    return palette(classes)[labels]


def overlay(image: np.ndarray, labels: np.ndarray, classes: ClassTable, *, alpha: float = 0.5) -> np.ndarray:
    """Lay the classes' colours over an RGB image (H, W, 3) uint8; `alpha` 0 shows the image, 1 the colours."""
    return cv2.addWeighted(image, 1 - alpha, colorize(labels, classes), alpha, 0)


def save_image(path: str | Path, image: np.ndarray) -> None:
    """Write an RGB image (H, W, 3) uint8."""
    with replacing(path) as temporary:
        Image.fromarray(image).save(temporary)


def save_labels(path: str | Path, labels: np.ndarray, classes: ClassTable) -> None:
    """Write class indices (H, W) uint8 as a palette PNG: its pixel values are the indices, viewers show colours."""
    image = Image.fromarray(labels)
    image.putpalette(palette(classes).tobytes())
    with replacing(path) as temporary:
        image.save(temporary)
