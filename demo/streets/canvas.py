"""Canvas, pens and colours: objects given in metres are drawn into an image and its labels.

Coordinates: x to the right of the camera, y up from the ground, z ahead. A `Pen` draws on one plane in this space, into
image, label ids and instance ids at once, so that they always agree.
"""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike
from torchvision.datasets import Cityscapes

CLASSES = {c.name: c for c in Cityscapes.classes}
DARK = np.array([28, 28, 32])  # colour of tyres, shoes, iron
X, Y, Z = np.eye(3)
_UNIT_CIRCLE = np.array([(np.cos(a), np.sin(a)) for a in np.arange(16) * np.pi / 8])
ON_GROUND, ON_PLOT, ON_STREET = range(3)  # layers: what is on the street hides what is on the plots beside it


class Canvas:
    """The scene being drawn, as seen by a pinhole camera that looks straight ahead.

    Attributes:
        image: (H, W, 3) uint8.
        marks: label id, instance id and texture strength of each pixel, (H, W, 3) uint16.
        counts: instances per label id.
    """

    def __init__(self, rng: Generator, height: int, width: int) -> None:
        self.focal = height * rng.uniform(1.75, 1.95)  # in pixels, as center and horizon
        self.center = width / 2 + height * rng.uniform(-0.2, 0.2)
        self.horizon = height * rng.uniform(0.36, 0.44)
        self.eye = rng.uniform(1.5, 1.9)  # height in metres
        self.haze_color = rng.uniform(150, 235) * np.array([0.95, 1.0, 1.04])
        self.haze = rng.choice([0.001, 0.003, 0.008])  # per metre
        self.sun = rng.uniform(-2, 2)  # length of shadows to the right, in metres
        sky = CLASSES["sky"].id
        self.image: np.ndarray = np.zeros((height, width, 3), np.uint8)
        self.marks: np.ndarray = np.full((height, width, 3), (sky, sky, 3), np.uint16)
        self.counts: dict[int, int] = {}

    def project(self, points: np.ndarray) -> np.ndarray:
        """Project points (..., 3) in metres to int32 pixels (..., 2), x before y."""
        scale = self.focal / np.maximum(points[..., 2:], 0.6)  # points behind the camera are moved before it
        pixels = (points[..., :2] - (0, self.eye)) * scale * (1, -1) + (self.center, self.horizon)
        return np.rint(pixels).clip(-30000, 30000).astype(np.int32)

    def pen(self, name: str, *, x: float = 0.0, z: float = 0.0, right: np.ndarray = X, up: np.ndarray = Y) -> "Pen":
        """Return a pen for a new instance of class `name` on the plane through (x, 0, z)."""
        label, instance = self.new_ids(name)
        return Pen(canvas=self, label=label, instance=instance, origin=np.array([x, 0.0, z]), right=right, up=up)

    def new_ids(self, name: str) -> tuple[int, int]:
        """Return label id and instance id for a new object of class `name`."""
        label = CLASSES[name].id
        if not CLASSES[name].has_instances:
            return label, label
        number = self.counts.get(label, 0)
        self.counts[label] = number + 1
        return label, label * 1000 + number

    def shadow(self, x: float, z: float, *, width: float, depth: float) -> None:
        """Darken the ground below an object that covers x ± width / 2 and z to z + depth."""
        center = (x + self.sun / 2, z + depth / 2)
        reach = width + abs(self.sun) + 0.2
        self.pen("ground", up=Z).shade(circle(*center, reach / 2, ratio=(depth + 0.5) / reach), 0.55)


class Thing(NamedTuple):
    """An object to draw, ordered by layer and from far to near."""

    layer: int
    distance: float  # in metres
    draw: Callable[[Canvas, Generator], None]


@dataclass(frozen=True, kw_only=True)
class Pen:
    """Draws shapes of one object, given in metres (u, v), on the plane `origin + u * right + v * up`."""

    canvas: Canvas
    label: int
    instance: int
    origin: np.ndarray
    right: np.ndarray
    up: np.ndarray

    def named(self, name: str) -> "Pen":
        """Return a pen on the same plane for a new object of another class."""
        label, instance = self.canvas.new_ids(name)
        return replace(self, label=label, instance=instance)

    def moved(self, offset: np.ndarray) -> "Pen":
        """Return a pen for the same object on a parallel plane, `offset` (3,) metres away."""
        return replace(self, origin=self.origin + offset)

    def fill(self, points: ArrayLike, color: ArrayLike | None, *, grain: int = 5) -> None:
        """Fill a polygon (K, 2), or disjoint ones (N, K, 2); without a colour only label it."""
        pixels, depth = self._project(points)
        shapes = list(pixels.reshape(-1, *pixels.shape[-2:]))
        cv2.fillPoly(self.canvas.marks, shapes, (self.label, self.instance, grain))
        if color is not None:
            cv2.fillPoly(self.canvas.image, shapes, self._hazy(color, depth))

    def box(self, u0: float, v0: float, u1: float, v1: float, color: ArrayLike | None, *, grain: int = 5) -> None:
        """Fill an upright rectangle."""
        self.fill([(u0, v0), (u1, v0), (u1, v1), (u0, v1)], color, grain=grain)

    def disc(self, u: float, v: float, radius: float, color: ArrayLike | None, *, ratio: float = 1.0) -> None:
        """Fill an ellipse that is `ratio` times as high as wide."""
        self.fill(circle(u, v, radius, ratio=ratio), color)

    def stroke(self, points: ArrayLike, color: ArrayLike, width: float, *, closed: bool = False) -> None:
        """Draw a polyline (K, 2), or several (N, K, 2), `width` metres but at least one pixel wide."""
        pixels, depth = self._project(points)
        shapes = list(pixels.reshape(-1, *pixels.shape[-2:]))
        thickness = max(1, round(width * self.canvas.focal / max(depth, 1.0)))
        cv2.polylines(self.canvas.marks, shapes, closed, (self.label, self.instance, 3), thickness)
        cv2.polylines(self.canvas.image, shapes, closed, self._hazy(color, depth), thickness)

    def shade(self, points: ArrayLike, factor: float) -> None:
        """Multiply the brightness within a polygon (K, 2), without changing the labels."""
        pixels, _ = self._project(points)
        height, width = self.canvas.image.shape[:2]
        x0, y0 = np.clip(pixels.min(axis=0), 0, (width, height))
        x1, y1 = np.clip(pixels.max(axis=0) + 1, 0, (width, height))
        if x0 < x1 and y0 < y1:
            region = self.canvas.image[y0:y1, x0:x1]
            mask = cv2.fillPoly(np.zeros(region.shape[:2], np.uint8), [pixels - (x0, y0)], 1).astype(bool)
            region[mask] = region[mask] * factor

    def _project(self, points: ArrayLike) -> tuple[np.ndarray, float]:
        points = np.asarray(points, dtype=float)
        space = self.origin + points[..., :1] * self.right + points[..., 1:] * self.up
        return self.canvas.project(space), float(space[..., 2].mean())

    def _hazy(self, color: ArrayLike, depth: float) -> tuple[float, ...]:
        flat = self.up[1] == 0  # the ground gets its haze row by row
        share = 0.0 if flat else 1 - np.exp(-self.canvas.haze * max(depth, 0.0))
        mixed = np.clip((1 - share) * np.asarray(color) + share * self.canvas.haze_color, 0, 255)
        return tuple(float(c) for c in mixed)


def circle(u: float, v: float, radius: float, *, ratio: float = 1.0) -> np.ndarray:
    """Return an ellipse as a polygon (16, 2)."""
    return _UNIT_CIRCLE * (radius, radius * ratio) + (u, v)


def grid(us: ArrayLike, vs: ArrayLike, *, width: float, height: float) -> np.ndarray:
    """Return rectangles (N, 4, 2) with lower left corners at all pairs of `us` and `vs`."""
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)])
    return np.stack(np.meshgrid(us, vs), axis=-1).reshape(-1, 1, 2) + corners


def hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """Convert a colour from HSV in 0..1 to RGB in 0..255."""
    return 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value))


def paint(rng: Generator) -> np.ndarray:
    """Sample the colour of a man-made object: grey or any hue, about equally often."""
    if rng.random() < 0.45:
        return rng.uniform(35, 225) + rng.uniform(-10, 10, 3)
    return hsv(rng.random(), rng.uniform(0.2, 0.9), rng.uniform(0.3, 0.95))


def leaves(rng: Generator) -> np.ndarray:
    """Sample the colour of plants: green, sometimes brown or yellow."""
    hue = rng.uniform(0.2, 0.38) if rng.random() < 0.8 else rng.uniform(0.08, 0.2)
    return hsv(hue, rng.uniform(0.25, 0.7), rng.uniform(0.22, 0.6))


def glass(rng: Generator) -> np.ndarray:
    """Sample the colour of a window: dark, or reflecting the sky."""
    return rng.uniform(25, 110) * np.array([0.85, 0.95, 1.1])
