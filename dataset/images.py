"""Image files, decoded."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError


def open_image(path: str | Path) -> Image.Image:
    """Open and decode an image file, turned upright as its EXIF data say.

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


def open_rgb(path: str | Path) -> Image.Image:
    """Open a picture of any kind (grey, palette, alpha, 16 bits) as RGB of 8 bits; raises as `open_image` does."""
    image = open_image(path)
    if image.mode.startswith("I"):  # 16 bits in one channel, which Pillow would clip to white
        grey = np.asarray(image).astype(np.int64) // 257
        image = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def read_mask(path: Path) -> np.ndarray:
    """Return what a mask stores, (H, W) uint8; raises as `open_image` and `check_mask_mode` do."""
    mask = open_image(path)
    check_mask_mode(path, mask.mode)
    return np.asarray(mask).astype(np.uint8, copy=False)


def check_mask_mode(path: Path, mode: str) -> None:
    """Make sure that Pillow's mode of a mask is one of a single channel of at most 8 bits.

    Raises:
        ValueError: it is not.
    """
    if mode not in ("1", "L", "P"):
        raise ValueError(f"{path} is no mask: class indices in one 8-bit channel are needed, not {mode!r}")
