"""What stands beside the street, and what closes the view at its end."""

from functools import partial

import numpy as np

from demo.streets.buildings import building, fence, wall
from demo.streets.canvas import Canvas, X, Z, grid
from demo.streets.colors import paint
from demo.streets.placement import ON_PLOT, Thing
from demo.streets.plants import foliage, hedge, tree


def roadsides(rng: np.random.Generator, lines: tuple[float, float]) -> list[Thing]:
    """Build on the plots beyond `lines`: houses, trees, walls, fences, hedges, and now and then nothing."""
    found: list[Thing] = []
    for side, line in zip((-1, 1), lines, strict=True):
        z, border = 75.0, "none"
        while z > 5:
            length = min(rng.uniform(7, 14), z - 2.5)
            z -= length
            if rng.random() < 0.5:  # else as at the neighbour's
                border = rng.choice(["wall", "fence", "hedge", "none"], p=[0.3, 0.4, 0.05, 0.25])
            setback = side * (rng.uniform(0.2, 1.5) + (border != "none") * rng.uniform(1, 4))
            plot = rng.choice(["house", "trees", "empty"], p=[0.62, 0.22, 0.16])
            if plot == "house":
                height = rng.uniform(5, 16)
                draw = partial(building, x=line + setback, z=z, length=length, height=height)
                found.append(Thing(ON_PLOT, z + 0.2, draw))
            elif plot == "trees":
                for d in (z + 2, z + length - 2):
                    found.append(Thing(ON_PLOT, d, partial(tree, x=line + setback * 2, z=d)))
            if border != "none":
                draw = partial(_border, kind=border, x=line, z=z, length=length, side=side)
                found.append(Thing(ON_PLOT, z + 0.1, draw))
    return found


def _border(
    canvas: Canvas, rng: np.random.Generator, *, kind: str, x: float, z: float, length: float, side: int
) -> None:
    """Enclose a plot from z to z + length at x: across, where it begins, and along the street."""
    draw = {"wall": wall, "fence": fence, "hedge": hedge}[kind]
    name, height = "vegetation" if kind == "hedge" else kind, rng.uniform(1.3, 2.4)
    state = rng.bit_generator.state  # the same colours on both faces
    draw(canvas.pen(name, x=x, z=z, right=X * side), rng, length=12.0, height=height)
    rng.bit_generator.state = state
    draw(canvas.pen(name, x=x, z=z, right=Z), rng, length=length, height=height)


def close_view(canvas: Canvas, rng: np.random.Generator) -> None:
    """Close the view, 85 m ahead, with houses and trees."""
    for x in range(-90, 90, 9):
        if rng.random() < 0.5:
            color = paint(rng) * 0.5 + 60
            pen, height = canvas.pen("building", x=x, z=85), rng.uniform(4, 15)
            pen.box(0, 0, 9, height, color)
            us, vs = np.arange(0.8, 8, 2.2), np.arange(1, height - 2, 3)
            pen.fill(grid(us, vs, width=1.1, height=1.6), color * 0.6)
        else:
            foliage(canvas.pen("vegetation", x=x, z=84), rng, low=-1, high=rng.uniform(4, 11), radius=6)
