"""Street furniture: lamp posts, traffic signs, traffic lights and clutter."""

import numpy as np
from numpy.random import Generator

from demo.streets.canvas import DARK, Canvas, Pen, circle, paint


def lamp_post(canvas: Canvas, rng: Generator, *, x: float, z: float) -> None:
    """Draw a street lamp at (x, z) with its arm over the road."""
    width, height, reach = rng.uniform(0.3, 0.46), rng.uniform(4.5, 7), -np.sign(x) * rng.uniform(0.8, 1.8)
    pen = _pole(canvas, rng, x=x, z=z, height=height, width=width)
    pen.stroke([(0, height - 0.1), (reach, height + 0.2)], DARK * 2, 0.12)
    pen.disc(reach, height + 0.15, 0.3, DARK * 3, ratio=0.4)


def traffic_sign(canvas: Canvas, rng: Generator, *, x: float, z: float) -> None:
    """Draw one or two signs on a pole at (x, z): disc, triangle, square or board."""
    v = rng.uniform(2.0, 2.5)
    pen = _pole(canvas, rng, x=x, z=z, height=v + 0.6, width=rng.uniform(0.18, 0.26)).named("traffic sign")
    for _ in range(rng.integers(1, 3)):
        _sign(pen, rng, v=v, size=rng.uniform(0.38, 0.5))
        v += 0.95


def _sign(pen: Pen, rng: Generator, *, v: float, size: float) -> None:
    red, blue, white = np.array([[190, 25, 30], [25, 70, 170], [235, 235, 230]]) * rng.uniform(0.8, 1.0)
    shape = rng.integers(4)
    if shape == 3:
        ground = (blue, white, np.array([225, 190, 30]), np.array([20, 110, 60]))[rng.integers(4)]
        pen.box(-1.6 * size, v - size * 0.7, 1.6 * size, v + size * 0.7, ground)
        ink = white if ground.mean() < 150 else DARK
        for d in (-0.12, 0.12):
            pen.stroke([(-1.2 * size, v + d), (rng.uniform(0, 1.2) * size, v + d)], ink, 0.08)
        return
    triangle = np.array([(-1.1, -0.8), (1.1, -0.8), (0, 1.1)])
    corners = (circle(0, 0, 1), triangle, circle(0, 0, 1.25)[2::4])[shape]
    rim, inner = [(red, white), (blue, blue * 1.2), (white, blue), (red, red * 1.1)][rng.integers(4)]
    pen.fill(corners * size + (0, v), rim)
    pen.fill(corners * size * 0.72 + (0, v), inner)
    ink = DARK if inner.mean() > 150 else white
    pen.box(-size * 0.12, v - size * 0.35, size * 0.12, v + size * 0.35, ink)


def traffic_light(canvas: Canvas, rng: Generator, *, x: float, z: float) -> None:
    """Draw a traffic light on a pole at (x, z), sometimes with a second one on an arm over the road."""
    v, reach = rng.uniform(2.2, 2.6), -np.sign(x) * rng.uniform(1.5, 2.5)
    pen = _pole(canvas, rng, x=x, z=z, height=v + 1.4, width=rng.uniform(0.22, 0.32))
    heads = [(0.0, v)]
    if rng.random() < 0.4:
        pen.stroke([(0, v + 1.3), (reach, v + 1.5)], DARK * 2.5, 0.12)
        heads.append((reach, v + 0.6))
    shell, lit = DARK * rng.uniform(0.7, 2), rng.integers(3)
    board = np.array([215, 180, 40]) if rng.random() < 0.2 else shell * 1.1
    pen = pen.named("traffic light")
    for u, low in heads:
        pen.box(u - 0.25, low - 0.05, u + 0.25, low + 1.2, board)
        pen.box(u - 0.2, low, u + 0.2, low + 1.15, shell)
        for i, color in enumerate(np.array([(40, 230, 130), (250, 190, 40), (250, 50, 40)])):
            pen.disc(u, low + 0.2 + 0.375 * i, 0.15, color if i == lit else color * 0.25)


def _pole(canvas: Canvas, rng: Generator, *, x: float, z: float, height: float, width: float) -> Pen:
    """Draw a pole; return its pen for what hangs on it."""
    pen, color = canvas.pen("pole", x=x, z=z), paint(rng) * 0.15 + rng.uniform(25, 70)
    canvas.shadow(x, z, width=width, depth=0.2)
    pen.box(-width / 2, 0, width / 2, height, color)
    pen.box(width / 6, 0, width / 2, height, color * 0.7)  # its dark side
    pen.box(-width * 0.8, 0, width * 0.8, 0.3, color * 0.8)
    return pen


def clutter(canvas: Canvas, rng: Generator, *, x: float, z: float) -> None:
    """Draw a bin or bag, of the ignored classes static or dynamic."""
    pen, color = canvas.pen(("static", "dynamic")[rng.integers(2)], x=x, z=z), paint(rng)
    canvas.shadow(x, z, width=0.7, depth=0.5)
    pen.fill([(-0.28, 0), (0.28, 0), (0.36, 0.95), (-0.36, 0.95)], color)
    pen.box(-0.4, 0.85, 0.4, 1.0, color * 0.6)
