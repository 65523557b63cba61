"""People, on foot and in the saddle."""

from dataclasses import replace

import numpy as np

from demo.streets.canvas import Canvas, Pen, X, Y, circle
from demo.streets.colors import DARK, high_visibility, paint, skin


def person(canvas: Canvas, rng: np.random.Generator, *, x: float, z: float) -> None:
    """Stand or walk somebody at (x, z)."""
    pen, k = canvas.pen("person", x=x, z=z), rng.uniform(0.85, 1.08)
    pen = replace(pen, right=X * k * (1 if rng.random() < 0.5 else -1), up=Y * k)
    shirt, trousers, face = paint(rng) * 0.8, paint(rng) * 0.6, skin(rng)
    stride, swing = rng.uniform(0.04, 0.3), rng.uniform(0.0, 0.25)
    canvas.shadow(x, z, width=0.6, depth=0.4)
    for foot in (-stride, stride):
        leg = [(-0.13, 0.95), (0.13, 0.95), (foot + 0.09, 0.05), (foot - 0.09, 0.05)]
        pen.fill(leg, trousers * (1 if foot > 0 else 0.8))
        pen.box(foot - 0.1, 0, foot + 0.17, 0.09, DARK)
    pen.fill([(-0.24, 1.45), (-0.16, 0.85), (0.17, 0.85), (0.24, 1.45), (0.1, 1.52), (-0.1, 1.52)], shirt)
    for shoulder, hand in ((-0.22, -0.27 - swing), (0.22, 0.27 + swing)):
        pen.stroke([(shoulder, 1.42), ((shoulder + hand) / 2, 1.12), (hand, 0.88)], shirt * 0.75, 0.12)
        pen.disc(hand, 0.85, 0.06, face)
    pen.disc(0, 1.64, 0.12, face, ratio=1.25)
    pen.fill(circle(0, 1.67, 0.14)[:9], rng.uniform(0.1, 1.0) * np.array([110, 80, 50]))  # hair
    if rng.random() < 0.3:
        pen.box(-0.42, 0.9, -0.2, 1.3, paint(rng) * 0.7)


def rider(pen: Pen, rng: np.random.Generator, *, seat: np.ndarray, grip: np.ndarray) -> None:
    """Put somebody on a two-wheeler, astride `seat` and with the hands at `grip`, (u, v) on the plane of `pen`."""
    shirt, trousers, helmet = high_visibility(rng), paint(rng) * 0.6, high_visibility(rng)
    pen = pen.moved(seat[0] * pen.right + seat[1] * pen.up)  # from here on, the seat is the origin
    u, v = grip - seat
    pen.stroke([(0, 0), (0.42, -0.12), (0.22, -0.58), (0.38, -0.58)], trousers, 0.17)
    pen.fill([(-0.17, 0), (0.14, -0.06), (0.46, 0.55), (0.2, 0.63)], shirt)
    pen.stroke([(0.32, 0.55), (0.16 + u / 2, 0.2 + v / 2), (u, v)], shirt * 0.75, 0.12)
    pen.disc(0.42, 0.79, 0.14, skin(rng), ratio=1.15)
    pen.fill(circle(0.42, 0.81, 0.17)[:9], helmet)
