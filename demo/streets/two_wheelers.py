"""Bicycles and motorcycles, with a rider or without."""

import numpy as np

from demo.streets.canvas import Canvas, Pen, X, Z, circle
from demo.streets.colors import DARK, paint
from demo.streets.people import rider


def two_wheeler(canvas: Canvas, rng: np.random.Generator, name: str, *, x: float, z: float, ridden: bool) -> None:
    """Put a bicycle or a motorcycle at (x, z), seen from the side or obliquely, with its rider or without."""
    angle = rng.uniform(-0.9, 0.9) + (np.pi if rng.random() < 0.5 else 0)
    pen = canvas.pen(name, x=x, z=z, right=X * np.cos(angle) + Z * np.sin(angle))
    canvas.shadow(x, z, width=1.5, depth=0.4)
    draw, seat, grip = {
        "bicycle": (_bicycle, (-0.25, 0.95), (0.42, 1.05)),
        "motorcycle": (_motorcycle, (-0.3, 0.85), (0.42, 1.05)),
    }[name]
    draw(pen, rng)
    if ridden:
        rider(pen.named("rider"), rng, seat=np.array(seat), grip=np.array(grip))


def _bicycle(pen: Pen, rng: np.random.Generator) -> None:
    color, tyre = paint(rng), DARK * rng.uniform(0.7, 1.8)
    for u in (-0.54, 0.54):
        pen.disc(u, 0.34, 0.36, None)  # Cityscapes labels a wheel whole, spokes and what shows between them
        pen.stroke(circle(u, 0.34, 0.34), tyre, 0.1, closed=True)
        pen.stroke([[(u, 0), (u, 0.68)], [(u - 0.34, 0.34), (u + 0.34, 0.34)]], tyre * 3, 0.02)
    pen.fill([(-0.54, 0.34), (-0.05, 0.3), (0.4, 0.85), (-0.2, 0.8)], None)
    pen.stroke([(-0.54, 0.34), (-0.05, 0.3), (0.38, 0.8), (-0.18, 0.78), (-0.54, 0.34)], color, 0.1)
    pen.stroke([[(-0.05, 0.3), (-0.22, 0.92)], [(0.54, 0.34), (0.36, 1.02)]], color, 0.1)
    pen.stroke([[(-0.38, 0.94), (-0.1, 0.94)], [(0.3, 1.05), (0.5, 1.02)]], DARK, 0.09)


def _motorcycle(pen: Pen, rng: np.random.Generator) -> None:
    color = paint(rng)
    for u in (-0.7, 0.72):
        pen.disc(u, 0.33, 0.34, DARK)
        pen.disc(u, 0.33, 0.16, DARK * 4.5)
    pen.fill([(-0.6, 0.3), (0.35, 0.25), (0.45, 0.75), (-0.5, 0.75)], DARK * 2.2)
    pen.disc(0.0, 0.42, 0.2, DARK * 4)
    pen.stroke([(0.05, 0.28), (-0.9, 0.36)], DARK * 6, 0.12)
    pen.fill([(-1.0, 0.88), (-0.95, 0.62), (0.3, 0.6), (0.55, 0.8), (0.3, 1.0), (-0.1, 0.82)], color)
    pen.box(-0.7, 0.8, -0.1, 0.92, DARK)
    pen.stroke([(0.72, 0.33), (0.48, 0.95), (0.36, 1.1)], DARK * 4, 0.1)
    pen.fill([(0.45, 0.8), (0.68, 0.85), (0.6, 1.25), (0.5, 1.2)], color * 0.8)
    pen.disc(0.66, 0.85, 0.1, (245, 240, 210))
