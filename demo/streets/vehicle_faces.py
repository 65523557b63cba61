"""The two faces of a vehicle that one sees, a side and an end, and what all vehicles have on them."""

from dataclasses import dataclass, replace

import numpy as np

from demo.streets.canvas import Pen, X, Z
from demo.streets.colors import DARK


@dataclass(frozen=True, kw_only=True)
class Faces:
    """What one sees of a vehicle: a side, with its front at u = 0, and one end; and the colours of both."""

    side: Pen
    end: Pen
    inward: np.ndarray  # from the end into the vehicle
    front: bool  # the end is the front
    crossing: bool  # the side faces the camera, not the end
    length: float
    width: float
    color: np.ndarray
    second: np.ndarray  # of a stripe, or of a lorry's cab
    glass: np.ndarray


def planes(pen: Pen, *, x: float, z: float, size: tuple[float, float], crossing: bool, front: bool) -> dict:
    """Return the fields of `Faces` that say where they are, for a vehicle of `size` (length, width) at (x, z)."""
    length, width = size
    toward = -1.0 if x > 0 else 1.0  # to the middle of the picture: the face on that side is the one we see
    if crossing:
        ahead = X * toward if front else -X * toward
        side = replace(pen, origin=np.array([x, 0, z]) + ahead * length / 2, right=-ahead)
        end, inward = replace(pen, origin=np.array([x + toward * length / 2, 0, z]), right=Z), -X * toward
    else:
        origin = np.array([x + toward * width / 2, 0, z if front else z + length])
        side = replace(pen, origin=origin, right=Z if front else -Z)
        end, inward = replace(pen, origin=np.array([x - width / 2, 0, z])), Z
    return {"side": side, "end": end, "inward": inward, "front": front, "crossing": crossing}


def wheels(at: Faces, *us: float, radius: float) -> None:
    """Put wheels on the side, `us` metres from the front."""
    for u in us:
        at.side.disc(u, radius, radius * 1.2, DARK)
        at.side.disc(u, radius, radius * 0.55, DARK * 4.5)


def tyres(at: Faces, *, inset: float) -> None:
    """Put the tyres below the end, `inset` metres from its corners."""
    for u in (inset, at.width - inset - 0.35):
        at.end.box(u, 0.02, u + 0.35, 0.6, DARK)


def lamps(at: Faces, rng: np.random.Generator, *, height: float) -> None:
    """Put two headlights on the end, or two tail lights."""
    color = (np.array([245, 240, 215]) if at.front else np.array([190, 25, 25])) * rng.uniform(0.75, 1.05)
    for u in (0.06, at.width - 0.4):
        at.end.box(u, height, u + 0.34, height + 0.16, color)
