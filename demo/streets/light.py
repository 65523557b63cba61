"""What the light does: the sky before anything stands below it, and the photograph when everything does."""

import cv2
import numpy as np

from demo.streets.canvas import Canvas


def paint_sky(canvas: Canvas, rng: np.random.Generator) -> None:
    """Fill the image with a sky that is clear, grey, white or of the evening, hazy below, with clouds."""
    height, width = canvas.image.shape[:2]
    top = np.array([[110, 160, 230], [190, 200, 215], [235, 235, 240], [235, 195, 175]])[rng.integers(4)]
    top = top * rng.uniform(0.65, 1.0)
    share = np.clip(np.arange(height) / canvas.camera.horizon, 0, 1)[:, None, None]
    clouds = 0.6 * _smooth(rng, (height, width), 8, wide=3) + 0.4 * _smooth(rng, (height, width), 20, wide=2)
    sky = (1 - share) * top + share * canvas.haze_color
    canvas.image[:] = np.clip(sky + np.clip(clouds + 0.1, 0, 1)[..., None] * rng.uniform(-40, 160), 0, 255)


def expose(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Take the photograph: texture, soft edges, colour and strength of the light, vignette, sensor noise."""
    height, width = canvas.image.shape[:2]
    fine = rng.standard_normal((height, width), dtype=np.float32)
    texture = 0.7 * cv2.GaussianBlur(fine, (0, 0), 0.9) * 1.8 + 0.5 * _smooth(rng, (height, width), 40)
    image = canvas.image * (1 + texture * canvas.marks[..., 2] / 100)[..., None].astype(np.float32)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.45, 0.75) * max(1.0, height / 512))
    warmth = rng.uniform(-0.12, 0.12)
    gain = rng.choice([rng.uniform(0.8, 1.2), rng.uniform(0.6, 0.8)], p=[0.9, 0.1])  # the second is dusk
    image = 128 + (image - 128) * rng.uniform(0.9, 1.15)
    image *= gain * np.array([1 + warmth, 1, 1 - warmth + 0.1 * (gain < 0.75)], dtype=np.float32)
    image *= (1 + 0.12 * _smooth(rng, (height, width), 3))[..., None]  # clouds pass
    ys, xs = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    image *= (1 - rng.uniform(0, 0.25) * (xs**2 + ys**2))[..., None].astype(np.float32)
    image += rng.standard_normal((height, width, 3), dtype=np.float32) * rng.uniform(0.5, 3)
    return np.clip(image, 0, 255).astype(np.uint8)


def _smooth(rng: np.random.Generator, shape: tuple[int, int], cells: int, *, wide: int = 1) -> np.ndarray:
    """Return a smooth random field (H, W) in about -1..1: `cells` rows of patches, `wide` times as wide."""
    height, width = shape
    coarse = rng.uniform(-1, 1, (cells, max(2, cells * width // height // wide))).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
