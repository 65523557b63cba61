"""How things are placed: in which order they are drawn, and on which spots they do not hide each other."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from demo.streets.canvas import Camera, Canvas

ON_GROUND, ON_PLOT, ON_STREET = range(3)  # what stands on the street hides what stands on the plots beside it


class Thing(NamedTuple):
    """Something to be drawn, layer by layer and from far to near."""

    layer: int
    distance: float  # metres
    draw: Callable[[Canvas, np.random.Generator], None]


@dataclass(frozen=True)
class Spot:
    """A place on the ground: x ± width / 2, z to z + depth, in metres."""

    x: float
    z: float
    width: float
    depth: float

    def span(self, camera: Camera) -> tuple[float, float]:
        """Return the columns between which the spot appears, in pixels."""
        ends = [(self.x + side * self.width / 2) / (self.z + d) for side in (-1, 1) for d in (0, self.depth)]
        return camera.center + camera.focal * min(ends), camera.center + camera.focal * max(ends)


def choose(canvas: Canvas, taken: list[Spot], proposals: list[Spot]) -> Spot:
    """Take, and return, the proposal that hides least, is hidden least and lies within the picture."""
    width, spans = canvas.image.shape[1], [(other, *other.span(canvas.camera)) for other in taken]

    def trouble(spot: Spot) -> float:
        low, high = spot.span(canvas.camera)
        outside = 1 - max(0, min(high, width) - max(low, 0)) / (high - low)
        covered = 1.5 * outside
        for other, a, b in spans:
            shared = max(0, min(high, b) - max(low, a)) / min(high - low, b - a)
            apart = max(other.z - spot.z - spot.depth, spot.z - other.z - other.depth)
            covered += shared * (1 if apart > 0 else 4)  # never one within the other
        return covered

    best = min(proposals, key=trouble)
    taken.append(best)
    return best
