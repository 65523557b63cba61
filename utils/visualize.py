"""Label maps as pictures, and pictures put together for people to look at."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

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


def grid(pictures: Sequence[np.ndarray], *, columns: int, captions: Sequence[str] = (), width: int = 480) -> np.ndarray:
    """Lay pictures out in rows, each with a caption above it.

    Args:
        pictures: RGB arrays (H, W, 3) uint8 of any sizes, in reading order.
        captions: one per picture, or none at all.
        width: of every picture in pixels; its height follows from its own proportions.

    Returns:
        (H, W, 3) uint8, on white.
    """
    border, band = 4, 22 if captions else 0
    cells = [Image.fromarray(picture) for picture in pictures]
    cells = [cell.resize((width, max(1, round(cell.height * width / cell.width)))) for cell in cells]
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    heights = [band + border + max(cell.height for cell in row) for row in rows]
    sheet = Image.new("RGB", (columns * (width + border) + border, sum(heights) + border), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for index, cell in enumerate(cells):
        row, column = divmod(index, columns)
        left, top = border + column * (width + border), border + sum(heights[:row])
        if captions:
            draw.text((left, top + 2), captions[index], fill="black", font=font)
        sheet.paste(cell, (left, top + band))
    return np.asarray(sheet)


def draw_legend(picture: np.ndarray, entries: Sequence[tuple[str, tuple[int, int, int]]]) -> np.ndarray:
    """Draw names with their colours into the top left corner of an RGB picture; those that do not fit are left out.

    Args:
        picture: (H, W, 3) uint8; a new one is returned.
        entries: name and (red, green, blue) of each line.
    """
    size = max(9, min(picture.shape[:2]) // 32)
    line, margin = round(1.4 * size), size // 2
    entries = entries[: max(0, picture.shape[0] - 2 * margin) // line]
    if not entries:
        return picture
    font = ImageFont.load_default(size=size)
    image = Image.fromarray(picture)
    width = round(max(font.getlength(name) for name, _ in entries)) + line + 2 * margin
    box = (0, 0, min(width, image.width), line * len(entries) + 2 * margin)
    image.paste(Image.blend(image.crop(box), Image.new("RGB", box[2:], "black"), 0.6), box)
    draw = ImageDraw.Draw(image)
    for row, (name, color) in enumerate(entries):
        top = margin + row * line
        draw.rectangle((margin, top, margin + size, top + size), fill=color, outline="white")
        draw.text((margin + line, top + size / 2), name, fill="white", font=font, anchor="lm")
    return np.asarray(image)


def save_image(path: str | Path, image: np.ndarray) -> None:
    """Write an RGB image (H, W, 3) uint8."""
    with replacing(path) as temporary:
        Image.fromarray(image).save(temporary, compress_level=3)  # of photographs as small as 6, in 40 % of the time


def save_labels(path: str | Path, labels: np.ndarray, classes: ClassTable) -> None:
    """Write class indices (H, W) uint8 as a palette PNG: its pixel values are the indices, viewers show colours."""
    image = Image.fromarray(labels)
    image.putpalette(palette(classes).tobytes())
    with replacing(path) as temporary:
        image.save(temporary)
