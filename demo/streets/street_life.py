"""What stands and moves on the road and the pavements."""

from collections.abc import Callable
from functools import partial

import numpy as np

from demo.streets.canvas import Canvas
from demo.streets.furniture import clutter, lamp_post, traffic_light, traffic_sign
from demo.streets.ground import rails
from demo.streets.people import person
from demo.streets.placement import ON_GROUND, ON_STREET, Spot, Thing, choose
from demo.streets.plants import tree
from demo.streets.two_wheelers import two_wheeler
from demo.streets.vehicles import VEHICLES, vehicle


def street_life(canvas: Canvas, rng: np.random.Generator, edges: tuple[float, float]) -> list[Thing]:
    """Choose and place what stands on the road and the pavements."""
    found: list[Thing] = []
    taken: list[Spot] = []
    vehicles = [("train", 0.55), ("bus", 0.55), ("truck", 0.6), ("car", 1), ("car", 0.6)]
    for name, chance in vehicles:
        if rng.random() < chance:
            found += _add_vehicle(canvas, rng, taken, name=name, edges=edges)
    small = [("motorcycle", 0.6), ("bicycle", 0.65), ("bicycle", 0.3), ("clutter", 0.25)]
    small += [("person", chance) for chance in (1, 0.6, 0.4)]
    for name, chance in small:
        if rng.random() < chance:
            found.append(_add_small(canvas, rng, taken, name=name, edges=edges))
    upright = [(traffic_sign, 0.8), (traffic_sign, 0.5), (traffic_light, 0.8)]
    upright += [(traffic_light, 0.3), (lamp_post, 0.8), (lamp_post, 0.5)]
    for draw, chance in [*upright, (tree, 0.5), (tree, 0.3)]:
        if rng.random() < chance:
            found.append(_add_upright(canvas, rng, taken, draw=draw, edges=edges))
    return found


def _add_vehicle(
    canvas: Canvas, rng: np.random.Generator, taken: list[Spot], *, name: str, edges: tuple[float, float]
) -> list[Thing]:
    breadth = VEHICLES[name].width
    length, crossing = rng.uniform(*VEHICLES[name].lengths), rng.random() < 0.3
    near, far = (6.5, 18) if name == "car" else (12, 20) if crossing else (8, 16)
    left, right = edges
    lanes = (left + breadth / 2 + 0.2, left * 0.5, 0.3, right - breadth / 2 - 0.2)
    proposals = []
    for _ in range(12):
        z = rng.uniform(near, far)
        x = rng.uniform(left, right) if crossing else rng.choice(lanes) + rng.uniform(-0.3, 0.3)
        if not crossing and abs(x) < 1.5:
            z += 5  # keep our distance in our own lane
        proposals.append(Spot(x, z, *((length, breadth) if crossing else (breadth, length))))
    spot = choose(canvas, taken, proposals)
    draw = partial(vehicle, name=name, x=spot.x, z=spot.z, length=length, crossing=crossing)
    if name != "train":
        return [Thing(ON_STREET, spot.z, draw)]
    track = partial(rails, x=spot.x, z=spot.z, crossing=edges if crossing else None)
    return [Thing(ON_GROUND, spot.z, track), Thing(ON_STREET, spot.z, draw)]


def _add_small(
    canvas: Canvas, rng: np.random.Generator, taken: list[Spot], *, name: str, edges: tuple[float, float]
) -> Thing:
    proposals = []
    for _ in range(12):
        z = rng.uniform(4.5, 8)
        on_pavement = rng.choice(edges) + rng.uniform(-1.5, 1.5)
        x = on_pavement if rng.random() < 0.6 else rng.uniform(*edges)
        proposals.append(Spot(x, z, 0.8 if name in ("person", "clutter") else 1.9, 0.4))
    spot = choose(canvas, taken, proposals)
    if name == "person":
        return Thing(ON_STREET, spot.z, partial(person, x=spot.x, z=spot.z))
    if name == "clutter":
        return Thing(ON_STREET, spot.z, partial(clutter, x=spot.x, z=spot.z))
    draw = partial(two_wheeler, name=name, x=spot.x, z=spot.z, ridden=bool(rng.random() < 0.8))
    return Thing(ON_STREET, spot.z, draw)


def _add_upright(
    canvas: Canvas, rng: np.random.Generator, taken: list[Spot], *, draw: Callable, edges: tuple[float, float]
) -> Thing:
    near, far = (12, 30) if draw is tree else (5, 10)
    proposals = []
    for _ in range(6):
        for side, edge in zip((-1, 1), edges, strict=True):
            proposals.append(Spot(edge + side * rng.uniform(0.3, 1.6), rng.uniform(near, far), 0.9, 0.3))
    spot = choose(canvas, taken, proposals)
    return Thing(ON_STREET, spot.z, partial(draw, x=spot.x, z=spot.z))
