"""A camera, a canvas and pens: how a thing given in metres gets into the picture and into its labels.

Everything is drawn in metres: x to the right of the camera, y up from the ground, z ahead. A `Pen` draws on
one plane in that space, and paints image, label id and instance id together, so that they cannot disagree.
"""

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import ArrayLike
from torchvision.datasets import Cityscapes

CLASSES = {c.name: c for c in Cityscapes.classes}  # the official table, by name
X, Y, Z = np.eye(3)
_UNIT_CIRCLE = np.array([(np.cos(a), np.sin(a)) for a in np.arange(16) * np.pi / 8])


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera that looks straight ahead; focal, center and horizon in pixels, eye in metres."""

    focal: float
    center: float
    horizon: float
    eye: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """Project points (..., 3) in metres to int32 pixels (..., 2), x before y."""
        scale = self.focal / np.maximum(points[..., 2:], 0.6)  # a point behind the camera has no picture
        pixels = (points[..., :2] - (0, self.eye)) * scale * (1, -1) + (self.center, self.horizon)
        return np.rint(pixels).clip(-30000, 30000).astype(np.int32)


@dataclass(kw_only=True)
class Canvas:
    """The picture under construction; `marks` holds label id, instance id and strength of texture."""

    camera: Camera
    image: np.ndarray  # (H, W, 3) uint8
    marks: np.ndarray  # (H, W, 3) uint16
    haze_color: np.ndarray
    haze: float  # per metre
    sun: float  # metres that a shadow falls to the right
    counts: dict[int, int] = field(default_factory=dict)

    def pen(self, name: str, *, x: float = 0.0, z: float = 0.0, right: np.ndarray = X, up: np.ndarray = Y) -> "Pen":
        """Take a pen of class `name` to the plane through (x, 0, z); each call begins a new instance."""
        label, instance = self.new_ids(name)
        return Pen(canvas=self, label=label, instance=instance, origin=np.array([x, 0.0, z]), right=right, up=up)

    def new_ids(self, name: str) -> tuple[int, int]:
        """Number a new object of class `name`: its label id and its instance id."""
        label = CLASSES[name].id
        if not CLASSES[name].has_instances:
            return label, label
        number = self.counts.get(label, 0)
        self.counts[label] = number + 1
        return label, label * 1000 + number

    def shadow(self, x: float, z: float, *, width: float, depth: float) -> None:
        """Darken the ground below a thing that covers x ± width / 2 and z to z + depth."""
        center = (x + self.sun / 2, z + depth / 2)
        reach = width + abs(self.sun) + 0.2
        self.pen("ground", up=Z).shade(circle(*center, reach / 2, ratio=(depth + 0.5) / reach), 0.55)


@dataclass(frozen=True, kw_only=True)
class Pen:
    """Paints shapes of one object, given in metres (u, v), on the plane `origin + u * right + v * up`."""

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
        """Fill one polygon (K, 2), or (N, K, 2) that do not overlap; color None labels without painting."""
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
        """Draw a line (K, 2), or lines (N, K, 2), `width` metres and at least one pixel wide."""
        pixels, depth = self._project(points)
        shapes = list(pixels.reshape(-1, *pixels.shape[-2:]))
        thickness = max(1, round(width * self.canvas.camera.focal / max(depth, 1.0)))
        cv2.polylines(self.canvas.marks, shapes, closed, (self.label, self.instance, 3), thickness)
        cv2.polylines(self.canvas.image, shapes, closed, self._hazy(color, depth), thickness)

    def shade(self, points: ArrayLike, factor: float) -> None:
        """Multiply the brightness within a polygon (K, 2), and leave the labels alone."""
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
        return self.canvas.camera.project(space), float(space[..., 2].mean())

    def _hazy(self, color: ArrayLike, depth: float) -> tuple[float, ...]:
        lies = self.up[1] == 0  # on the ground, which is hazed as a whole, row by row
        share = 0.0 if lies else 1 - np.exp(-self.canvas.haze * max(depth, 0.0))
        mixed = np.clip((1 - share) * np.asarray(color) + share * self.canvas.haze_color, 0, 255)
        return tuple(float(c) for c in mixed)


def circle(u: float, v: float, radius: float, *, ratio: float = 1.0) -> np.ndarray:
    """Return an ellipse as a polygon (16, 2)."""
    return _UNIT_CIRCLE * (radius, radius * ratio) + (u, v)


def grid(us: ArrayLike, vs: ArrayLike, *, width: float, height: float) -> np.ndarray:
    """Return rectangles (N, 4, 2) whose lower left corners are all pairs of `us` and `vs`."""
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)])
    return np.stack(np.meshgrid(us, vs), axis=-1).reshape(-1, 1, 2) + corners
