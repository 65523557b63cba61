"""The loop of inference.py: read, segment, write and report every input."""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from utils.cli import Interruption, progress
from utils.inference.predictor import Predictor
from utils.io import window
from utils.io.outputs import Outputs, Target
from utils.io.sources import Source, read_images
from utils.io.video import Span, VideoReader, VideoWriter


@dataclass(kw_only=True)
class Inference:
    """A run over one or more sources.

    Attributes:
        stopping: returns whether the user asked to stop.
        span: which frames of videos to use.
        smooth: weight of past frames, see `utils.inference.predictor.Smoother`.
        quiet: hide the progress bar.
        show: show overlays in the window, which must be open.
        done, skipped: sources that were segmented, and that could not be read.
        truncated: videos, cameras and streams that ended too early.
        images: images and frames segmented.
        kept: frames of the current video that were skipped because their files exist already.
    """

    sources: Sequence[Source]
    predictor: Predictor
    outputs: Outputs
    log: logging.Logger
    stopping: Callable[[], bool]
    span: Span
    smooth: float
    quiet: bool
    show: bool
    done: int = field(default=0, init=False)
    skipped: int = field(default=0, init=False)
    truncated: int = field(default=0, init=False)
    images: int = field(default=0, init=False)
    kept: int = field(default=0, init=False)

    def run(self) -> None:
        """Segment images, then videos; a source that cannot be read is skipped, unless it is the only one.

        Raises:
            ValueError, FileNotFoundError: the only source cannot be read.
            OSError: an output cannot be written.
            Interruption: the user asked to stop.
        """
        started = time.perf_counter()
        pending = self.outputs.pending(self.sources)
        self._segment_images([source for source in pending if source.kind == "image"], of=len(pending))
        for source in pending:
            if source.kind != "image":
                # not noticed before if earlier inputs gave no results: all frames existed, or no image was readable
                if self.stopping():
                    raise self._interruption()
                try:
                    self._segment_video(source)
                except (ValueError, FileNotFoundError) as error:
                    self._skip(error)
        if self.images:
            rate = self.images / (time.perf_counter() - started)
            stages = self.predictor.watch.describe(self.images)
            self.log.info(f"speed: {rate:.2f} images/s; per image, in parallel: {stages}")
        kept = len(self.sources) - len(pending)
        skipped = f", {kept} already complete (--overwrite replaces them)" if kept else ""
        self.log.info(f"{self.done} of {len(self.sources)} inputs done{skipped}; results in {self.outputs.folder}")

    def _segment_images(self, sources: Sequence[Source], *, of: int) -> None:
        decoded = self.predictor.watch.each("decode", read_images(sources, self._skip))
        with closing(self.predictor.pipeline(decoded)) as results:
            bar = progress(results, "images", total=len(sources), unit="image", quiet=self.quiet)
            for source, image, labels in bar:
                height, width = labels.shape
                facts = {"input": str(source), "width": width, "height": height}
                stop = self._output(self.outputs.files(source), image, labels, facts, wait=True)
                self.done += 1
                shares = self.outputs.painter.shares(labels).items()
                listed = ", ".join(f"{name} {100 * share:.0f}%" for name, share in shares if share >= 0.005)
                self.log.info(f"{source}: {width}x{height}, {listed}")
                if stop and self.done + self.skipped < of:
                    raise self._interruption()

    def _segment_video(self, source: Source) -> None:
        reader = VideoReader(source.location, span=self.span)
        before, self.kept = self.images, 0
        batch = None if source.kind == "live" else self.predictor.batch_size
        frames = self.predictor.pipeline(self._frames(source, reader), smooth=self.smooth, batch=batch)
        with self.outputs.open_video(source, reader.fps) as writers, closing(frames) as results:
            bar = progress(results, str(source), total=reader.frames or None, unit="frame", quiet=self.quiet)
            last: int | None = None
            for number, image, labels in bar:
                gap = 0 if last is None else (number - last) // self.span.every - 1
                last = number
                files = self.outputs.files(source, number) if self.outputs.frames else {}
                self.kept += self.outputs.complete(files)
                facts = {"frame": number, "seconds": round(number / reader.source_fps, 3)}
                stop = self._output(files or writers, image, labels, facts, wait=False, gap=gap)
                if stop and source.kind == "live":
                    break  # which is how a camera or stream ends
                if stop:
                    raise self._interruption([writer.name for writer in writers.values()])
        self.done += 1
        codec = next((f", {w.codec}" for w in writers.values() if isinstance(w, VideoWriter)), "")
        kept = f", {self.kept} already complete (--overwrite replaces them)" if self.kept else ""
        self.log.info(f"{source}: {self.images - before} frames at {reader.fps:g} frames/s{codec}{kept}")
        if reader.truncated:
            self.truncated += 1
            damaged = "ends before the length in its header: it is damaged, or was cut without re-encoding"
            tqdm.write(f"{source} {damaged if reader.frames else 'gives no more frames'}", file=sys.stderr)

    def _frames(self, source: Source, reader: VideoReader) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the frames to segment: all of them, except that frames written as images are skipped if they exist."""
        resume = self.outputs.frames and not self.smooth  # a smoothed result depends on all frames before it
        for number, frame in self.predictor.watch.each("decode", reader):
            if resume and self.outputs.complete(self.outputs.files(source, number)):
                self.kept += 1
            else:
                yield number, frame

    def _output(
        self,
        targets: Mapping[str, Target],
        image: np.ndarray,
        labels: np.ndarray,
        facts: dict,
        *,
        wait: bool,
        gap: int = 0,
    ) -> bool:
        """Write and show a result; return whether the user asked to stop."""
        with self.predictor.watch.measuring("write"):
            self.outputs.write(targets, image, labels, facts, gap=gap)
        self.images += 1
        overlay = self.outputs.painter.paint("overlay", image, labels) if self.show else None
        closed = overlay is not None and window.show(overlay, lambda: wait and not self.stopping())
        return closed or self.stopping()

    def _interruption(self, parts: Sequence[str] = ()) -> Interruption:
        again = "; the next run overwrites them: rename them to keep them"
        written = f"; frames so far: {', '.join(parts)}{again}" if parts else ""
        done = f"{self.done} of {len(self.sources)} inputs"
        return Interruption(f"stopped after {done}; run the same command again for the rest{written}")

    def _skip(self, error: Exception) -> None:
        if len(self.sources) == 1:
            raise error
        self.skipped += 1
        tqdm.write(f"skipped: {error}", file=sys.stderr)
