"""Plots beside the street: houses, trees, walls, fences and hedges."""

from functools import partial

import numpy as np
from numpy.random import Generator

from demo.streets.canvas import ON_PLOT, Canvas, Pen, Thing, X, Z, circle, glass, grid, leaves, paint


def roadsides(rng: Generator, lines: tuple[float, float]) -> list[Thing]:
    """Fill the plots beyond `lines`, left and right: houses, trees or nothing, perhaps behind a border."""
    found: list[Thing] = []
    for side, line in zip((-1, 1), lines, strict=True):
        z, border = 75.0, "none"
        while z > 5:
            length = min(rng.uniform(7, 14), z - 2.5)
            z -= length
            if rng.random() < 0.5:  # otherwise that of the neighbouring plot
                border = rng.choice(["wall", "fence", "hedge", "none"], p=[0.3, 0.4, 0.05, 0.25])
            setback = side * (rng.uniform(0.2, 1.5) + (border != "none") * rng.uniform(1, 4))
            plot = rng.choice(["house", "trees", "empty"], p=[0.62, 0.22, 0.16])
            if plot == "house":
                draw = partial(_house, x=line + setback, z=z, length=length, height=rng.uniform(5, 16))
                found.append(Thing(ON_PLOT, z + 0.2, draw))
            elif plot == "trees":
                for d in (z + 2, z + length - 2):
                    found.append(Thing(ON_PLOT, d, partial(tree, x=line + setback * 2, z=d)))
            if border != "none":
                draw = partial(_border, kind=border, x=line, z=z, length=length, side=side)
                found.append(Thing(ON_PLOT, z + 0.1, draw))
    return found


def street_end(canvas: Canvas, rng: Generator) -> None:
    """Draw houses and trees 85 m ahead, where the street ends."""
    for x in range(-90, 90, 9):
        if rng.random() < 0.5:
            color = paint(rng) * 0.5 + 60
            pen, height = canvas.pen("building", x=x, z=85), rng.uniform(4, 15)
            pen.box(0, 0, 9, height, color)
            us, vs = np.arange(0.8, 8, 2.2), np.arange(1, height - 2, 3)
            pen.fill(grid(us, vs, width=1.1, height=1.6), color * 0.6)
        else:
            _foliage(canvas.pen("vegetation", x=x, z=84), rng, low=-1, high=rng.uniform(4, 11), radius=6)


def _house(canvas: Canvas, rng: Generator, *, x: float, z: float, length: float, height: float) -> None:
    """Draw a house whose side runs from z to z + length at x, and whose front faces the camera at z."""
    color, width = paint(rng) * 0.5 + rng.uniform(40, 110), 12.0
    pane, frame = glass(rng), color * rng.uniform(0.6, 1.25)
    step, shop = rng.uniform(1.8, 3.2), rng.random() < 0.5

    def facade(pen: Pen, length: float, wall: np.ndarray) -> None:
        pen.box(0, 0, length, height, wall, grain=7)
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

    facade(canvas.pen("building", x=x, z=z, right=X if x > 0 else -X), width, color * 0.85)
    facade(canvas.pen("building", x=x, z=z, right=Z), length, color)


def _border(canvas: Canvas, rng: Generator, *, kind: str, x: float, z: float, length: float, side: int) -> None:
    """Enclose a plot from z to z + length at x, across its near end and along the street."""
    draw = {"wall": _wall, "fence": _fence, "hedge": _hedge}[kind]
    name, height = "vegetation" if kind == "hedge" else kind, rng.uniform(1.3, 2.4)
    state = rng.bit_generator.state  # the same colours on both faces
    draw(canvas.pen(name, x=x, z=z, right=X * side), rng, length=12.0, height=height)
    rng.bit_generator.state = state
    draw(canvas.pen(name, x=x, z=z, right=Z), rng, length=length, height=height)


def _wall(pen: Pen, rng: Generator, *, length: float, height: float) -> None:
    color = paint(rng) * 0.3 + rng.uniform(0.6, 1.2) * np.array([150, 85, 60])
    course = rng.uniform(0.3, 0.5)
    pen.box(0, 0, length, height, color, grain=10)
    rows = np.arange(0, height, course)
    pen.stroke([[(0, v), (length, v)] for v in rows], color * 0.6, 0.06)
    for i, v in enumerate(rows[:-1]):
        joints = np.arange(i % 2 * course, length, 2 * course)
        pen.stroke([[(u, v), (u, v + course)] for u in joints], color * 0.6, 0.06)
    pen.box(0, height - 0.1, length, height + 0.05, color * 1.25)


def _fence(pen: Pen, rng: Generator, *, length: float, height: float) -> None:
    """Draw bars or a mesh on posts; the label covers the gaps, through which the background shows."""
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


def _hedge(pen: Pen, rng: Generator, *, length: float, height: float) -> None:
    color = leaves(rng)
    pen.box(0, 0, length, height * 0.7, color * 0.7, grain=24)
    for u in np.arange(length, 0, -1.1):
        _foliage(pen.moved(u * pen.right), rng, low=-0.1, high=height, radius=0.85)


def tree(canvas: Canvas, rng: Generator, *, x: float, z: float) -> None:
    """Draw a tree at (x, z); the trunk is vegetation too, as in Cityscapes."""
    pen, stem, radius = canvas.pen("vegetation", x=x, z=z), rng.uniform(1.8, 2.8), rng.uniform(1.2, 2.2)
    canvas.shadow(x, z, width=radius, depth=radius)
    bark = rng.uniform(40, 90) * np.array([1.1, 0.95, 0.8])
    pen.fill([(-0.16, 0), (0.16, 0), (0.1, stem + 1), (-0.1, stem + 1)], bark)
    _foliage(pen, rng, low=stem, high=stem + 2 * radius, radius=radius)


def _foliage(pen: Pen, rng: Generator, *, low: float, high: float, radius: float) -> None:
    """Draw leaves between two heights, up to `radius` metres to either side."""
    color = leaves(rng)
    for share in np.linspace(0, 1, 12):  # brighter towards the top
        spread = radius * (1 - 0.7 * abs(share - 0.4))
        u, v = rng.uniform(-spread, spread), low + (high - low) * (share * 0.7 + 0.15)
        blob = circle(u, v, radius * rng.uniform(0.3, 0.5)) + rng.uniform(-0.06, 0.06, (16, 2)) * radius
        pen.fill(blob, color * (0.6 + 0.6 * share) * rng.uniform(0.85, 1.15), grain=26)
