"""Reading of image and mask files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin

_TURNS = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(path: str | Path | BinaryIO) -> Image.Image:
    """Decode an image file and apply its EXIF orientation.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image, or corrupt.
    """
    with _readable(path):
        image = Image.open(path)
        image.load()
        turn = _TURNS.get(_orientation(image))
        return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1, upright, for an image without one, or whose metadata are damaged.

    Pillow's `exif_transpose` also rewrites the metadata, which can fail for reasons unrelated to the orientation, and a
    PNG's own `getexif` decodes it.
    """
    try:
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    except Exception:  # of many kinds: struct.error, TypeError, …
        value = None
    return value if value in _TURNS else 1


def open_rgb(path: str | Path | BinaryIO) -> Image.Image:
    """Decode an image file of any mode (grey, palette, alpha, 16 bits) as 8-bit RGB; raises as `open_image` does."""
    image = open_image(path)
    with _readable(path):
        return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to 8-bit RGB; raises a ValueError for pixels whose range is not known."""
    bits = getattr(image, "tag_v2", {}).get(TiffImagePlugin.BITSPERSAMPLE)
    if image.mode == "F" or bits == (32,):
        kind = "floats" if image.mode == "F" else "32-bit integers"
        raise ValueError(f"the image's pixels are {kind} of unknown range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip to white
        grey = np.asarray(image).astype(np.int64) // 257
        image = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
    if "transparency" in image.info:  # Pillow warns if that of a palette is dropped at once
        image = image.convert("RGBA")
    return image.convert("RGB")


def read_mask(path: Path) -> np.ndarray:
    """Return the values of a mask, (H, W) uint8; raises as `open_image` and `check_mask_mode` do."""
    with _readable(path), Image.open(path) as image:
        check_mask_mode(path, _mode(image))
    return np.asarray(open_image(path)).astype(np.uint8, copy=False)


def check_mask_mode(path: Path, mode: str) -> None:
    """Raise a ValueError unless a mask's Pillow mode has a single channel of at most 8 bits."""
    if mode == "JPEG":
        raise ValueError(f"{path} is a JPEG file, whose compression changes class indices; save masks as PNG")
    if mode not in ("1", "L", "P"):
        raise ValueError(
            f"{path} is not a mask: expected class indices in one 8-bit channel, got mode {mode!r}; docs/training.md "
            "shows how to convert it"
        )


def _mode(image: Image.Image) -> str:
    """Return the Pillow mode of an image that is not loaded yet, or a name of ours for a file that cannot be a mask.

    "L;2" and "L;4" are PNGs of 2 or 4 bits per pixel: Pillow stretches their greys to 8 bits, as the format asks, but
    some programs store class indices in them. "JPEG" are JPEG files.
    """
    if image.format in ("JPEG", "MPO"):
        return "JPEG"
    tiles = getattr(image, "tile", ())  # of how pixels are stored
    stored = tiles[0][3] if image.format == "PNG" and tiles else None
    return stored if stored in ("L;2", "L;4") else image.mode


def read_header(path: str | Path, *, checksums: bool = False) -> tuple[tuple[int, int], str]:
    """Return the size (width, height; after EXIF rotation) and `_mode` of an image file, decoding only TIFFs.

    Args:
        checksums: read the whole file, to detect truncation and corruption in formats that have checksums.

    Raises as `open_image` does.
    """
    with _readable(path), Image.open(path) as image:
        if image.format == "TIFF":  # Pillow rotates TIFFs itself, at a time that depends on its version
            image.load()
            return image.size, image.mode
        size, mode = (image.height, image.width) if _orientation(image) >= 5 else image.size, _mode(image)
        if checksums:
            image.verify()
    return size, mode


@contextmanager
def _readable(path: str | Path | BinaryIO) -> Iterator[None]:
    """Turn Pillow's errors into ones that name the file."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"no image {path}") from None
    except MemoryError:
        raise
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise ValueError(f"{path} has more than {limit:.0f} million pixels; reduce it, or cut it into tiles") from None
    except Exception as error:  # Pillow raises many types for damaged files and metadata: TypeError, struct.error, …
        raise ValueError(f"{path} cannot be read as an image: {error}") from None
