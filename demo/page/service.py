"""What the web page computes: results for pictures and videos, from networks that its visitors share."""

import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from dataset.images import read_header
from dataset.labels import ClassTable
from utils import runtime
from utils.config import TestConfig
from utils.inference.predictor import Predictor
from utils.io.drawing import Painter, class_shares
from utils.io.files import save_labels
from utils.io.pipeline import prefetch
from utils.io.sources import read_image
from utils.io.video import VideoReader, writing_video
from utils.weights.run_folder import INCLUDED, find_checkpoint

MAX_PIXELS = 30e6  # of a picture
MAX_ELONGATION = 8  # the network's input has a short side of fixed length, so this limits the memory it needs
MAX_FRAMES = 1800  # of a video: a minute at 30 frames/s
VIDEO_SIDE = 1280  # pixels that the longer side of a video is reduced to
OPEN_NETWORKS = 4  # kept in memory


class Network:
    """A predictor that runs for one visitor at a time."""

    def __init__(self, path: Path, engine: str) -> None:
        name, precision = engine.split()
        self.predictor = Predictor(path, test=TestConfig.model_validate({"runtime": name, "precision": precision}))
        self.lock = threading.Lock()

    def predict(self, image: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the label map (H, W) of an RGB image (H, W, 3), and the milliseconds that the network took."""
        with self.lock:
            seconds = self.predictor.watch.seconds
            before = seconds["network"]
            labels = self.predictor.predict(image)
            return labels, 1000 * (seconds["network"] - before)

    @property
    def engine(self) -> str:
        """The runtime and precision actually in use."""
        return f"{self.predictor.segmenter.runtime}, {self.predictor.segmenter.precision}"


@dataclass(frozen=True, kw_only=True)
class Result:
    """A segmented picture, which is drawn as often as needed without running the network again.

    Attributes:
        name: stem of its files.
        image, labels: (H, W, 3) RGB and (H, W), uint8.
        milliseconds: that the network took.
        engine: runtime and precision.
    """

    name: str
    image: np.ndarray
    labels: np.ndarray
    classes: ClassTable
    milliseconds: float
    engine: str

    def shares(self) -> dict[str, float]:
        """Return the fraction of the pixels for each class present, in descending order."""
        return class_shares(self.labels, self.classes)

    def overlay(self, alpha: float, shown: Sequence[str]) -> np.ndarray:
        """Blend the colours of the classes `shown` into the image, with an opacity from 0 to 1."""
        if not shown:  # which a painter takes for all
            return self.image
        return Painter(classes=self.classes, alpha=alpha, shown=shown).paint("overlay", self.image, self.labels)


class Service:
    """Segments pictures and videos; keeps networks in memory, but no state for individual visitors.

    Args:
        weights: the files to choose from, by name.
        folder: where results are written, each to a new folder.

    Errors that a visitor can correct are raised as ValueErrors of one line.
    """

    def __init__(self, weights: Mapping[str, Path], folder: Path) -> None:
        self.weights, self.folder = weights, folder
        self._opening = threading.Lock()  # so that two visitors do not open, or export, the same network twice
        self._open = lru_cache(OPEN_NETWORKS)(lambda name, engine: Network(weights[name], engine))

    def network(self, name: str, engine: str) -> Network:
        """Return the network with the weights `name` in one of the `engines`."""
        if name not in self.weights or engine not in engines():
            unknown = f"runtime {engine!r}" if name in self.weights else f"weights {name!r}"
            raise ValueError(f"unknown {unknown}: reload the page")
        with self._opening:
            return self._open(name, engine)

    def segment(self, file: str, name: str, engine: str) -> Result:
        """Segment a picture."""
        path = Path(file)
        with _naming(path):
            (width, height), _ = read_header(path)
            _check_size(path, width, height)
            image = read_image(path)
        network = self.network(name, engine)
        labels, milliseconds = network.predict(image)
        return Result(
            name=path.stem,
            image=image,
            labels=labels,
            classes=network.predictor.classes,
            milliseconds=milliseconds,
            engine=network.engine,
        )

    def segment_video(
        self, file: str, target: Path, name: str, engine: str, *, alpha: float, shown: Sequence[str]
    ) -> Iterator[tuple[int, int, float]]:
        """Write the overlay of a video, with a legend, frame by frame.

        Args:
            target: a .webm file, which is complete after the last step.
            alpha, shown: as for `Result.overlay`, but without `shown` all classes are drawn.

        Yields:
            the number of frames done, of all (0 if unknown), and the mean milliseconds that the network took for one.
        """
        path, total = Path(file), 0.0
        network = self.network(name, engine)
        painter = Painter(classes=network.predictor.classes, alpha=alpha, shown=shown, legend=True)
        with _naming(path):
            reader = VideoReader(path)
        if reader.frames > MAX_FRAMES:
            raise ValueError(f"{path.name} has {reader.frames} frames, more than {MAX_FRAMES}: use inference.py for it")
        with writing_video(target, reader.fps) as writer, closing(prefetch(reader)) as frames:
            for done, (_, frame) in enumerate(frames, start=1):
                _check_size(path, frame.shape[1], frame.shape[0])
                image = _reduced(frame)
                labels, milliseconds = network.predict(image)
                writer.write(painter.paint("overlay", image, labels))
                total += milliseconds
                yield done, reader.frames, total / done
                if done == MAX_FRAMES:  # of a recording that does not state its length
                    break

    def new_file(self, name: str) -> Path:
        """Return a path that nobody else writes to."""
        return Path(tempfile.mkdtemp(dir=self.folder), name)

    def save_picture(self, name: str, image: np.ndarray) -> str:
        """Write an RGB image as a JPEG; return its path."""
        path = self.new_file(f"{name}.jpg")
        Image.fromarray(image).save(path, quality=92)
        return str(path)

    def save_label_map(self, result: Result) -> str:
        """Write the class indices as a palette PNG, with all classes; return its path."""
        path = self.new_file(f"{result.name}_pred.png")
        save_labels(path, result.labels, result.classes)
        return str(path)


def list_weights(ckpt: str | None) -> dict[str, Path]:
    """Return the weights to choose from by their names, first the given or else the best ones in `ckpt`."""
    folder = INCLUDED.parent
    first = find_checkpoint(ckpt, folder, fallback=INCLUDED)
    others = [path for path in sorted(folder.glob("[!.]*.pth")) if path.stem != "diverged"]  # which has no weights
    return {path.name: path for path in (first, *others)} | {first.name: first}


def engines() -> list[str]:
    """List the runtimes and precisions of this machine, each as in "pytorch bf16"; the default is the first."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = runtime.available_runtimes(device)
    if device.type == "cuda":
        found["pytorch"] = list(dict.fromkeys([*found["pytorch"], "fp16"]))
    return [f"{name} {precision}" for name, own in {"auto": found["pytorch"], **found}.items() for precision in own]


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{path.name} has {width}x{height} pixels, more than {MAX_PIXELS / 1e6:.0f} million: reduce it"
        )
    if max(width, height) > MAX_ELONGATION * min(width, height):
        raise ValueError(f"{path.name} has {width}x{height} pixels, which is too narrow: crop it")


def _reduced(frame: np.ndarray) -> np.ndarray:
    scale = VIDEO_SIDE / max(frame.shape)
    return frame if scale >= 1 else cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn errors into ValueErrors that name the file as the visitor knows it, without the folder of the upload."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(str(error).replace(str(path), path.name)) from None
