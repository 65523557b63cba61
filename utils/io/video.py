"""Videos, read and written."""

import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from utils.io.files import Part, growing

CODECS = {"avc1": "H.264", "mp4v": "MPEG-4 part 2, as this OpenCV writes no H.264"}  # the best first
SPARE = 16 << 20  # bytes of the disk that are left free, so that a video can be finished: OpenCV tells of no full disk


@dataclass(frozen=True, kw_only=True)
class Span:
    """Which frames of a video are meant: every `every`th from `start` to before `end`, in seconds.

    Raises:
        ValueError: there can be none.
    """

    start: float = 0.0
    end: float | None = None
    every: int = 1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"--every must be at least 1, got {self.every}")
        if not 0 <= self.start < math.inf:
            raise ValueError(f"--start must be 0 or more seconds, got {self.start:g}")
        if self.end is not None and not self.end > self.start:
            raise ValueError(f"--end must lie after --start ({self.start:g} s), got {self.end:g}")


class VideoReader:
    """The frames of a video, camera or stream as RGB arrays (H, W, 3) uint8.

    Attributes:
        fps: frames per second of the frames that are given.
        frames: how many they are, by what the file says; 0 where it does not say.
        number: of the frame given last, counted from 0 in the video.
        short: the video ended well before what the file says.

    Raises:
        ValueError: on opening, where there is no video, or none of the frames that are meant.
    """

    def __init__(self, source: str | Path | int, *, span: Span | None = None) -> None:
        self.span = span or Span()
        self.number, self.short = -1, False
        _silence_opencv()
        self._capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
        self._frames_read = 0
        self._next = self._read()
        if self._next is None:
            what = f"camera {source} cannot be opened" if isinstance(source, int) else f"{source} cannot be read"
            raise ValueError(f"{what} as a video: no frame could be decoded")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        rate = rate if 0 < rate <= 1000 else 25.0  # what a stream says at times
        self.fps = rate / self.span.every
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self._declared = int(count) if 0 < count < 1e9 else 0
        self._first = math.ceil(self.span.start * rate)
        self._last = math.inf if self.span.end is None else self.span.end * rate
        if not self._skip_to(self._first):
            duration = self._frames_read / rate
            raise ValueError(f"{source} ends after {duration:.1f} s, before --start ({self.span.start:g} s)")
        self.frames = len(range(self._first, math.ceil(min(self._declared, self._last)), self.span.every))

    def __iter__(self) -> Iterator[np.ndarray]:
        number = self._first
        while self._next is not None and number < self._last:
            frame, self._next, self.number = self._next, None, number
            yield frame
            number += self.span.every
            if number < self._last:
                self._skip_to(number)
        self.short = number < self._last and number < 0.95 * self._declared  # a frame that was meant is missing
        self._capture.release()

    def _skip_to(self, number: int) -> bool:
        """Read the frame of that number; decoding all before it is slower than seeking, but right in every file."""
        while self._frames_read < number and self._capture.grab():
            self._frames_read += 1
        if self._frames_read == number:
            self._next = self._read()
        return self._next is not None and self._frames_read == number + 1

    def _read(self) -> np.ndarray | None:
        ok, frame = self._capture.read()
        self._frames_read += ok
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if ok else None


def _silence_opencv() -> None:
    """Keep OpenCV and FFmpeg from printing about broken files: what matters comes as an error."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class VideoWriter:
    """Frames into an MP4 file, see `writing_video`; opened at the first frame, whose size all others have.

    Sides of odd length lose their last row or column, since the format has none.

    Attributes:
        path: of the whole file, for errors.
        part: where it is written; set `part.cut` where more frames were meant to come.
        codec: what the frames are compressed with, in words.
        frames: how many were written.
    """

    def __init__(self, path: Path, fps: float, *, part: Part) -> None:
        self.path = path
        self.part = part
        self.fps = fps
        self.codec = ""
        self.frames = 0
        self.shape: tuple[int, ...] = ()
        self._writer: cv2.VideoWriter | None = None

    def write(self, frame: np.ndarray) -> None:
        """Add an RGB frame (H, W, 3) uint8.

        Raises:
            ValueError: a frame of another size, or no video can have such frames.
            OSError: the disk is full; the frames so far are kept in the part.
        """
        if shutil.disk_usage(self.part.path.parent).free < SPARE:
            self.part.cut = True
            raise OSError(
                f"the disk is full: {self.path} needs {SPARE >> 20} MB to spare; {self.part.path} has what fits"
            )
        if self._writer is None:
            self._writer = self._open(frame.shape)
        if frame.shape != self.shape:
            raise ValueError(
                f"a frame of {frame.shape[1]}x{frame.shape[0]} in a video of {self.shape[1]}x{self.shape[0]}"
            )
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        self.frames += 1

    def _open(self, shape: tuple[int, ...]) -> cv2.VideoWriter:
        _silence_opencv()
        self.shape = shape
        height, width = shape[:2]
        for code, self.codec in CODECS.items():
            writer = cv2.VideoWriter(str(self.part.path), cv2.VideoWriter.fourcc(*code), self.fps, (width, height))
            if writer.isOpened():
                return writer
        raise ValueError(f"{self.path} cannot be written as a video of {width}x{height} at {self.fps:g} frames/s")

    def close(self) -> None:
        """Finish the file.

        Raises:
            OSError: it is not whole.
        """
        if self._writer is None:
            return
        self._writer.release()
        written = cv2.VideoCapture(str(self.part.path))
        if not written.read()[0] or written.get(cv2.CAP_PROP_FRAME_COUNT) < 0.9 * self.frames:
            raise OSError(f"{self.path} could not be written whole: is the disk full?")


@contextmanager
def writing_video(path: Path, fps: float) -> Iterator[VideoWriter]:
    """Write a video that is in place only when it is whole; one that was cut is playable and ends in `.part.mp4`."""
    with growing(path) as part:
        writer = VideoWriter(path, fps, part=part)
        try:
            yield writer
        finally:
            writer.close()
