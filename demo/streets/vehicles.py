"""Cars, trucks, buses and trains, each drawn as one side and one end, and rails."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from demo.streets.canvas import DARK, Canvas, Pen, X, Y, Z, glass, grid, paint


class Kind(NamedTuple):
    """How a kind of vehicle is drawn, and its size in metres."""

    side: Callable[["Faces", Generator], None]
    end: Callable[["Faces", Generator], None]
    lengths: tuple[float, float]  # smallest and largest
    width: float


def vehicle(canvas: Canvas, rng: Generator, name: str, *, x: float, z: float, length: float, crossing: bool) -> None:
    """Draw a vehicle of class `name` along or across the street, centred at x, with its nearest face at z."""
    kind, width = VEHICLES[name], VEHICLES[name].width
    canvas.shadow(x, z, width=length if crossing else width, depth=width if crossing else length)
    at = Faces(canvas.pen(name), rng, x=x, z=z, length=length, width=width, crossing=crossing)
    for draw in (kind.end, kind.side) if crossing else (kind.side, kind.end):  # the nearer face last
        draw(at, rng)


class Faces:
    """The visible faces of a vehicle: a side, with its front at u = 0, and an end, one of which faces the camera."""

    def __init__(
        self, pen: Pen, rng: Generator, *, x: float, z: float, length: float, width: float, crossing: bool
    ) -> None:
        self.length, self.width = length, width
        self.crossing = crossing  # the side faces the camera, not the end
        self.front = bool(rng.random() < 0.5)  # the end is the front
        toward = -1.0 if x > 0 else 1.0  # the direction of the image centre, from which the vehicle is seen
        if crossing:
            ahead = X * toward if self.front else -X * toward
            self.side = replace(pen, origin=np.array([x, 0, z]) + ahead * length / 2, right=-ahead)
            self.end = replace(pen, origin=np.array([x + toward * length / 2, 0, z]), right=Z)
        else:
            origin = np.array([x + toward * width / 2, 0, z if self.front else z + length])
            self.side = replace(pen, origin=origin, right=Z if self.front else -Z)
            self.end = replace(pen, origin=np.array([x - width / 2, 0, z]))
        self.inward = -X * toward if crossing else Z  # from the end into the vehicle
        self.color, self.second, self.glass = paint(rng), paint(rng), glass(rng)  # second: stripe, cab


def rails(canvas: Canvas, rng: Generator, *, x: float, z: float, crossing: tuple[float, float] | None) -> None:
    """Draw the rails of a train at (x, z) along the street, or across it between the ends `crossing`."""
    pen = canvas.pen("road", up=Z)  # as embedded in the road, they are labelled road
    color = np.full(3, rng.uniform(110, 190))
    for gauge in (-0.7, 0.7):
        if crossing:
            pen.stroke([(end, z + 1.3 + gauge) for end in crossing], color, 0.08)
        else:
            pen.stroke([(x + gauge, 2.5), (x + gauge, 80)], color, 0.08)


def _wheels(at: Faces, *us: float, radius: float) -> None:
    for u in us:
        at.side.disc(u, radius, radius * 1.2, DARK)
        at.side.disc(u, radius, radius * 0.55, DARK * 4.5)


def _tyres(at: Faces, *, inset: float) -> None:
    for u in (inset, at.width - inset - 0.35):
        at.end.box(u, 0.02, u + 0.35, 0.6, DARK)


def _lamps(at: Faces, rng: Generator, *, height: float) -> None:
    color = (np.array([245, 240, 215]) if at.front else np.array([190, 25, 25])) * rng.uniform(0.75, 1.05)
    for u in (0.06, at.width - 0.4):
        at.end.box(u, height, u + 0.34, height + 0.16, color)


def _car_side(at: Faces, rng: Generator) -> None:
    k, tail = at.length / 4.2, rng.choice([3.5, 3.95])  # saloon or estate
    body = [(0, 0.3), (0, 0.86), (1.0, 0.95), (1.65, 1.45), (tail - 0.3, 1.47), (4.15, 0.95), (4.2, 0.3)]
    front_pane = [(1.3, 0.97), (1.75, 1.38), (2.4, 1.38), (2.4, 0.97)]
    rear_pane = [(2.5, 0.97), (2.5, 1.38), (tail - 0.35, 1.38), (3.7, 0.97)]
    at.side.fill(np.array(body) * (k, 1), at.color * 0.85)
    at.side.fill(np.array([front_pane, rear_pane]) * (k, 1), at.glass)
    at.side.stroke([(2.45 * k, 0.35), (2.45 * k, 0.95)], at.color * 0.6, 0.03)
    _wheels(at, 0.8 * k, 3.4 * k, radius=0.33)


def _car_end(at: Faces, rng: Generator) -> None:
    w = at.width
    if not at.crossing:  # otherwise the side shows the cabin
        bonnet = 1.2 if at.front else 0.4
        at.end.moved(at.inward * (bonnet + 0.4)).box(0, 0.85, w, 1.45, at.color * 0.9)
        replace(at.end.moved(Y * 0.9), up=at.inward).box(0, 0, w, bonnet, at.color * 1.1)
        cabin = at.end.moved(at.inward * bonnet)
        cabin.fill([(0.08, 0.85), (w - 0.08, 0.85), (w - 0.28, 1.47), (0.28, 1.47)], at.color)
        cabin.fill([(0.2, 0.92), (w - 0.2, 0.92), (w - 0.36, 1.38), (0.36, 1.38)], at.glass)
    _tyres(at, inset=0.08)
    at.end.fill([(0, 0.25), (w, 0.25), (w, 0.88), (w - 0.06, 0.92), (0.06, 0.92), (0, 0.88)], at.color)
    at.end.box(0, 0.22, w, 0.4, at.color * 0.5)
    at.end.box(w / 2 - 0.26, 0.42, w / 2 + 0.26, 0.54, (230, 230, 225))
    _lamps(at, rng, height=0.7)


def _truck_side(at: Faces, rng: Generator) -> None:
    top = at.length * 0.2 + 1.9  # 3.2 to 3.6 m
    at.side.box(0.4, 0.55, at.length, 0.95, DARK * 1.5)
    at.side.box(2.3, 0.95, at.length, top, at.color * 0.85, grain=3)
    ribs = np.arange(2.5, at.length, rng.uniform(0.3, 0.7))
    at.side.stroke([[(u, 0.95), (u, top)] for u in ribs], at.color * 0.65, 0.04)
    at.side.fill([(0, 0.5), (0, 1.6), (0.35, 2.6), (2.0, 2.6), (2.0, 0.5)], at.second * 0.85)
    at.side.fill([(0.2, 1.55), (0.5, 2.4), (1.4, 2.4), (1.4, 1.55)], at.glass)
    _wheels(at, 1.0, at.length - 2.2, at.length - 1.1, radius=0.48)


def _truck_end(at: Faces, rng: Generator) -> None:
    w, top = at.width, at.length * 0.2 + 1.9
    _tyres(at, inset=0.15)
    if at.front:
        if not at.crossing:
            at.end.moved(at.inward * 2.3).box(0, 0.95, w, top, at.color)
        at.end.box(0, 0.4, w, 2.6, at.second)
        at.end.box(0.15, 1.5, w - 0.15, 2.35, at.glass)
        at.end.box(0.5, 0.75, w - 0.5, 1.3, DARK * 1.3)
    else:
        at.end.box(0, 0.55, w, 0.95, DARK * 1.5)
        at.end.box(0, 0.95, w, top, at.color)
        at.end.stroke([[(u, 0.95), (u, top)] for u in (0.06, w / 2, w - 0.06)], at.color * 0.55, 0.06)
        at.end.stroke([[(0.06, v), (w - 0.06, v)] for v in (1.0, top - 0.05)], at.color * 0.55, 0.06)
    _lamps(at, rng, height=0.65)


def _bus_side(at: Faces, rng: Generator) -> None:
    at.side.box(0, 0.3, at.length, 3.05, at.color * 0.85)
    at.side.box(0, 0.75, at.length, 1.1, at.second * 0.85)
    at.side.fill(grid(np.arange(0.3, at.length - 1.2, 1.45), [1.35], width=1.3, height=1.1), at.glass)
    at.side.fill(grid([0.35, at.length * 0.55], [0.4], width=1.1, height=2.05), at.glass * 0.8)
    _wheels(at, 2.3, at.length - 2.7, radius=0.48)


def _bus_end(at: Faces, rng: Generator) -> None:
    w = at.width
    _tyres(at, inset=0.1)
    at.end.box(0, 0.3, w, 3.05, at.color)
    at.end.box(0, 0.5, w, 0.75, at.second)
    at.end.box(0.12, 1.0 if at.front else 1.6, w - 0.12, 2.45, at.glass)
    if at.front:
        at.end.stroke([(w / 2, 1.0), (w / 2, 2.45)], at.color * 0.5, 0.05)
    else:
        at.end.stroke([[(0.4, v), (w - 0.4, v)] for v in (0.95, 1.1, 1.25)], DARK, 0.06)
    at.end.box(0.3, 2.55, w - 0.3, 2.95, DARK)
    at.end.box(0.6, 2.65, w - 0.9, 2.85, (250, 170, 40))  # destination
    _lamps(at, rng, height=0.62)


def _train_side(at: Faces, rng: Generator) -> None:
    at.side.box(0, 0.4, at.length, 3.4, at.color * 0.85)
    at.side.box(0.2, 0.08, at.length - 0.2, 0.5, DARK * 1.6)  # skirt
    at.side.box(0.6, 1.6, at.length - 0.2, 2.75, at.glass * 0.7)
    at.side.box(0.1, 1.05, at.length, 1.4, at.second)
    at.side.box(0.2, 3.1, at.length, 3.4, DARK * 3)
    for u in np.arange(8.0, at.length - 2, 8.0):
        at.side.box(u - 0.3, 0.3, u + 0.3, 3.3, DARK * 1.2)
        at.side.box(u - 4.5, 0.45, u - 3.3, 2.75, at.second * 0.7)
    if at.crossing:
        at.side.stroke([(4.0, 3.4), (5.2, 4.1), (4.2, 4.7), (5.6, 4.7)], DARK, 0.1)


def _train_end(at: Faces, rng: Generator) -> None:
    w, top = at.width, 3.4
    if not at.crossing:
        pantograph = [(w / 2 + u, top + v) for u, v in ((0, 0), (-0.7, 0.6), (0.7, 1.0), (-0.7, 1.0))]
        at.end.moved(at.inward * 2).stroke(pantograph, DARK, 0.08)
    at.end.fill([(0, 0.1), (w, 0.1), (w, 2.7), (w - 0.3, top), (0.3, top), (0, 2.7)], at.color)
    at.end.box(0.05, 0.08, w - 0.05, 0.5, DARK * 1.6)
    at.end.fill([(0.15, 1.5), (w - 0.15, 1.5), (w - 0.4, 2.8), (0.4, 2.8)], at.glass * 0.7)
    at.end.box(0.05, 1.05, w - 0.05, 1.4, at.second)
    at.end.box(0.7, 2.9, w - 0.7, 3.25, DARK)
    at.end.box(0.85, 2.97, w - 1.2, 3.18, (250, 190, 60))
    at.end.disc(w / 2, 0.8, 0.16, (250, 245, 220) if at.front else (200, 30, 30))
    _lamps(at, rng, height=0.8)


VEHICLES = {
    "car": Kind(_car_side, _car_end, lengths=(3.8, 4.6), width=1.8),
    "truck": Kind(_truck_side, _truck_end, lengths=(6.5, 8.5), width=2.4),
    "bus": Kind(_bus_side, _bus_end, lengths=(9.5, 12.0), width=2.5),
    "train": Kind(_train_side, _train_end, lengths=(18.0, 27.0), width=2.6),
}
