"""Label maps as pictures, and pictures put together for people to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dataset.labels import IGNORE_INDEX, ClassTable
from utils.io.files import replacing


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


PICTURES = ("color", "overlay", "side")
LEAST = 0.0005  # share of the image from which on a class is named: below, it would read 0.0 %


@dataclass(frozen=True, kw_only=True)
class Painter:
    """How label maps are shown.

    Attributes:
        classes: names and colours.
        alpha: how much of the colours an overlay shows, from 0 to 1.
        shown: names of the classes to show; none: all.
        legend: draw names, colours and shares of the classes present.

    Raises:
        ValueError: an alpha outside its range, or a class that is none.
    """

    classes: ClassTable
    alpha: float = 0.5
    shown: Sequence[str] = ()
    legend: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"--alpha must be from 0 to 1, got {self.alpha:g}")
        wrong = [name for name in self.shown if name not in self.classes.names]
        if wrong:
            raise ValueError(f"--classes: there is no {', '.join(wrong)}; there are: {', '.join(self.classes.names)}")

    def paint(self, kind: str, image: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Make one of `PICTURES`.

        Args:
            kind: "color", the classes' colours; "overlay", these over the image; "side", the image beside the colours.
            image: (H, W, 3) uint8 RGB.
            labels: (H, W) uint8.

        Returns:
            (H, W, 3) uint8 RGB, for "side" (H, 2W, 3).
        """
        seen = self._only_shown(labels)
        if kind == "overlay":
            picture = overlay(image, seen, self.classes, alpha=self.alpha)
            if self.shown:
                picture = cv2.copyTo(image, (seen == IGNORE_INDEX).astype(np.uint8), picture)
        else:
            picture = colorize(seen, self.classes)
        if self.legend:
            picture = draw_legend(picture, self._entries(labels))
        return np.hstack([image, picture]) if kind == "side" else picture

    def shares(self, labels: np.ndarray) -> dict[str, float]:
        """Return the share of the whole image that each class present and shown takes, largest first."""
        shares = class_shares(labels, self.classes)
        return {name: share for name, share in shares.items() if not self.shown or name in self.shown}

    def _only_shown(self, labels: np.ndarray) -> np.ndarray:
        if not self.shown:
            return labels
        keep = np.full(256, IGNORE_INDEX, np.uint8)
        indices = [self.classes.names.index(name) for name in self.shown]
        keep[indices] = indices
        return keep[labels]

    def _entries(self, labels: np.ndarray) -> list[tuple[str, tuple[int, int, int]]]:
        """Lines of the legend, in the order of the classes, so that they stay in place from frame to frame."""
        shares = {name: share for name, share in self.shares(labels).items() if share >= LEAST}
        every = zip(self.classes.names, self.classes.colors, strict=True)
        return [(f"{name} {100 * shares[name]:.1f} %", color) for name, color in every if name in shares]
