"""What is built on the plots: houses, walls and fences."""

from functools import partial

import numpy as np

from demo.streets.canvas import Canvas, Pen, X, Z, grid
from demo.streets.colors import glass, paint


def building(canvas: Canvas, rng: np.random.Generator, *, x: float, z: float, length: float, height: float) -> None:
    """Build a house whose side runs from z to z + length at x, and whose front faces the camera at z."""
    color, width = paint(rng) * 0.5 + rng.uniform(40, 110), 12.0
    pane, frame = glass(rng), color * rng.uniform(0.6, 1.25)
    facade = partial(_facade, step=rng.uniform(1.8, 3.2), pane=pane, frame=frame, shop=rng.random() < 0.5)
    outward = X if x > 0 else -X
    facade(canvas.pen("building", x=x, z=z, right=outward), rng, color * 0.85, width, height)
    facade(canvas.pen("building", x=x, z=z, right=Z), rng, color, length, height)


def _facade(
    pen: Pen,
    rng: np.random.Generator,
    color: np.ndarray,
    length: float,
    height: float,
    *,
    step: float,
    pane: np.ndarray,
    frame: np.ndarray,
    shop: bool,
) -> None:
    pen.box(0, 0, length, height, color, grain=7)
    pen.box(0, height - 0.4, length, height, frame)
    us, vs = np.arange(0.5, length - 1.2, step), np.arange(3.6, height - 1.8, 2.9)
    if len(us) and len(vs):
        pen.fill(grid(us - 0.12, vs - 0.12, width=step * 0.55 + 0.24, height=1.74), frame)
        windows = grid(us, vs, width=step * 0.55, height=1.5)
        lit = rng.random(len(windows)) < 0.3
        for some, tint in ((windows[~lit], pane), (windows[lit], pane * 1.7 + 20)):
            if len(some):
                pen.fill(some, tint)
    if shop:
        pen.box(0.4, 0.5, length - 1.6, 2.5, pane * 0.8)
        pen.box(0.3, 2.6, length - 1.5, 3.2, paint(rng))
    pen.box(length - 1.4, 0, length - 0.4, 2.3, paint(rng) * 0.6)


def wall(pen: Pen, rng: np.random.Generator, *, length: float, height: float) -> None:
    """Build a solid wall of courses of blocks, with a coping."""
    color = paint(rng) * 0.3 + rng.uniform(0.6, 1.2) * np.array([150, 85, 60])
    course = rng.uniform(0.3, 0.5)
    pen.box(0, 0, length, height, color, grain=10)
    rows = np.arange(0, height, course)
    pen.stroke([[(0, v), (length, v)] for v in rows], color * 0.6, 0.06)
    for i, v in enumerate(rows[:-1]):
        joints = np.arange(i % 2 * course, length, 2 * course)
        pen.stroke([[(u, v), (u, v + course)] for u in joints], color * 0.6, 0.06)
    pen.box(0, height - 0.1, length, height + 0.05, color * 1.25)


def fence(pen: Pen, rng: np.random.Generator, *, length: float, height: float) -> None:
    """Put up bars or a mesh on posts; what is behind shows through, and the whole panel is fence."""
    color = np.array([(225, 220, 210), (60, 40, 30), (30, 75, 45)])[rng.integers(3)] + paint(rng) * 0.1
    pen.box(0, 0, length, height, None)
    step = rng.uniform(0.3, 0.45)
    if rng.random() < 0.3:  # mesh
        for u in np.arange(0, length - height, step):
            pen.stroke([[(u, 0), (u + height, height)], [(u + height, 0), (u, height)]], color, 0.05)
    else:
        pen.stroke([[(u, 0.1), (u, height)] for u in np.arange(0, length, step)], color, 0.14)
    pen.stroke([[(0, v), (length, v)] for v in (0.15, height * 0.95)], color, 0.14)
    pen.stroke([[(u, 0), (u, height)] for u in np.arange(0, length + 0.1, 2.5)], color * 0.8, 0.14)
