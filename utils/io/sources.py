"""What `--input` may stand for, found and named."""

import glob
import io
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from pathlib import Path

import numpy as np

from dataset.images import open_rgb

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
LIST_SUFFIXES = (".txt", ".lst")


@dataclass(frozen=True)
class Source:
    """Something to segment.

    Attributes:
        place: a file, "-" for an image on standard input, the number of a camera, or the address of a stream.
        kind: "image", "video", or "live" for a camera or stream, which has no length.
        name: what its outputs are called, without a suffix; no other source of a run has the same.
    """

    place: Path | str | int
    kind: str
    name: str = ""

    def __str__(self) -> str:
        if self.place == STANDARD_INPUT:
            return "standard input"
        return f"camera {self.place}" if isinstance(self.place, int) else str(self.place)


def find_sources(text: str, *, recursive: bool = False) -> list[Source]:
    """List what there is to segment, each with a name of its own.

    Args:
        text: an image, a video, a folder, a glob pattern, a text file with a path on every line, the number of a
            camera, the address of a stream, or "-".
        recursive: look into a folder's folders too.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: what is there is no image or video.
    """
    if text == STANDARD_INPUT:
        return [Source(text, "image", "stdin")]
    if not Path(text).exists() and (text.isdecimal() or "://" in text):
        return [_live(int(text) if text.isdecimal() else text)]
    paths = find_inputs(text, recursive=recursive)
    kinds = ["video" if is_video(path) else "image" for path in paths]
    return [Source(*facts) for facts in zip(paths, kinds, output_names(paths), strict=True)]


def _live(place: int | str) -> Source:
    """Name a camera or stream after itself and the time, since each run of it is another video."""
    source = Source(place, "live")
    plain = re.sub(r"[^A-Za-z0-9]+", "_", re.sub(r"//[^/@]*@", "//", str(source))).strip("_")  # no password in a name
    return replace(source, name=f"{plain}_{datetime.now():%Y%m%d_%H%M%S}")


def find_inputs(text: str, *, recursive: bool = False) -> list[Path]:
    """List the images and videos that a file, a folder, a glob pattern or a text file stands for, sorted.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: what is there is no image or video.
    """
    path = Path(text)
    if path.is_dir():
        found = _known(path.rglob("*") if recursive else path.iterdir())
        if not found:
            more = "" if recursive else "; --recursive looks into its folders"
            raise ValueError(f"no image or video in the folder {path}; known are {_suffixes()}{more}")
    elif path.is_file() and path.suffix.lower() in LIST_SUFFIXES:
        found = _listed(path)
    elif path.is_file():
        found = _known([path])
        if not found:
            raise ValueError(f"{path} is neither an image nor a video by its name; known are {_suffixes()}")
    else:
        found = _known(Path(name) for name in glob.glob(text, recursive=True))
        if not found:
            raise FileNotFoundError(f"no image, video or folder {text}")
    return found


def _listed(path: Path) -> list[Path]:
    """Read a text file of paths, as seen from where the program runs or from the file's folder; each of them once."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text file of paths") from None
    found = []
    for number, line in enumerate(lines, start=1):
        if line and Path(line).suffix.lower() not in IMAGE_SUFFIXES + VIDEO_SUFFIXES:
            raise ValueError(
                f"{path}, line {number}: {line!r} is neither an image nor a video by its name; known are {_suffixes()}"
            )
        if line:
            beside = path.parent / line
            found.append(beside if beside.is_file() and not Path(line).is_file() else Path(line))
    if not found:
        raise ValueError(f"{path} lists no image or video")
    return list(dict.fromkeys(found))


def _known(paths: Iterable[Path]) -> list[Path]:
    return sorted(p for p in paths if p.suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES and p.is_file())


def _suffixes() -> str:
    return " ".join(IMAGE_SUFFIXES + VIDEO_SUFFIXES)


def is_video(path: Path) -> bool:
    """Tell by its suffix whether a file is a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


STANDARD_INPUT = "-"


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
