"""Pictures, read, and the names of what is made of them."""

import io
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np

from dataset.images import open_rgb

STANDARD_INPUT = "-"


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


def output_names(paths: Sequence[Path]) -> list[str]:
    """Name the outputs after the inputs' stems; where several share a stem, with their folders and suffix.

    Names that differ only in upper and lower case count as one, as they do on many disks.
    """
    stems = Counter(path.stem.casefold() for path in paths)
    taken: set[str] = set()
    names = []
    for path in paths:
        shared = stems[path.stem.casefold()] > 1
        name = _long_name(path) if shared else path.stem
        copies = _copies(name)
        while name.casefold() in taken or (shared and name.casefold() in stems):
            name = next(copies)
        taken.add(name.casefold())
        names.append(name)
    return names


def _long_name(path: Path) -> str:
    return "_".join(path.parts).strip("/\\_").replace(".", "_")


def _copies(name: str) -> Iterator[str]:
    return (f"{name}_{number}" for number in count(2))
