"""Label maps rendered as RGB images; arrays in, arrays out."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dataset.labels import IGNORE_INDEX, ClassTable

RENDERINGS = ("color", "overlay", "side")
LEGEND_MIN_SHARE = 0.0005  # below this, a class would be listed with 0.0 %


@dataclass(frozen=True, kw_only=True)
class Painter:
    """Renders label maps.

    Attributes:
        alpha: opacity of the class colours in an overlay, 0 to 1.
        shown: names of the classes to show; empty: all of them.
        legend: draw the names, colours and shares of the classes present.
    """

    classes: ClassTable
    alpha: float = 0.5
    shown: Sequence[str] = ()
    legend: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"--alpha must be from 0 to 1, got {self.alpha:g}")
        unknown = [name for name in self.shown if name not in self.classes.names]
        if unknown:
            raise ValueError(
                f"--classes: unknown {', '.join(unknown)}; the classes are {', '.join(self.classes.names)}"
            )

    def paint(self, kind: str, image: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Render a label map (H, W) and its RGB image (H, W, 3) as RGB, (H, W, 3) uint8.

        Args:
            kind: "color", "overlay" (colours over the image) or "side" (image next to colours, (H, 2W, 3)).
        """
        visible = self._hide_others(labels) if self.shown else labels
        if kind == "overlay":
            rendering = overlay(image, visible, self.classes, alpha=self.alpha)
            if self.shown:
                rendering = cv2.copyTo(image, (visible == IGNORE_INDEX).astype(np.uint8), rendering)
        else:
            rendering = colorize(visible, self.classes)
        if self.legend:
            rendering = draw_legend(rendering, self._legend_entries(labels))
        return np.hstack([image, rendering]) if kind == "side" else rendering

    def shares(self, labels: np.ndarray) -> dict[str, float]:
        """Return the fraction of all pixels for each class that is present and shown, in descending order."""
        shares = class_shares(labels, self.classes)
        return {name: share for name, share in shares.items() if not self.shown or name in self.shown}

    def _hide_others(self, labels: np.ndarray) -> np.ndarray:
        table = np.full(256, IGNORE_INDEX, np.uint8)
        indices = [self.classes.names.index(name) for name in self.shown]
        table[indices] = indices
        return table[labels]

    def _legend_entries(self, labels: np.ndarray) -> list[tuple[str, tuple[int, int, int]]]:
        """Return text and colour of each line, in class order, so that lines do not jump between frames."""
        shares = {name: share for name, share in self.shares(labels).items() if share >= LEGEND_MIN_SHARE}
        table = zip(self.classes.names, self.classes.colors, strict=True)
        return [(f"{name} {100 * shares[name]:.1f}%", color) for name, color in table if name in shares]


def colorize(labels: np.ndarray, classes: ClassTable) -> np.ndarray:
    """Map class indices (H, W) to class colours, (H, W, 3) uint8 RGB; black for ignored pixels."""
    labels = np.ascontiguousarray(labels, np.uint8)
    return cv2.merge([cv2.LUT(labels, channel) for channel in classes.palette.T])  # twice as fast as NumPy's `take`


def overlay(image: np.ndarray, labels: np.ndarray, classes: ClassTable, *, alpha: float = 0.5) -> np.ndarray:
    """Blend class colours over an RGB image (H, W, 3) uint8; `alpha` is their opacity."""
    return cv2.addWeighted(image, 1 - alpha, colorize(labels, classes), alpha, 0)


def class_shares(labels: np.ndarray, classes: ClassTable) -> dict[str, float]:
    """Return the fraction of the pixels of a label map (H, W) for each class present, in descending order."""
    counts = cv2.calcHist([np.ascontiguousarray(labels, np.uint8)], [0], None, [256], [0, 256]).ravel()[: len(classes)]
    order = np.argsort(-counts, kind="stable")
    return {classes.names[index]: float(counts[index] / labels.size) for index in order if counts[index]}


def draw_legend(image: np.ndarray, entries: Sequence[tuple[str, tuple[int, int, int]]]) -> np.ndarray:
    """Draw lines of text, each with an RGB colour swatch, into the top left corner of a copy of an RGB image.

    The text scales with the image; lines that do not fit are left out.
    """
    size = max(9, min(image.shape[:2]) // 32)
    line, margin = round(1.4 * size), size // 2
    entries = entries[: max(0, image.shape[0] - 2 * margin) // line]
    if not entries:
        return image
    font = ImageFont.load_default(size=size)
    canvas = Image.fromarray(image)
    width = round(max(font.getlength(text) for text, _ in entries)) + line + 2 * margin
    box = (0, 0, min(width, canvas.width), line * len(entries) + 2 * margin)
    canvas.paste(Image.blend(canvas.crop(box), Image.new("RGB", box[2:], "black"), 0.6), box)
    draw = ImageDraw.Draw(canvas)
    for row, (text, color) in enumerate(entries):
        top = margin + row * line
        draw.rectangle((margin, top, margin + size, top + size), fill=color, outline="white")
        draw.text((margin + line, top + size / 2), text, fill="white", font=font, anchor="lm")
    return np.asarray(canvas)


def grid(images: Sequence[np.ndarray], *, columns: int, captions: Sequence[str] = (), width: int = 480) -> np.ndarray:
    """Arrange RGB images in rows on white, each resized to `width` pixels and with its caption, if any, above it."""
    border, band = 4, 22 if captions else 0
    cells = [Image.fromarray(image) for image in images]
    cells = [cell.resize((width, max(1, round(cell.height * width / cell.width)))) for cell in cells]
    height = band + border + max(cell.height for cell in cells)
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * (width + border) + border, rows * height + border), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for index, cell in enumerate(cells):
        row, column = divmod(index, columns)
        left, top = border + column * (width + border), border + row * height
        if captions:
            draw.text((left, top + 2), captions[index], fill="black", font=font)
        sheet.paste(cell, (left, top + band))
    return np.asarray(sheet)
