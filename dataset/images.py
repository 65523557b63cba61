"""Image files, decoded."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError


def open_image(path: str | Path | BinaryIO) -> Image.Image:
    """Open and decode an image file (or the content of one), turned upright as its EXIF data say.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no image, or a broken one.
    """
    try:
        image = Image.open(path)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"no image {path}") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from None
    return image


def open_rgb(path: str | Path | BinaryIO) -> Image.Image:
    """Open a picture of any kind (grey, palette, alpha, 16 bits) as RGB of 8 bits; raises as `open_image` does."""
    image = open_image(path)
    try:
        return to_rgb(image)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn a picture of any kind into RGB of 8 bits."""
    if image.mode.startswith("I"):  # 16 bits in one channel, which Pillow would clip to white
        grey = np.asarray(image).astype(np.int64) // 257
        image = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
    return image.convert("RGB")
