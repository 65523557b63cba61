"""The inputs of inference: found, named and, for images, decoded."""

import glob
import hashlib
import io
import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from typing import NoReturn

import numpy as np

from dataset.images import open_rgb
from utils.io.video import is_live, source_name

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
LIST_SUFFIXES = (".txt", ".lst")
# Camera indices are below this (OpenCV encodes the interface in their hundreds); a larger number, such as a date, is
# taken for the name of a missing folder.
CAMERAS = 10_000
SUFFIXES = IMAGE_SUFFIXES + VIDEO_SUFFIXES
SUPPORTED = f"supported suffixes: {' '.join(SUFFIXES)}"
STDIN = "-"
MAX_ELONGATION = 50  # resized to a short side of hundreds of pixels, a narrower image might not fit into memory
LONGEST = 100  # bytes of an output's name made of a path; file systems allow 255, endings included


@dataclass(frozen=True)
class Source:
    """An image, video, camera or stream to segment.

    Attributes:
        location: a file, "-" for an image on standard input, the index of a camera, or the URL of a stream.
        kind: "image", "video", or "live" for a camera or stream.
        name: stem of the output files, unique within a run.
    """

    location: Path | str | int
    kind: str
    name: str

    def __str__(self) -> str:
        return "standard input" if self.location == STDIN else source_name(self.location)


def find_sources(text: str, *, recursive: bool = False) -> list[Source]:
    """List the inputs that `--input` stands for; raises FileNotFoundError or ValueError if there are none.

    Args:
        text: an image, a video, a folder, a glob pattern, a text file with a path on every line, the index of a
            camera, the URL of a stream, or "-"; existing files and folders take precedence over cameras and patterns.
        recursive: include subfolders of a folder. Hidden ones, like hidden files, are left out.
    """
    moment = f"{datetime.now():%Y%m%d_%H%M%S_%f}"  # names each piped image and each recording uniquely
    if text == STDIN:
        if sys.stdin is None or sys.stdin.isatty():
            raise ValueError("no image on standard input: pipe one, or name a file")
        return [Source(STDIN, "image", f"stdin_{moment}")]
    if not text:
        raise ValueError("no input given; name an image, a video or a folder")
    is_camera = text.isdecimal() and int(text) < CAMERAS and not os.path.exists(text)
    location = int(text) if is_camera else text
    if is_live(location):
        name = re.sub(r"[^A-Za-z0-9]+", "_", source_name(location)).strip("_")[:LONGEST]
        return [Source(location, "live", f"{name}_{moment}")]
    paths = _find_files(text, recursive)
    kinds = ["video" if path.suffix.lower() in VIDEO_SUFFIXES else "image" for path in paths]
    return [Source(*fields) for fields in zip(paths, kinds, output_names(paths), strict=True)]


def _find_files(text: str, recursive: bool) -> list[Path]:
    path = Path(text)
    if path.is_file() and path.suffix.lower() in LIST_SUFFIXES:
        return _read_list(path)
    if path.is_dir():
        inside = _walk(path) if recursive else path.iterdir()
        matches = [p for p in inside if not any(part.startswith(".") for part in p.relative_to(path).parts)]
    else:
        matches = [path] if path.is_file() else [Path(name) for name in glob.glob(text, recursive=True)]
    found = sorted(p for p in matches if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found and path.exists():
        hint = "; --recursive includes subfolders" if path.is_dir() and not recursive else ""
        raise ValueError(f"no image or video in {path}; {SUPPORTED}{hint}")
    if not found:
        raise FileNotFoundError(f"no image, video or folder {text}")
    return found


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and its visible subfolders; unlike in `rglob`, an unreadable one is an OSError."""

    def refuse(error: OSError) -> NoReturn:
        raise error

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in names)


def _read_list(path: Path) -> list[Path]:
    """Read paths relative to the working directory, or else to the file's folder; without duplicates."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a UTF-8 text file of paths") from None
    found = []
    for number, line in enumerate(lines, start=1):
        if line and Path(line).suffix.lower() not in SUFFIXES:
            raise ValueError(f"{path}, line {number}: {line!r} is neither an image nor a video; {SUPPORTED}")
        if line:
            beside = path.parent / line
            found.append(beside if beside.is_file() and not Path(line).is_file() else Path(line))
    if not found:
        raise ValueError(f"{path} lists no image or video")
    return list(dict.fromkeys(found))


def output_names(paths: Sequence[Path]) -> list[str]:
    """Name outputs after the stems of the inputs; those that share a stem, or have a long one, after their whole path.

    Names are unique even on file systems that ignore case, or how letters and accents are combined.
    """
    stems = Counter(_same(path.stem) for path in paths)
    taken = set(stems)
    names = []
    for path in paths:
        name = path.stem
        if stems[_same(name)] > 1 or len(os.fsencode(name)) > 2 * LONGEST:
            whole = re.sub(r"[\\/:.]+", "_", "_".join(path.parts)).strip("_")  # without a drive's C:\
            candidates = chain([_shortened(whole)], (f"{_shortened(whole)}_{number}" for number in count(2)))
            name = next(candidate for candidate in candidates if _same(candidate) not in taken)
            taken.add(_same(name))
        names.append(name)
    return names


def _same(name: str) -> str:
    """Return what is equal for names that some file systems, such as macOS's, do not distinguish."""
    return unicodedata.normalize("NFC", name).casefold()


def _shortened(name: str) -> str:
    """Return the end of a long name with a hash of all of it, so that it does not depend on the other names."""
    encoded = os.fsencode(name)
    if len(encoded) <= LONGEST:
        return name
    return f"{encoded[-LONGEST + 9 :].decode(errors='ignore')}_{hashlib.sha256(encoded).hexdigest()[:8]}"


def read_images(sources: Iterable[Source], skip: Callable[[Exception], None]) -> Iterator[tuple[Source, np.ndarray]]:
    """Yield images with their sources; for one that cannot be read, call `skip` with the error instead."""
    for source in sources:
        assert not isinstance(source.location, int), source
        try:
            image = read_image(source.location)
        except (ValueError, FileNotFoundError) as error:
            skip(error)
        else:
            yield source, image


def read_image(path: str | Path) -> np.ndarray:
    """Read an image of any mode, upright, as an RGB array (H, W, 3) uint8; "-" is standard input.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not an image, or is corrupt or too narrow.
    """
    if path != STDIN:
        image = np.asarray(open_rgb(path))
    else:
        try:
            image = np.asarray(open_rgb(io.BytesIO(sys.stdin.buffer.read())))
        except ValueError:
            raise ValueError("standard input is not a readable image") from None
    check_elongation(image, "the image on standard input" if path == STDIN else str(path))
    return image


def check_elongation(image: np.ndarray, name: str) -> None:
    """Raise a ValueError, with the image's name, if an image (H, W, 3) is too narrow."""
    height, width = image.shape[:2]
    if max(height, width) > MAX_ELONGATION * min(height, width):
        raise ValueError(f"{name} is too narrow to segment ({width}x{height} pixels); crop it")
