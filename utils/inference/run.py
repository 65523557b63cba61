"""Inference over any number of inputs: read, segment, write and tell, all at the same time."""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from utils.cli import Interruption, progress
from utils.inference.predictor import Predictor
from utils.io.outputs import Outputs, check_apart
from utils.io.sources import Source, read_image
from utils.io.video import Span, VideoReader
from utils.io.window import Window


@dataclass(kw_only=True)
class Inference:
    """A run over inputs.

    Attributes:
        predictor: what segments.
        outputs: what is written.
        log: where lines go, one for each input.
        stopping: tells whether the user asked for an end.
        span: the frames of videos that are meant.
        smooth: see `utils.inference.predictor.Smoother`.
        quiet: show no progress bar.
        window: shows overlays, if there is one.
        done, kept, skipped: inputs that were segmented; whose outputs were there; that are broken.
        pictures: images and frames that were segmented.
        parts: what is there of a video that the user ended.
    """

    predictor: Predictor
    outputs: Outputs
    log: logging.Logger
    stopping: Callable[[], bool] = lambda: False
    span: Span = field(default_factory=Span)
    smooth: float = 0.0
    quiet: bool = False
    window: Window | None = None
    done: int = field(default=0, init=False)
    kept: int = field(default=0, init=False)
    skipped: int = field(default=0, init=False)
    pictures: int = field(default=0, init=False)
    parts: list[Path] = field(default_factory=list, init=False)
    _closed: bool = field(default=False, init=False)

    def run(self, sources: Sequence[Source]) -> None:
        """Segment images, then videos; a broken input among several is reported and skipped.

        Raises:
            ValueError, FileNotFoundError: the only input is broken.
            OSError: a result cannot be written.
            Interruption: the user asked for an end; the same command does the rest.
        """
        todo = self._without_done(sources)
        images = [source for source in todo if source.kind == "image"]
        alone = len(sources) == 1
        with closing(self.predictor.pipeline(self._read(images, alone))) as labelled:
            self._images(labelled, len(images))
        for source in todo:
            if source.kind != "image" and not self._ended():
                try:
                    self._video(source)
                except (ValueError, FileNotFoundError) as error:
                    self._skip(error, alone)
        if self._ended() and not (alone and sources[0].kind == "live"):
            parts = f"; frames so far: {', '.join(map(str, self.parts))}" if self.parts else ""
            done = f"{self.done} of {len(todo)} inputs"
            raise Interruption(f"stopped after {done}; the same command does the rest{parts}")

    def report(self, inputs: int) -> list[str]:
        """Say in lines how fast it went, and where the results of the `inputs` lie."""
        kept = f", {self.kept} kept as they were (--overwrite writes them again)" if self.kept else ""
        lines = [f"{self.done} of {inputs} inputs done{kept}; results in {self.outputs.folder}"]
        return [f"speed: {self.predictor.watch.describe(self.pictures, 'picture')}", *lines] if self.pictures else lines

    def _without_done(self, sources: Sequence[Source]) -> list[Source]:
        inputs = {source.place.absolute() for source in sources if isinstance(source.place, Path)}
        todo = []
        for source in sources:
            if source.kind != "image" and self.outputs.frames:
                todo.append(source)  # frame by frame, when it is read
                continue
            files = (self.outputs.of_image if source.kind == "image" else self.outputs.of_video)(source.name)
            check_apart(inputs, files)
            if self.outputs.done(files):
                self.kept += 1
            else:
                todo.append(source)
        return todo

    def _read(self, sources: Sequence[Source], alone: bool) -> Iterator[tuple[Source, np.ndarray]]:
        for source in sources:
            try:
                assert not isinstance(source.place, int), "a camera gives no image"
                with self.predictor.watch.measuring("decode"):
                    image = read_image(source.place)
                yield source, image
            except (ValueError, FileNotFoundError) as error:
                self._skip(error, alone)

    def _skip(self, error: Exception, alone: bool) -> None:
        if alone:
            raise error
        self.skipped += 1
        tqdm.write(f"skipped: {error}", file=sys.stderr)

    def _images(self, labelled: Iterator[tuple[Source, np.ndarray, np.ndarray]], count: int) -> None:
        before = time.perf_counter()
        for source, image, labels in progress(labelled, "images", total=count, unit="image", quiet=self.quiet):
            height, width = labels.shape
            facts = {"input": str(source), "width": width, "height": height}
            with self.predictor.watch.measuring("write"):
                self.outputs.write_image(self.outputs.of_image(source.name), image, labels, facts)
            self._show(image, labels, wait=True)
            self.done += 1
            self.pictures += 1
            now = time.perf_counter()
            self.log.info(f"{source}: {width}x{height}, {self._shares(labels)}; {now - before:.2f} s")
            before = now
            if self._ended():
                break

    def _video(self, source: Source) -> None:
        reader = VideoReader(source.place, span=self.span)
        write = self._write_frames if self.outputs.frames else self._write_video
        before = self.pictures
        how = write(source, reader)
        cut = self._ended() and source.kind == "video"  # of a live one that is the end
        self.done += not cut
        short = "; it ends before its stated length: cut short or damaged" if reader.short and not cut else ""
        self.log.info(f"{source}: {self.pictures - before} frames at {reader.fps:g} frames/s{how}{short}")

    def _write_video(self, source: Source, reader: VideoReader) -> str:
        """Write MP4 files; say how they are compressed."""
        with self.outputs.writing_video(self.outputs.of_video(source.name), reader.fps) as files:
            for number, image, labels in self._labelled(source, reader):
                with self.predictor.watch.measuring("write"):
                    files.write(image, labels, _facts(number, reader))
            if self._ended() and source.kind == "video":
                self.parts = files.cut()
        return f", {files.codec}" if files.codec else ""

    def _write_frames(self, source: Source, reader: VideoReader) -> str:
        """Write single pictures, those that are not there yet; say where."""
        for number, image, labels in self._labelled(source, reader):
            with self.predictor.watch.measuring("write"):
                files = self.outputs.of_frame(source.name, number)
                self.outputs.write_image(files, image, labels, _facts(number, reader))
        return f", as pictures in {self.outputs.folder / source.name}_frames"

    def _labelled(self, source: Source, reader: VideoReader) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield number, image and label map of a video's frames until the user asks for an end."""
        batch = 1 if source.kind == "live" else self.predictor.frames_at_once
        pipeline = self.predictor.pipeline(self._frames(source, reader), smooth=self.smooth, batch=batch)
        total = reader.frames or None
        with closing(pipeline) as frames:
            for number, image, labels in progress(frames, str(source), total=total, unit="frame", quiet=self.quiet):
                yield number, image, labels
                self.pictures += 1
                self._show(image, labels, wait=False)
                if self._ended():
                    return

    def _frames(self, source: Source, reader: VideoReader) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the frames that need work, with their numbers; for a smooth result all do."""
        for image in self.predictor.watch.each("decode", reader):
            written = self.outputs.frames and self.outputs.done(self.outputs.of_frame(source.name, reader.number))
            if self.smooth or not written:
                yield reader.number, image

    def _show(self, image: np.ndarray, labels: np.ndarray, *, wait: bool) -> None:
        if self.window:
            picture = self.outputs.painter.paint("overlay", image, labels)
            self._closed = self.window.show(picture, wait=wait) or self._closed

    def _ended(self) -> bool:
        return self._closed or self.stopping()

    def _shares(self, labels: np.ndarray) -> str:
        shares = self.outputs.painter.shares(labels)
        return ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items() if share >= 0.005)


def _facts(number: int, reader: VideoReader) -> dict[str, Any]:
    return {"frame": number, "seconds": round(number / reader.fps / reader.span.every, 3)}
