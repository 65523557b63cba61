"""Placement of vehicles, people and street furniture on the road and the pavements."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from numpy.random import Generator

from demo.streets.canvas import ON_GROUND, ON_STREET, Canvas, Thing
from demo.streets.furniture import clutter, lamp_post, traffic_light, traffic_sign
from demo.streets.people import person, two_wheeler
from demo.streets.roadside import tree
from demo.streets.vehicles import VEHICLES, rails, vehicle


class Spot(NamedTuple):
    """An area on the ground: x ± width / 2, z to z + depth, in metres."""

    x: float
    z: float
    width: float
    depth: float

    def columns(self, canvas: Canvas) -> tuple[float, float]:
        """Return the image columns, in pixels, between which the spot lies."""
        ends = [(self.x + side * self.width / 2) / (self.z + d) for side in (-1, 1) for d in (0, self.depth)]
        return canvas.center + canvas.focal * min(ends), canvas.center + canvas.focal * max(ends)


def traffic(canvas: Canvas, rng: Generator, edges: tuple[float, float]) -> list[Thing]:
    """Choose and place objects on a road between `edges`, left and right, and on its pavements."""
    found: list[Thing] = []
    taken: list[Spot] = []
    for name, chance in (("train", 0.55), ("bus", 0.55), ("truck", 0.6), ("car", 1), ("car", 0.6)):
        if rng.random() < chance:
            found += _vehicle(canvas, rng, taken, name=name, edges=edges)
    small = [("motorcycle", 0.6), ("bicycle", 0.65), ("bicycle", 0.3), ("clutter", 0.25)]
    for name, chance in [*small, ("person", 1), ("person", 0.6), ("person", 0.4)]:
        if rng.random() < chance:
            found.append(_small(canvas, rng, taken, name=name, edges=edges))
    upright = [(traffic_sign, 0.8), (traffic_sign, 0.5), (traffic_light, 0.8), (traffic_light, 0.3)]
    for draw, chance in [*upright, (lamp_post, 0.8), (lamp_post, 0.5), (tree, 0.5), (tree, 0.3)]:
        if rng.random() < chance:
            found.append(_upright(canvas, rng, taken, draw=draw, edges=edges))
    return found


def _vehicle(
    canvas: Canvas, rng: Generator, taken: list[Spot], *, name: str, edges: tuple[float, float]
) -> list[Thing]:
    width = VEHICLES[name].width
    length, crossing = rng.uniform(*VEHICLES[name].lengths), rng.random() < 0.3
    near, far = (6.5, 18) if name == "car" else (12, 20) if crossing else (8, 16)
    left, right = edges
    lanes = (left + width / 2 + 0.2, left * 0.5, 0.3, right - width / 2 - 0.2)
    proposals = []
    for _ in range(12):
        z = rng.uniform(near, far)
        x = rng.uniform(left, right) if crossing else rng.choice(lanes) + rng.uniform(-0.3, 0.3)
        if not crossing and abs(x) < 1.5:
            z += 5  # keep a distance in the camera's own lane
        proposals.append(Spot(x, z, *((length, width) if crossing else (width, length))))
    spot = _choose(canvas, taken, proposals)
    draw = partial(vehicle, name=name, x=spot.x, z=spot.z, length=length, crossing=crossing)
    if name != "train":
        return [Thing(ON_STREET, spot.z, draw)]
    track = partial(rails, x=spot.x, z=spot.z, crossing=edges if crossing else None)
    return [Thing(ON_GROUND, spot.z, track), Thing(ON_STREET, spot.z, draw)]


def _small(canvas: Canvas, rng: Generator, taken: list[Spot], *, name: str, edges: tuple[float, float]) -> Thing:
    proposals = []
    for _ in range(12):
        z = rng.uniform(4.5, 8)
        on_pavement = rng.choice(edges) + rng.uniform(-1.5, 1.5)
        x = on_pavement if rng.random() < 0.6 else rng.uniform(*edges)
        proposals.append(Spot(x, z, 0.8 if name in ("person", "clutter") else 1.9, 0.4))
    spot = _choose(canvas, taken, proposals)
    single = {"person": person, "clutter": clutter}.get(name)
    draw = single or partial(two_wheeler, name=name, ridden=bool(rng.random() < 0.8))
    return Thing(ON_STREET, spot.z, partial(draw, x=spot.x, z=spot.z))


def _upright(canvas: Canvas, rng: Generator, taken: list[Spot], *, draw: Callable, edges: tuple[float, float]) -> Thing:
    near, far = (12, 30) if draw is tree else (5, 10)
    proposals = []
    for _ in range(6):
        for side, edge in zip((-1, 1), edges, strict=True):
            proposals.append(Spot(edge + side * rng.uniform(0.3, 1.6), rng.uniform(near, far), 0.9, 0.3))
    spot = _choose(canvas, taken, proposals)
    return Thing(ON_STREET, spot.z, partial(draw, x=spot.x, z=spot.z))


def _choose(canvas: Canvas, taken: list[Spot], proposals: list[Spot]) -> Spot:
    """Take and return the proposal with the least occlusion, in either direction, and most within the image."""
    image_width, others = canvas.image.shape[1], [(other, *other.columns(canvas)) for other in taken]

    def cost(spot: Spot) -> float:
        low, high = spot.columns(canvas)
        total = 1.5 * (1 - max(0, min(high, image_width) - max(low, 0)) / (high - low))
        for other, a, b in others:
            shared = max(0, min(high, b) - max(low, a)) / min(high - low, b - a)
            gap = max(other.z - spot.z - spot.depth, spot.z - other.z - other.depth)
            total += shared * (1 if gap > 0 else 4)  # worst is to intersect
        return total

    best = min(proposals, key=cost)
    taken.append(best)
    return best
