"""Files that are either complete or absent."""

import errno
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image

from dataset.labels import ClassTable


def check_folder(path: Path, key: str) -> None:
    """Raise a ValueError unless a folder is writable or can be created; `key` is the option that sets it."""
    parents = (path, *path.absolute().parents)
    existing = next((folder for folder in parents if folder.exists()), parents[-1])  # not even a missing drive does
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        reason = "is not writable" if existing.is_dir() else "is a file" if existing.exists() else "does not exist"
        raise ValueError(f"cannot write to the folder {path}: {existing} {reason}; set {key} to another folder")


def check_new_file(path: Path, suffix: str, key: str) -> None:
    """Raise a ValueError unless a file of this name can be created; `key` is the argument that sets it."""
    if path.suffix != suffix:
        raise ValueError(f"{key} {path} must end in {suffix}")
    if path.exists():
        raise ValueError(f"{path} exists already; set {key} to another file, or delete it")
    check_folder(path.parent, key)


def changed_at(path: Path) -> int | None:
    """Return when a file was last written, in nanoseconds, or None if there is none."""
    return path.stat().st_mtime_ns if path.is_file() else None


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a lock on a file, which is created; the lock ends with the process at the latest.

    On file systems without locks, it does nothing.

    Raises:
        BlockingIOError: another process holds it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise BlockingIOError(
            f"another process is at work in {file.parent}; stop it or choose another folder, or delete {file} if that "
            "process was killed on another machine"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP):
            raise
    try:
        yield
    finally:
        lock.release()


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to, and rename it to `path` on success.

    The content is flushed to disk before the rename, so a kill or a full disk leaves the previous file intact.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # a random name rather than the process id: threads, or containers with equal process ids, may write the same file
    temporary = path.with_name(f".{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files of `replacing` left by killed processes; no process may be writing to the folder."""
    for path in folder.glob(".*.part*"):
        if path.is_file() and re.fullmatch(r"\.[0-9a-f]{8}\.part(\.\w+)?", path.name):
            path.unlink()


@contextmanager
def growing(path: Path) -> Iterator[Path]:
    """Yield `{stem}.part{suffix}` beside `path` to write to piece by piece, and rename it to `path` on success.

    After an error or an interruption the part keeps its name, unless it is empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    part.unlink(missing_ok=True)
    try:
        yield part
        if part.exists():
            part.replace(path)
    finally:
        if part.exists() and not part.stat().st_size:
            part.unlink()


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def save_image(path: str | Path, image: np.ndarray) -> None:
    """Write an RGB (H, W, 3) or greyscale (H, W) uint8 image."""
    with replacing(path) as temporary:
        Image.fromarray(image).save(temporary, compress_level=3)  # PNGs as small as at level 6, in 40 % of the time


def save_labels(path: str | Path, labels: np.ndarray, classes: ClassTable) -> None:
    """Write class indices (H, W) uint8 as a palette PNG: pixel values are the indices, viewers show class colours."""
    image = Image.fromarray(labels)
    image.putpalette(classes.palette.tobytes())
    with replacing(path) as temporary:
        image.save(temporary)
