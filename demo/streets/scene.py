"""One scene from sky to bonnet: image, label ids and instance ids."""

import cv2
import numpy as np

from demo.streets.canvas import CLASSES, Camera, Canvas, circle
from demo.streets.colors import paint
from demo.streets.ground import lay_ground
from demo.streets.light import expose, paint_sky
from demo.streets.roadsides import close_view, roadsides
from demo.streets.street_life import street_life


def render(rng: np.random.Generator, *, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw one scene.

    Returns image (H, W, 3) uint8 RGB, label ids (H, W) uint8 of Cityscapes (ids, not train ids), and instance
    ids (H, W) uint16: label id * 1000 + k for a single car, person and so on, the label id for the rest.
    """
    canvas = _empty_canvas(rng, height, width)
    edges = (-rng.uniform(3.0, 5.5), rng.uniform(2.5, 4.5))  # of the road, left and right
    paint_sky(canvas, rng)
    lines = lay_ground(canvas, rng, edges)
    close_view(canvas, rng)
    found = roadsides(rng, lines) + street_life(canvas, rng, edges)
    for thing in sorted(found, key=lambda thing: (thing.layer, -thing.distance)):
        thing.draw(canvas, rng)
    if rng.random() < 0.4:
        _bonnet(canvas, rng)
    image = expose(canvas, rng)
    return image, canvas.marks[..., 0].astype(np.uint8), canvas.marks[..., 1].copy()


def _empty_canvas(rng: np.random.Generator, height: int, width: int) -> Canvas:
    camera = Camera(
        focal=height * rng.uniform(1.75, 1.95),
        center=width / 2 + height * rng.uniform(-0.2, 0.2),
        horizon=height * rng.uniform(0.36, 0.44),
        eye=rng.uniform(1.5, 1.9),
    )
    sky = CLASSES["sky"].id
    return Canvas(
        camera=camera,
        image=np.zeros((height, width, 3), np.uint8),
        marks=np.full((height, width, 3), (sky, sky, 3), np.uint16),
        haze_color=rng.uniform(150, 235) * np.array([0.95, 1.0, 1.04]),
        haze=rng.choice([0.001, 0.003, 0.008]),
        sun=rng.uniform(-2, 2),
    )


def _bonnet(canvas: Canvas, rng: np.random.Generator) -> None:
    height, width = canvas.image.shape[:2]
    ratio = rng.uniform(0.08, 0.18) * height / width
    points = circle(width / 2, height * 1.02, width * 0.62, ratio=ratio)
    ego = CLASSES["ego vehicle"].id
    cv2.fillPoly(canvas.marks, [points.astype(np.int32)], (ego, ego, 3))
    cv2.fillPoly(canvas.image, [points.astype(np.int32)], tuple(float(c) for c in paint(rng) * 0.5))
