"""Pictures and videos, found, read and written."""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import cv2
import numpy as np

from dataset.images import open_rgb
from utils.files import replacing

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")


def is_video(path: Path) -> bool:
    """Tell by its suffix whether a file is a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def find_inputs(text: str) -> list[Path]:
    """List the images and videos that a file name, a folder or a glob pattern stands for, sorted.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: what is there is no image or video.
    """
    path = Path(text)
    if path.is_dir():
        found = _known(path.iterdir())
        if not found:
            raise ValueError(f"no image or video in the folder {path}; known are {_suffixes()}")
    elif path.is_file():
        found = _known([path])
        if not found:
            raise ValueError(f"{path} is neither an image nor a video by its name; known are {_suffixes()}")
    else:
        found = _known(Path(name) for name in glob.glob(text, recursive=True))
        if not found:
            raise FileNotFoundError(f"no image, video or folder {text}")
    return found


def _known(paths: Iterator[Path] | Sequence[Path]) -> list[Path]:
    return sorted(p for p in paths if p.suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES and p.is_file())


def _suffixes() -> str:
    return " ".join(IMAGE_SUFFIXES + VIDEO_SUFFIXES)


def output_names(paths: Sequence[Path]) -> list[str]:
    """Name the outputs after the inputs' stems; where several share a stem, with their folders and suffix."""
    stems = Counter(path.stem for path in paths)
    taken: set[str] = set()
    names = []
    for path in paths:
        name = path.stem if stems[path.stem] == 1 else "_".join(path.parts).strip("/\\_").replace(".", "_")
        copies = (f"{name}_{number}" for number in count(2))
        while name in taken or (stems[path.stem] > 1 and name in stems):
            name = next(copies)
        taken.add(name)
        names.append(name)
    return names


def read_image(path: str | Path) -> np.ndarray:
    """Read a picture of any kind as an upright RGB array (H, W, 3) uint8.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no picture, or a broken one.
    """
    return np.asarray(open_rgb(path))


class VideoReader:
    """The frames of a video as RGB arrays (H, W, 3) uint8.

    Attributes:
        fps: frames per second.
        frames: how many the file says it has; 0 where it does not say.

    Raises:
        ValueError: on opening, where the file is no video or has no frame.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        _silence_opencv()
        self._capture = cv2.VideoCapture(str(path))
        self._next = self._read()
        if self._next is None:
            raise ValueError(f"{path} cannot be read as a video: no frame could be decoded")
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or 25.0
        self.frames = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[np.ndarray]:
        while self._next is not None:
            frame, self._next = self._next, None
            yield frame
            self._next = self._read()
        self._capture.release()

    def _read(self) -> np.ndarray | None:
        ok, frame = self._capture.read()
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if ok else None


def _silence_opencv() -> None:
    """Keep OpenCV and FFmpeg from printing about broken files: what matters comes as an error."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class VideoWriter:
    """Frames into an MP4 file, see `writing_video`; opened at the first frame, whose size all others have.

    Sides of odd length lose their last row or column, since the format has none.
    """

    def __init__(self, path: Path, fps: float, *, temporary: Path) -> None:
        self.path = path
        self.fps = fps
        self.temporary = temporary
        self.shape: tuple[int, ...] = ()
        self._writer: cv2.VideoWriter | None = None

    def write(self, frame: np.ndarray) -> None:
        """Add an RGB frame (H, W, 3) uint8."""
        if self._writer is not None and frame.shape != self.shape:
            raise ValueError(
                f"a frame of {frame.shape[1]}x{frame.shape[0]} in a video of {self.shape[1]}x{self.shape[0]}"
            )
        if self._writer is None:
            _silence_opencv()
            self.shape = frame.shape
            height, width = frame.shape[:2]
            self._writer = cv2.VideoWriter(
                str(self.temporary), cv2.VideoWriter.fourcc(*"mp4v"), self.fps, (width, height)
            )
            if not self._writer.isOpened():
                raise ValueError(
                    f"{self.path} cannot be written as a video of {width}x{height} at {self.fps:g} frames/s"
                )
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()


@contextmanager
def writing_video(path: Path, fps: float) -> Iterator[VideoWriter]:
    """Write a video that is in place only when it is whole."""
    with replacing(path) as temporary:
        writer = VideoWriter(path, fps, temporary=temporary)
        try:
            yield writer
        finally:
            writer.close()
