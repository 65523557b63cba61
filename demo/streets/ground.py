"""What lies flat: the road with its markings and rails, pavements, grass."""

import numpy as np

from demo.streets.canvas import Canvas, Pen, Z
from demo.streets.colors import leaves, paint


def lay_ground(canvas: Canvas, rng: np.random.Generator, edges: tuple[float, float]) -> tuple[float, float]:
    """Lay road, pavements and grass; return where the plots begin, left and right, in metres."""
    far, lines = 300.0, []
    for side, edge in zip((-1, 1), edges, strict=True):
        x = edge
        verge, walk = rng.uniform(1.2, 2.4) * (rng.random() < 0.5), rng.uniform(2.2, 4.0)
        grass, plot = rng.uniform(2.0, 5.0) * (rng.random() < 0.55), ("terrain", "sidewalk")[rng.integers(2)]
        for name, breadth in (("terrain", verge), ("sidewalk", walk), ("terrain", grass), (plot, 200.0)):
            if breadth:
                _strip(canvas, rng, name, x, x + side * breadth, far)
            x += side * breadth
        lines.append(x - side * 200.0)
    _road(canvas, rng, edges, far)
    _haze(canvas)
    return lines[0], lines[1]


def _haze(canvas: Canvas) -> None:
    camera = canvas.camera
    below = np.maximum(np.arange(len(canvas.image)) - camera.horizon, 0.0)[:, None, None]
    clear = np.exp(-canvas.haze * camera.focal * camera.eye / np.maximum(below, 1))
    hazy = clear * canvas.image + (1 - clear) * canvas.haze_color
    np.copyto(canvas.image, hazy.astype(np.uint8), where=below > 0)


def _strip(canvas: Canvas, rng: np.random.Generator, name: str, x0: float, x1: float, far: float) -> None:
    pen = canvas.pen(name, up=Z)
    color = (
        leaves(rng) * 0.5 + (70, 75, 25)
        if name == "terrain"
        else paint(rng) * 0.15 + rng.uniform(0.65, 1.0) * np.array([180, 155, 130])
    )
    pen.box(x0, 0.6, x1, far, color, grain=20 if name == "terrain" else 8)
    if name == "sidewalk":
        low, high = max(min(x0, x1), -25.0), min(max(x0, x1), 25.0)
        pen.stroke([[(x, 2.5), (x, 60)] for x in np.arange(low, high, 0.75)], color * 0.75, 0.05)
        pen.stroke([[(low, z), (high, z)] for z in np.arange(3, 25, 0.75)], color * 0.75, 0.05)


def _road(canvas: Canvas, rng: np.random.Generator, edges: tuple[float, float], far: float) -> None:
    pen, (left, right), tone = canvas.pen("road", up=Z), edges, rng.uniform(45, 100) + rng.uniform(-6, 6, 3)
    for edge in edges:  # the kerb belongs to the pavement
        canvas.pen("sidewalk", up=Z).box(edge - 0.16, 0.6, edge + 0.16, far, tone * 0.4 + (110, 100, 85))
    pen.box(left + 0.08, 0.6, right - 0.08, far, tone, grain=8)
    for _ in range(rng.integers(0, 4)):  # mended asphalt
        x, z = rng.uniform(left + 1, right - 2), rng.uniform(4, 18)
        patch = tone * rng.uniform(0.75, 1.1)
        pen.box(x, z, x + rng.uniform(0.5, 1.0), z + rng.uniform(1, 8), patch, grain=8)
    _markings(pen, rng, edges, far)


def _markings(pen: Pen, rng: np.random.Generator, edges: tuple[float, float], far: float) -> None:
    (left, right), white = edges, np.full(3, rng.uniform(170, 240))
    lane = right - rng.uniform(2.8, 3.4) if rng.random() < 0.7 else (left + right) / 2
    for z in np.arange(rng.uniform(2, 5), 60, rng.choice([4.0, 6.0, 8.0])):
        pen.box(lane - 0.08, z, lane + 0.08, z + 2.5, white)
    if rng.random() < 0.5:
        pen.box(right - 0.45, 0.6, right - 0.33, far, white)
    if rng.random() < 0.3:  # zebra crossing
        z = rng.uniform(5, 16)
        for x in np.arange(left + 0.3, right - 0.6, 1.0):
            pen.box(x, z, x + 0.5, z + 3, white)


def rails(
    canvas: Canvas, rng: np.random.Generator, *, x: float, z: float, crossing: tuple[float, float] | None
) -> None:
    """Lay the rails of a train at (x, z), along the street or to the ends `crossing` across it."""
    pen = canvas.pen("road", up=Z)  # they are let into the road, and so labelled
    color = np.full(3, rng.uniform(110, 190))
    for gauge in (-0.7, 0.7):
        if crossing:
            pen.stroke([(end, z + 1.3 + gauge) for end in crossing], color, 0.08)
        else:
            pen.stroke([(x + gauge, 2.5), (x + gauge, 80)], color, 0.08)
