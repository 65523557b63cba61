"""Pedestrians, and two-wheelers with or without a rider."""

from dataclasses import replace

import numpy as np
from numpy.random import Generator

from demo.streets.canvas import DARK, Canvas, Pen, X, Y, Z, circle, hsv, paint


def person(canvas: Canvas, rng: Generator, *, x: float, z: float) -> None:
    """Draw a pedestrian at (x, z)."""
    pen, k = canvas.pen("person", x=x, z=z), rng.uniform(0.85, 1.08)
    pen = replace(pen, right=X * k * (1 if rng.random() < 0.5 else -1), up=Y * k)
    shirt, trousers, face = paint(rng) * 0.8, paint(rng) * 0.6, _skin(rng)
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
    if rng.random() < 0.3:  # bag
        pen.box(-0.42, 0.9, -0.2, 1.3, paint(rng) * 0.7)


def two_wheeler(canvas: Canvas, rng: Generator, name: str, *, x: float, z: float, ridden: bool) -> None:
    """Draw a bicycle or motorcycle at (x, z), seen from the side or obliquely, with or without a rider."""
    angle = rng.uniform(-0.9, 0.9) + (np.pi if rng.random() < 0.5 else 0)
    pen = canvas.pen(name, x=x, z=z, right=X * np.cos(angle) + Z * np.sin(angle))
    canvas.shadow(x, z, width=1.5, depth=0.4)
    (_bicycle if name == "bicycle" else _motorcycle)(pen, rng)
    if ridden:
        seat = (-0.25, 0.95) if name == "bicycle" else (-0.3, 0.85)
        _rider(pen.named("rider"), rng, seat=np.array(seat), grip=np.array((0.42, 1.05)))


def _bicycle(pen: Pen, rng: Generator) -> None:
    color, tyre = paint(rng), DARK * rng.uniform(0.7, 1.8)
    for u in (-0.54, 0.54):
        pen.disc(u, 0.34, 0.36, None)  # as in Cityscapes, the label covers the whole wheel with its gaps
        pen.stroke(circle(u, 0.34, 0.34), tyre, 0.1, closed=True)
        pen.stroke([[(u, 0), (u, 0.68)], [(u - 0.34, 0.34), (u + 0.34, 0.34)]], tyre * 3, 0.02)
    pen.fill([(-0.54, 0.34), (-0.05, 0.3), (0.4, 0.85), (-0.2, 0.8)], None)
    pen.stroke([(-0.54, 0.34), (-0.05, 0.3), (0.38, 0.8), (-0.18, 0.78), (-0.54, 0.34)], color, 0.1)
    pen.stroke([[(-0.05, 0.3), (-0.22, 0.92)], [(0.54, 0.34), (0.36, 1.02)]], color, 0.1)
    pen.stroke([[(-0.38, 0.94), (-0.1, 0.94)], [(0.3, 1.05), (0.5, 1.02)]], DARK, 0.09)


def _motorcycle(pen: Pen, rng: Generator) -> None:
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


def _rider(pen: Pen, rng: Generator, *, seat: np.ndarray, grip: np.ndarray) -> None:
    shirt, trousers, helmet = _high_visibility(rng), paint(rng) * 0.6, _high_visibility(rng)
    pen = pen.moved(seat[0] * pen.right + seat[1] * pen.up)  # relative to the seat from here on
    u, v = grip - seat
    pen.stroke([(0, 0), (0.42, -0.12), (0.22, -0.58), (0.38, -0.58)], trousers, 0.17)
    pen.fill([(-0.17, 0), (0.14, -0.06), (0.46, 0.55), (0.2, 0.63)], shirt)
    pen.stroke([(0.32, 0.55), (0.16 + u / 2, 0.2 + v / 2), (u, v)], shirt * 0.75, 0.12)
    pen.disc(0.42, 0.79, 0.14, _skin(rng), ratio=1.15)
    pen.fill(circle(0.42, 0.81, 0.17)[:9], helmet)


def _skin(rng: Generator) -> np.ndarray:
    return rng.uniform(0.4, 1.0) * np.array([235, 190, 160])


def _high_visibility(rng: Generator) -> np.ndarray:
    """Sample the colour of a rider's clothes: mostly orange to lime."""
    if rng.random() < 0.15:
        return paint(rng)
    return hsv(rng.uniform(0.04, 0.24), rng.uniform(0.75, 0.95), rng.uniform(0.8, 1.0))
