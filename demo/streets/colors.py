"""The colours of a street, drawn at random: RGB in about 0..255."""

import colorsys

import numpy as np

DARK = np.array([28, 28, 32])  # of tyres, shoes, iron


def paint(rng: np.random.Generator) -> np.ndarray:
    """Draw the colour of a made thing, RGB in 0..255: any hue, and a grey as often."""
    if rng.random() < 0.45:
        return rng.uniform(35, 225) + rng.uniform(-10, 10, 3)
    return 255 * np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.2, 0.9), rng.uniform(0.3, 0.95)))


def leaves(rng: np.random.Generator) -> np.ndarray:
    """Draw the colour of plants: green, and now and then brown or yellow."""
    hue = rng.uniform(0.2, 0.38) if rng.random() < 0.8 else rng.uniform(0.08, 0.2)
    return 255 * np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.25, 0.7), rng.uniform(0.22, 0.6)))


def glass(rng: np.random.Generator) -> np.ndarray:
    """Draw the colour of a pane: dark, or reflecting the sky."""
    return rng.uniform(25, 110) * np.array([0.85, 0.95, 1.1])


def high_visibility(rng: np.random.Generator) -> np.ndarray:
    """Draw the colour of what riders often wear, orange to lime; rarely any other."""
    if rng.random() < 0.15:
        return paint(rng)
    return 255 * np.array(colorsys.hsv_to_rgb(rng.uniform(0.04, 0.24), rng.uniform(0.75, 0.95), rng.uniform(0.8, 1.0)))


def skin(rng: np.random.Generator) -> np.ndarray:
    """Draw the colour of a face."""
    return rng.uniform(0.4, 1.0) * np.array([235, 190, 160])
