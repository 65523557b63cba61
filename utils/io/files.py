"""Files that are either whole or not there."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to, and move it into place when all went well.

    The content is on the disk before the move, so a kill or a full disk leaves what was there before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of `replacing` that killed processes left in a folder; none may write there now."""
    for path in folder.glob(".*.part*"):
        if path.is_file() and re.fullmatch(r"\..+\.\d+\.part(\.\w+)?", path.name):
            path.unlink()


@dataclass
class Part:
    """A file that grows, see `growing`.

    Attributes:
        path: where to write.
        cut: set where more was meant to come.
    """

    path: Path
    cut: bool = False


@contextmanager
def growing(path: Path) -> Iterator[Part]:
    """Give a place beside `path` to write to bit by bit, and move it to `path` at the end.

    What was `cut` is kept where it is, under a name with `.part` in it; of what was not, an error leaves nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Part(path.with_name(f"{path.stem}.part{path.suffix}"))
    try:
        yield part
        if part.path.exists() and not part.cut:
            part.path.replace(path)
    except BaseException:
        if not part.cut:
            part.path.unlink(missing_ok=True)
        raise


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def check_folder(path: Path, key: str) -> None:
    """Make sure that a folder to write into is there, or can be made; `key` is what the user sets it by.

    Raises:
        ValueError: it cannot.
    """
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        reason = "may not be written into" if existing.is_dir() else "is a file"
        raise ValueError(f"cannot write into the folder {path}: {existing} {reason}; set {key} to another")
