"""Trees, bushes and hedges."""

import numpy as np

from demo.streets.canvas import Canvas, Pen, circle
from demo.streets.colors import leaves


def foliage(pen: Pen, rng: np.random.Generator, *, low: float, high: float, radius: float) -> None:
    """Grow a crown or a bush of leaves between two heights, `radius` metres to either side."""
    color = leaves(rng)
    for share in np.linspace(0, 1, 12):  # dark below, light above, as the sky lights it
        spread = radius * (1 - 0.7 * abs(share - 0.4))
        u, v = rng.uniform(-spread, spread), low + (high - low) * (share * 0.7 + 0.15)
        blob = circle(u, v, radius * rng.uniform(0.3, 0.5)) + rng.uniform(-0.06, 0.06, (16, 2)) * radius
        pen.fill(blob, color * (0.6 + 0.6 * share) * rng.uniform(0.85, 1.15), grain=26)


def tree(canvas: Canvas, rng: np.random.Generator, *, x: float, z: float) -> None:
    """Plant a tree; the trunk is vegetation too, as in Cityscapes."""
    pen, stem, radius = canvas.pen("vegetation", x=x, z=z), rng.uniform(1.8, 2.8), rng.uniform(1.2, 2.2)
    canvas.shadow(x, z, width=radius, depth=radius)
    bark = rng.uniform(40, 90) * np.array([1.1, 0.95, 0.8])
    pen.fill([(-0.16, 0), (0.16, 0), (0.1, stem + 1), (-0.1, stem + 1)], bark)
    foliage(pen, rng, low=stem, high=stem + 2 * radius, radius=radius)


def hedge(pen: Pen, rng: np.random.Generator, *, length: float, height: float) -> None:
    """Plant a hedge."""
    color = leaves(rng)
    pen.box(0, 0, length, height * 0.7, color * 0.7, grain=24)
    for u in np.arange(length, 0, -1.1):
        foliage(pen.moved(u * pen.right), rng, low=-0.1, high=height, radius=0.85)
