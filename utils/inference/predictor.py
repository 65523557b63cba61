"""Label maps for anyone's pictures, in two lines:

labels = Predictor("ckpt/last.pth").predict("street.jpg")
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dataset.images import to_rgb
from utils.config import TestConfig
from utils.inference.label_map import label_map
from utils.inference.opening import describe, open_network
from utils.inference.stopwatch import Stopwatch
from utils.io.drawing import class_shares, colorize, overlay
from utils.io.pipeline import prefetch
from utils.io.sources import read_image
from utils.io.video import Span, VideoReader

Key = TypeVar("Key")
FRAMES_AT_ONCE = 8  # on a GPU, of which one frame may not use all; a CPU is no faster with several


class Smoother:
    """Exponential mean of the class scores over frames, so that single frames do not flicker.

    Args:
        weight: of the past, from 0 (off) to below 1; the past counts half after ln 0.5 / ln weight frames.

    Raises:
        ValueError: a weight outside that range.
    """

    def __init__(self, weight: float = 0.0) -> None:
        if not 0 <= weight < 1:
            raise ValueError(f"--smooth must be at least 0 and below 1, got {weight:g}")
        self.weight = weight
        self.mean: Tensor | None = None

    def __call__(self, scores: Tensor) -> Tensor:
        """Return the means (B, C, h, w) up to each of the frames in `scores`, which follow one another."""
        if not self.weight:
            return scores
        means = []
        for frame in scores:
            if self.mean is None or self.mean.shape != frame.shape:
                self.mean = frame
            self.mean = torch.lerp(frame, self.mean, self.weight)
            means.append(self.mean)
        return torch.stack(means)


class Predictor:
    """A trained network with all that is needed to use it on pictures.

    Args:
        path: a checkpoint, or an ONNX file that `tools/export.py` wrote.
        device: where the network runs; none: the first CUDA device, or the CPU.
        test: precision, compilation, sizes, views and windows, as in a configuration.

    Attributes:
        classes: names and colours of the classes.
        about: what was opened, in a line.
        watch: the time spent so far on "network" and "label map".
    """

    def __init__(
        self, path: str | Path, device: torch.device | str | None = None, *, test: TestConfig | None = None
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        checkpoint, self.segment = open_network(path, self.device, test or TestConfig())
        self.classes = checkpoint.classes
        self.about = describe(checkpoint, test or TestConfig())
        self.watch = Stopwatch()

    def predict(self, image: np.ndarray | Image.Image | str | Path) -> np.ndarray:
        """Return the class index of every pixel, (H, W) uint8.

        Args:
            image: an RGB array (H, W, 3) uint8, a Pillow image or a file, of any size.
        """
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[np.ndarray | Image.Image | str | Path]) -> list[np.ndarray]:
        """Return what `predict` gives for each image; neighbours of one size go through the network together."""
        arrays = [_as_array(image) for image in images]
        groups = (list(group) for _, group in groupby(arrays, key=np.shape))
        return [labels for group in groups for labels in self._label(group, Smoother())]

    def stream(
        self, video: str | Path | int | Iterable[np.ndarray], *, span: Span | None = None, smooth: float = 0.0
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the frames (H, W, 3) of a video with their label maps (H, W), while the next are decoded and predicted.

        Args:
            video: a file, the address of a stream, the number of a camera, or RGB frames.
            span: which of a file's frames are meant.
            smooth: weight of the frames before, see `utils.inference.predictor.Smoother`.
        """
        frames = VideoReader(video, span=span) if isinstance(video, str | Path | int) else video
        for _, frame, labels in self.pipeline(enumerate(frames), smooth=smooth, batch=self.frames_at_once):
            yield frame, labels

    def pipeline(
        self, items: Iterable[tuple[Key, np.ndarray]], *, smooth: float = 0.0, batch: int = 1
    ) -> Generator[tuple[Key, np.ndarray, np.ndarray], None, None]:
        """Yield (key, image, label map) for every (key, image): `items` and the network run ahead in threads.

        Args:
            smooth: as for `stream`.
            batch: images of one size that go through the network at once, at most.
        """
        smoother = Smoother(smooth)  # here, so that a wrong weight is an error before the first frame
        if smooth and not self.segment.gives_scores:
            raise ValueError(
                "the network gives label maps only, which cannot be smoothed; leave out test.window, or export logits"
            )
        labelled = self._in_batches(prefetch(items, 2 * batch), smoother, batch)
        return prefetch(labelled, 2 * batch)

    @property
    def frames_at_once(self) -> int:
        """How many frames of a video the network is best given together."""
        return FRAMES_AT_ONCE if self.device.type == "cuda" else 1

    def colorize(self, labels: np.ndarray) -> np.ndarray:
        """Paint class indices (H, W) in the classes' colours, (H, W, 3) uint8 RGB."""
        return colorize(labels, self.classes)

    def overlay(self, image: np.ndarray, labels: np.ndarray, *, alpha: float = 0.5) -> np.ndarray:
        """Lay the colours of `labels` (H, W) over the RGB `image` (H, W, 3)."""
        return overlay(image, labels, self.classes, alpha=alpha)

    def shares(self, labels: np.ndarray) -> dict[str, float]:
        """Return the share of the picture that each class present takes, largest first."""
        return class_shares(labels, self.classes)

    def _in_batches(
        self, items: Iterator[tuple[Key, np.ndarray]], smoother: Smoother, batch: int
    ) -> Iterator[tuple[Key, np.ndarray, np.ndarray]]:
        for group in _groups(items, batch):
            maps = self._label([image for _, image in group], smoother)
            for (key, image), labels in zip(group, maps, strict=True):
                yield key, image, labels

    def _label(self, images: list[np.ndarray], smoother: Smoother) -> list[np.ndarray]:
        """Label images of one size."""
        pixels = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])  # (B, 3, H, W)
        try:
            with self.watch.measuring("network"):
                result = self.segment.scores(pixels) if self.segment.gives_scores else self.segment(pixels)
                if result.is_cuda:
                    torch.cuda.synchronize(result.device)
            with self.watch.measuring("label map"):
                if self.segment.gives_scores:
                    result = label_map(smoother(result), pixels.shape[-2:], align_corners=self.segment.align_corners)
                return list(result.cpu().numpy())
        except torch.cuda.OutOfMemoryError:
            height, width = pixels.shape[-2:]
            raise ValueError(f"{len(images)} x {width}x{height} pixels do not fit into the GPU's memory") from None


def _groups(items: Iterable[tuple[Key, np.ndarray]], most: int) -> Iterator[list[tuple[Key, np.ndarray]]]:
    """Put neighbours whose images have one size together, at most `most` of them."""
    for _, same in groupby(items, key=lambda item: item[1].shape):
        while group := list(islice(same, most)):
            yield group


def _as_array(image: np.ndarray | Image.Image | str | Path) -> np.ndarray:
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Image.Image):
        return np.asarray(to_rgb(image))
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"an RGB image (H, W, 3) uint8 is needed, got {image.shape} {image.dtype}")
    return image
