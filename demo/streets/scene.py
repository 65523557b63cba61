"""Rendering of a scene: sky, ground, objects, ego vehicle, and the light of the photograph."""

import cv2
import numpy as np
from numpy.random import Generator

from demo.streets.canvas import CLASSES, Canvas, Z, circle, leaves, paint
from demo.streets.roadside import roadsides, street_end
from demo.streets.traffic import traffic

_FAR = 300.0  # where the ground ends, in metres


def render(rng: Generator, *, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Render one scene.

    Returns:
        image (H, W, 3) uint8 RGB, Cityscapes label ids (H, W) uint8, and instance ids (H, W) uint16, which are
        label id * 1000 + k for single cars, persons and so on, and the label id otherwise.
    """
    canvas = Canvas(rng, height, width)
    edges = (-rng.uniform(3.0, 5.5), rng.uniform(2.5, 4.5))  # of the road, left and right
    _sky(canvas, rng)
    lines = _ground(canvas, rng, edges)
    street_end(canvas, rng)
    things = roadsides(rng, lines) + traffic(canvas, rng, edges)
    for thing in sorted(things, key=lambda thing: (thing.layer, -thing.distance)):
        thing.draw(canvas, rng)
    if rng.random() < 0.4:
        _bonnet(canvas, rng)
    image = _expose(canvas, rng)
    return image, canvas.marks[..., 0].astype(np.uint8), canvas.marks[..., 1].copy()


def _sky(canvas: Canvas, rng: Generator) -> None:
    """Fill the image with a clear, grey, white or evening sky with clouds, hazy towards the horizon."""
    height, width = canvas.image.shape[:2]
    top = np.array([[110, 160, 230], [190, 200, 215], [235, 235, 240], [235, 195, 175]])[rng.integers(4)]
    top = top * rng.uniform(0.65, 1.0)
    share = np.clip(np.arange(height) / canvas.horizon, 0, 1)[:, None, None]
    clouds = 0.6 * _smooth(rng, (height, width), 8, wide=3) + 0.4 * _smooth(rng, (height, width), 20, wide=2)
    sky = (1 - share) * top + share * canvas.haze_color
    canvas.image[:] = np.clip(sky + np.clip(clouds + 0.1, 0, 1)[..., None] * rng.uniform(-40, 160), 0, 255)


def _ground(canvas: Canvas, rng: Generator, edges: tuple[float, float]) -> tuple[float, float]:
    """Draw road, pavements and grass; return where the plots begin, left and right, in metres."""
    lines = []
    for side, edge in zip((-1, 1), edges, strict=True):
        x = edge
        verge, walk = rng.uniform(1.2, 2.4) * (rng.random() < 0.5), rng.uniform(2.2, 4.0)
        grass, plot = rng.uniform(2.0, 5.0) * (rng.random() < 0.55), ("terrain", "sidewalk")[rng.integers(2)]
        for name, breadth in (("terrain", verge), ("sidewalk", walk), ("terrain", grass), (plot, 200.0)):
            if breadth:
                _strip(canvas, rng, name, x, x + side * breadth)
            x += side * breadth
        lines.append(x - side * 200.0)
    _road(canvas, rng, edges)
    below = np.maximum(np.arange(len(canvas.image)) - canvas.horizon, 0.0)[:, None, None]
    clear = np.exp(-canvas.haze * canvas.focal * canvas.eye / np.maximum(below, 1))
    hazy = clear * canvas.image + (1 - clear) * canvas.haze_color
    np.copyto(canvas.image, hazy.astype(np.uint8), where=below > 0)
    return lines[0], lines[1]


def _strip(canvas: Canvas, rng: Generator, name: str, x0: float, x1: float) -> None:
    pen = canvas.pen(name, up=Z)
    if name == "terrain":
        pen.box(x0, 0.6, x1, _FAR, leaves(rng) * 0.5 + (70, 75, 25), grain=20)
        return
    color = paint(rng) * 0.15 + rng.uniform(0.65, 1.0) * np.array([180, 155, 130])
    pen.box(x0, 0.6, x1, _FAR, color, grain=8)
    low, high = max(min(x0, x1), -25.0), min(max(x0, x1), 25.0)
    pen.stroke([[(x, 2.5), (x, 60)] for x in np.arange(low, high, 0.75)], color * 0.75, 0.05)
    pen.stroke([[(low, z), (high, z)] for z in np.arange(3, 25, 0.75)], color * 0.75, 0.05)


def _road(canvas: Canvas, rng: Generator, edges: tuple[float, float]) -> None:
    pen, (left, right), tone = canvas.pen("road", up=Z), edges, rng.uniform(45, 100) + rng.uniform(-6, 6, 3)
    for edge in edges:  # kerbs
        canvas.pen("sidewalk", up=Z).box(edge - 0.16, 0.6, edge + 0.16, _FAR, tone * 0.4 + (110, 100, 85))
    pen.box(left + 0.08, 0.6, right - 0.08, _FAR, tone, grain=8)
    for _ in range(rng.integers(0, 4)):  # patches of new asphalt
        x, z = rng.uniform(left + 1, right - 2), rng.uniform(4, 18)
        patch = tone * rng.uniform(0.75, 1.1)
        pen.box(x, z, x + rng.uniform(0.5, 1.0), z + rng.uniform(1, 8), patch, grain=8)
    white = np.full(3, rng.uniform(170, 240))
    lane = right - rng.uniform(2.8, 3.4) if rng.random() < 0.7 else (left + right) / 2
    for z in np.arange(rng.uniform(2, 5), 60, rng.choice([4.0, 6.0, 8.0])):
        pen.box(lane - 0.08, z, lane + 0.08, z + 2.5, white)
    if rng.random() < 0.5:
        pen.box(right - 0.45, 0.6, right - 0.33, _FAR, white)
    if rng.random() < 0.3:  # zebra crossing
        z = rng.uniform(5, 16)
        for x in np.arange(left + 0.3, right - 0.6, 1.0):
            pen.box(x, z, x + 0.5, z + 3, white)


def _bonnet(canvas: Canvas, rng: Generator) -> None:
    """Draw the bonnet of the ego vehicle, whose class is ignored."""
    height, width = canvas.image.shape[:2]
    ratio = rng.uniform(0.08, 0.18) * height / width
    points = circle(width / 2, height * 1.02, width * 0.62, ratio=ratio)
    ego = CLASSES["ego vehicle"].id
    cv2.fillPoly(canvas.marks, [points.astype(np.int32)], (ego, ego, 3))
    cv2.fillPoly(canvas.image, [points.astype(np.int32)], tuple(float(c) for c in paint(rng) * 0.5))


def _expose(canvas: Canvas, rng: Generator) -> np.ndarray:
    """Return the photograph: texture, blur, contrast, white balance, exposure, vignette and sensor noise."""
    height, width = canvas.image.shape[:2]
    fine = rng.standard_normal((height, width), dtype=np.float32)
    texture = 0.7 * cv2.GaussianBlur(fine, (0, 0), 0.9) * 1.8 + 0.5 * _smooth(rng, (height, width), 40)
    image = canvas.image * (1 + texture * canvas.marks[..., 2] / 100)[..., None].astype(np.float32)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.45, 0.75) * max(1.0, height / 512))
    warmth = rng.uniform(-0.12, 0.12)
    gain = rng.choice([rng.uniform(0.8, 1.2), rng.uniform(0.6, 0.8)], p=[0.9, 0.1])  # day or dusk
    image = 128 + (image - 128) * rng.uniform(0.9, 1.15)
    image *= gain * np.array([1 + warmth, 1, 1 - warmth + 0.1 * (gain < 0.75)], dtype=np.float32)
    image *= (1 + 0.12 * _smooth(rng, (height, width), 3))[..., None]  # shadows of clouds
    ys, xs = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    image *= (1 - rng.uniform(0, 0.25) * (xs**2 + ys**2))[..., None].astype(np.float32)
    image += rng.standard_normal((height, width, 3), dtype=np.float32) * rng.uniform(0.5, 3)
    return np.clip(image, 0, 255).astype(np.uint8)


def _smooth(rng: Generator, shape: tuple[int, int], cells: int, *, wide: int = 1) -> np.ndarray:
    """Return smooth noise (H, W) in about -1..1, of `cells` rows of cells that are `wide` times as wide as high."""
    height, width = shape
    coarse = rng.uniform(-1, 1, (cells, max(2, cells * width // height // wide))).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
