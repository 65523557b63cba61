"""Reading and writing of videos with OpenCV."""

import math
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils.io.files import growing

CODECS = {"avc1": "H.264", "mp4v": "MPEG-4 part 2, as this OpenCV cannot encode H.264"}  # in order of preference
WEBM_CODECS = {"VP80": "VP8"}  # for browsers, which do not play MPEG-4 part 2; OpenCV warns of the tag, harmlessly
HIGHEST_RATE = 480.0  # frames/s; a higher value is invalid, or a timestamp clock's rate, as in recordings by browsers
LOWEST_WEBM_RATE = 0.1  # frames/s; OpenCV loses frames of slower ones
RESERVE = 16 << 20  # bytes of disk space kept free to finalize a video, since OpenCV does not report a full disk


@dataclass(frozen=True, kw_only=True)
class Span:
    """Frames of a video to use: every `every`th one between `start` (inclusive) and `end` (exclusive), in seconds."""

    start: float = 0.0
    end: float | None = None
    every: int = 1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"--every must be at least 1, got {self.every}")
        if not 0 <= self.start < math.inf:
            raise ValueError(f"--start must be at least 0 seconds, got {self.start:g}")
        if self.end is not None and not self.end > self.start:
            raise ValueError(f"--end must be greater than --start ({self.start:g} s), got {self.end:g}")


class VideoReader:
    """Frames of a video file, camera or stream; iterates, once only, over (frame number, RGB array (H, W, 3) uint8).

    A camera does not wait: frames captured while earlier ones are processed are lost, and their numbers are skipped.

    Attributes:
        source_fps: frame rate of the source.
        fps: frame rate of the selected frames.
        frames: how many frames are selected according to the file's header; 0 if unknown.
        truncated: after the last frame, whether the video ended well before the length in its header, or a camera or
            stream before the end of the span.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the source cannot be opened, or ends before the span starts.
    """

    def __init__(self, source: str | Path | int, *, span: Span | None = None) -> None:
        span = span or Span()
        _silence_opencv()
        self._camera = isinstance(source, int)
        self._capture = cv2.VideoCapture(_address(source))
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.source_fps = rate if 0 < rate <= HIGHEST_RATE else _measured_rate(source)
        self.fps = self.source_fps / span.every
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if rate > HIGHEST_RATE:
            count *= self.source_fps / rate  # the duration, as counted by the clock
        self._stated = int(count) if 0 < count < 1e9 else 0
        endless = not self._stated and is_live(source)
        self._expected = math.inf if endless else 0.95 * self._stated
        self._first = math.ceil(round(span.start * self.source_fps, 6))  # 2.2 * 25 is 55.00000000000001
        self._stop = math.inf if span.end is None else round(span.end * self.source_fps, 6)
        self._every = span.every
        self.frames = len(range(self._first, math.ceil(min(self._stated, self._stop)), span.every))
        self.truncated = False
        self._position = 0
        if not self._first < self._stop:
            fps = f"{self.source_fps:g} frames/s"
            raise ValueError(f"no frame of {source_name(source)} is between --start and --end, at {fps}")
        self._frame = self._read(self._first)
        if self._frame is None:
            _check_file(source)
            ends = f"it ends after {self._position / self.source_fps:.1f} s, before --start ({span.start:g} s)"
            reason = ends if self._position else "no frame could be decoded"
            raise ValueError(f"cannot read {source_name(source)} as a video: {reason}")

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        number, frame, started = self._first, self._frame, time.monotonic()
        while frame is not None and number < self._stop:
            yield number, frame
            number += self._every
            if self._camera:
                passed = self._first + int((time.monotonic() - started) * self.source_fps)
                number += max(0, passed - number) // self._every * self._every
                self._position = max(self._position, min(number, passed))
            frame = self._read(number) if number < self._stop else None
        self.truncated = number < min(self._stop, self._expected)
        self._capture.release()

    def _read(self, number: int) -> np.ndarray | None:
        """Decode up to frame `number`, which is slower than seeking but exact for every codec."""
        while self._position < number and self._capture.grab():
            self._position += 1
        decoded, frame = self._capture.read()
        if self._position < number or not decoded:
            return None
        self._position += 1
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def _check_file(source: str | Path | int) -> None:
    """Raise the error that explains why a file could not be opened, if it is missing or forbidden."""
    if isinstance(source, int) or is_live(source):
        return
    if not Path(source).exists():
        raise FileNotFoundError(f"no video {source}")
    if not os.access(source, os.R_OK):
        raise ValueError(f"{source} cannot be read: permission denied")


def _measured_rate(source: str | Path | int) -> float:
    """Return the mean frame rate of the first frames of a file by their timestamps, 25 where there are none."""
    times: list[float] = []
    if not is_live(source):
        capture = cv2.VideoCapture(_address(source))
        while len(times) < 100 and capture.grab():
            times.append(capture.get(cv2.CAP_PROP_POS_MSEC))
        capture.release()
    lasted = times[-1] - times[0] if times else 0.0
    return 1000 * (len(times) - 1) / lasted if lasted > 0 else 25.0


def is_live(source: str | Path | int) -> bool:
    """Return whether a source is a camera's index or a stream's URL rather than a file."""
    return isinstance(source, int) or (isinstance(source, str) and "://" in source and not os.path.exists(source))


def _address(source: str | Path | int) -> Any:
    """Return what OpenCV opens: a file's absolute path as bytes, or the camera or stream itself.

    FFmpeg takes what is before a colon for a protocol, and OpenCV crashes on a `str` that is not valid text.
    """
    if isinstance(source, int) or (isinstance(source, str) and not os.path.exists(source)):
        return source
    return os.fsencode(Path(source).absolute())


def source_name(source: str | Path | int) -> str:
    """Name a file, camera or stream in messages, without the user and password in an address."""
    if isinstance(source, int):
        return f"camera {source}"
    text = re.sub(r"//[^/]*@", "//", str(source))
    return re.sub(r"(?i)\b(user\w*|pass\w*|pwd|token|key)=[^&/?]*", r"\1=-", text) if "://" in text else text


@contextmanager
def writing_video(path: Path, fps: float) -> Iterator["VideoWriter"]:
    """Write a video to `{stem}.part{suffix}` and rename it once complete; a part left by an error is playable."""
    with growing(path) as part:
        writer = VideoWriter(path, part, fps)
        try:
            yield writer
        finally:
            writer.close()


class VideoWriter:
    """An MP4 or, by its suffix, a WebM file; its first frame sets the size of all.

    An odd width or height loses its last column or row, since the codecs need even sizes.

    Attributes:
        name: the file that is being written.
        codec: in words; empty before the first frame.
    """

    def __init__(self, path: Path, part: Path, fps: float) -> None:
        self.path = path
        self.name = str(part)
        self.fps = fps
        self.codec = ""
        self._writer: cv2.VideoWriter | None = None
        self._shape: tuple[int, ...] = ()
        self._last: np.ndarray = np.empty(0)
        self._frames = 0

    def write(self, frame: np.ndarray, *, gap: int = 0) -> None:
        """Append an RGB frame (H, W, 3) uint8, after repeating the one before it for a gap of that many frames.

        Raises:
            ValueError: the frame differs in size from the first, or cannot be encoded.
            OSError: the disk is full.
        """
        if shutil.disk_usage(self.path.parent).free < RESERVE:
            raise OSError(f"the disk is full: {self.path} is incomplete; {self.name} has the frames so far")
        self._writer = self._writer or self._open(frame.shape)
        if frame.shape != self._shape:
            size, expected = (f"{shape[1]}x{shape[0]}" for shape in (frame.shape, self._shape))
            raise ValueError(f"{self.path}: a frame of {size} cannot be added to a video of {expected}")
        frame = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        for image in (*[self._last] * gap, frame):
            self._writer.write(image)
        self._last = frame
        self._frames += gap + 1

    def _open(self, shape: tuple[int, ...]) -> cv2.VideoWriter:
        _silence_opencv()
        self._shape = shape
        height, width = shape[:2]
        codecs = WEBM_CODECS if self.path.suffix == ".webm" else CODECS
        # MPEG-4 cannot represent every rate
        simple = [round(self.fps, 2), float(round(self.fps))] if self.fps >= 1 else []
        lowest = LOWEST_WEBM_RATE if self.path.suffix == ".webm" else 0.0
        rates = dict.fromkeys([max(self.fps, lowest), *simple])
        for fps, (code, self.codec) in product(rates, codecs.items()):
            writer = cv2.VideoWriter(_address(Path(self.name)), cv2.VideoWriter.fourcc(*code), fps, (width, height))
            if writer.isOpened():
                return writer
        raise ValueError(
            f"{self.path} cannot be written as a video of {width}x{height} at {self.fps:g} frames/s; inference.py "
            "--frames writes images instead"
        )

    def close(self) -> None:
        """Finalize the file; raises an OSError if it cannot be read back in full, as OpenCV ignores failed writes."""
        if self._writer is not None:
            self._writer.release()
            written = cv2.VideoCapture(_address(Path(self.name)))
            if not written.read()[0] or written.get(cv2.CAP_PROP_FRAME_COUNT) < 0.9 * self._frames:
                raise OSError(
                    f"{self.path} could not be written completely: is the disk full, or another run writing it?"
                )


def _silence_opencv() -> None:
    """Keep OpenCV and FFmpeg from printing about broken files, which are reported as errors here."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
