"""Pictures, read."""

import io
import sys
from pathlib import Path

import numpy as np

from dataset.images import open_rgb
from utils.inputs import STANDARD_INPUT


def read_image(path: str | Path) -> np.ndarray:
    """Read a picture of any kind as an upright RGB array (H, W, 3) uint8; "-" is standard input.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no picture, or a broken one.
    """
    if path != STANDARD_INPUT:
        return np.asarray(open_rgb(path))
    try:
        return np.asarray(open_rgb(io.BytesIO(sys.stdin.buffer.read())))
    except ValueError:
        raise ValueError("standard input holds no image that can be read") from None
