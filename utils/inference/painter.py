"""The pictures that are made of an image and its label map."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from dataset.labels import IGNORE_INDEX, ClassTable
from utils.visualize import class_shares, colorize, draw_legend, overlay

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
