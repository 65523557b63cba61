"""Image files, decoded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError


def open_image(path: str | Path | BinaryIO) -> Image.Image:
    """Open and decode an image file, turned upright as its EXIF data say.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no image, or a broken one.
    """
    with _readable(path):
        image = Image.open(path)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
    return image


def read_header(path: str | Path, *, checksums: bool = False) -> tuple[tuple[int, int], str]:
    """Return size (width, height; upright) and Pillow's mode of an image file, without decoding it.

    Args:
        checksums: read the whole file, to find one that is cut short or damaged, where its format has checksums.

    Raises as `open_image` does.
    """
    with _readable(path), Image.open(path) as image:
        upright = image.format == "PNG" and "exif" not in image.info  # asking a PNG for more would decode it
        turned = not upright and image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        size, mode = (image.height, image.width) if turned else image.size, image.mode
        if checksums:
            image.verify()
    return size, mode


@contextmanager
def _readable(path: str | Path | BinaryIO) -> Iterator[None]:
    """Turn what Pillow raises for a file into an error that names it."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"no image {path}") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from None


def open_rgb(path: str | Path | BinaryIO) -> Image.Image:
    """Open a picture of any kind (grey, palette, alpha, 16 bits) as RGB of 8 bits; raises as `open_image` does."""
    image = open_image(path)
    with _readable(path):
        return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn a picture of any kind into RGB of 8 bits."""
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
