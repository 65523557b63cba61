"""Python API for inference: `labels = Predictor("ckpt/last.pth").predict("street.jpg")`."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dataset.images import to_rgb
from utils import runtime
from utils.config import TestConfig, TrainConfig
from utils.inference.label_map import label_map
from utils.inference.opening import describe_network, open_network
from utils.io.drawing import Painter, class_shares, colorize
from utils.io.pipeline import Stopwatch, prefetch
from utils.io.sources import check_elongation, read_image
from utils.io.video import Span, VideoReader, is_live
from utils.weights.run_folder import INCLUDED, find_checkpoint

Key = TypeVar("Key")


class Predictor:
    """A trained network, ready for images of any size.

    Args:
        path: a checkpoint, or a file written by `tools/export.py`; default: `test.ckpt_path`, the best checkpoint in
            `ckpt`, or else the included weights.
        device: default: the first CUDA device, or else the CPU.
        test: runtime and precision, compilation, input size, test-time augmentation and sliding windows.

    Raises:
        FileNotFoundError, ValueError: as `open_network`, and for CUDA graphs in a PyTorch before 2.14.

    Attributes:
        classes: names and colours of the classes.
        description: one line about the network.
        batch_size: number of images, or frames of a video file, that are segmented at once.
        watch: time spent so far on "network" and "label map".
    """

    def __init__(
        self,
        path: str | Path | None = None,
        device: torch.device | str | None = None,
        *,
        test: TestConfig | None = None,
    ) -> None:
        test = test or TestConfig()
        if test.compile == "cuda_graphs" and torch.__version__ < "2.14":  # fails in threads: pytorch/pytorch#123177
            raise ValueError(
                f"test.compile=cuda_graphs needs PyTorch 2.14 or later for inference.py and Predictor, not "
                f"{torch.__version__}; set test.compile=default"
            )
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        device = torch.empty(0, device=device).device  # "cuda" alone would mean each thread's current GPU
        if device.type not in ("cpu", "cuda"):
            raise ValueError(f"the device {device} is not supported; use cpu or cuda")
        path = path or find_checkpoint(test.ckpt_path, TrainConfig().ckpt_dir, fallback=INCLUDED)
        checkpoint, self.segmenter = open_network(path, device, test)
        self.classes = checkpoint.classes
        self.description = describe_network(checkpoint, self.segmenter, test)
        batches = self.segmenter.device.type == "cuda" and test.compile == "none"
        self.batch_size = 8 if batches else 1  # one image may not saturate a GPU
        self.watch = Stopwatch()

    def predict(self, image: np.ndarray | Image.Image | str | Path) -> np.ndarray:
        """Return class indices (H, W) uint8 for an RGB array (H, W, 3) uint8, a Pillow image or a file.

        A file is turned upright, as its EXIF data say; arrays and Pillow images are used as they are.
        """
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[np.ndarray | Image.Image | str | Path]) -> list[np.ndarray]:
        """Return the result of `predict` for each image; on a GPU, consecutive images of one size form batches.

        Not with `test.compile`: a batch of another size, such as the last, would be compiled anew.
        """
        arrays = enumerate(map(_as_array, images))
        return [labels for _, _, labels in self._predict_in_batches(arrays, Smoother(), self.batch_size)]

    def stream(
        self, video: str | Path | int | Iterable[np.ndarray], *, span: Span | None = None, smooth: float = 0.0
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the frames (H, W, 3) of a video with their label maps (H, W).

        A thread fetches frames ahead; leaving the loop waits for the frame that it is fetching.

        Args:
            video: a file, the URL of a stream, the index of a camera, or RGB frames, which are copied.
            span: which frames of a file, stream or camera to use; not for RGB frames.
            smooth: weight of past frames, see `Smoother`.
        """
        frames: Iterable
        if isinstance(video, str | Path | int):
            frames = VideoReader(video, span=span)
        elif span is None:
            frames = enumerate(_as_array(frame).copy() for frame in video)  # its source may reuse its memory
        else:
            raise ValueError("span applies to files, streams and cameras; pass only the RGB frames to be used")
        is_file = isinstance(video, str | Path) and not is_live(video)
        for _, frame, labels in self.pipeline(frames, smooth=smooth, batch=self.batch_size if is_file else None):
            yield frame, labels

    def pipeline(
        self, items: Iterable[tuple[Key, np.ndarray]], *, smooth: float = 0.0, batch: int | None = 1
    ) -> Generator[tuple[Key, np.ndarray, np.ndarray], None, None]:
        """Yield (key, image, label map) for every (key, image); `items` and the network each run ahead in a thread.

        Args:
            smooth: as for `stream`.
            batch: maximum number of consecutive images of one size per batch; None: one, and with the least delay, for
                images that arrive in real time.
        """
        self.check_smoothing(smooth)
        smoother = Smoother(smooth)
        depth = 1 if batch is None else 2 * batch
        return prefetch(self._predict_in_batches(prefetch(items, depth), smoother, batch or 1), depth)

    def check_smoothing(self, weight: float) -> None:
        """Raise a ValueError if frames are to be smoothed, but the network gives no scores."""
        if weight and not self.segmenter.gives_scores:
            raise ValueError("smoothing needs class scores, not label maps: drop test.window, or export logits")

    def colorize(self, labels: np.ndarray) -> np.ndarray:
        """Map class indices (H, W) to class colours, (H, W, 3) uint8 RGB."""
        return colorize(labels, self.classes)

    def overlay(self, image: np.ndarray, labels: np.ndarray, *, alpha: float = 0.5) -> np.ndarray:
        """Blend the class colours of `labels` (H, W) over an RGB `image` (H, W, 3), with an opacity from 0 to 1."""
        return Painter(classes=self.classes, alpha=alpha).paint("overlay", image, labels)

    def shares(self, labels: np.ndarray) -> dict[str, float]:
        """Return the fraction of the pixels for each class present, in descending order."""
        return class_shares(labels, self.classes)

    def _predict_in_batches(
        self, items: Iterable[tuple[Key, np.ndarray]], smoother: "Smoother", batch: int
    ) -> Iterator[tuple[Key, np.ndarray, np.ndarray]]:
        for _, same_size in groupby(items, key=lambda item: item[1].shape):
            while group := list(islice(same_size, batch)):
                maps = self._predict([image for _, image in group], smoother)
                yield from ((key, image, labels) for (key, image), labels in zip(group, maps, strict=True))

    def _predict(self, images: list[np.ndarray], smoother: "Smoother") -> list[np.ndarray]:
        planes = np.array([cv2.split(np.ascontiguousarray(image)) for image in images])  # faster than a transposition
        pixels = torch.from_numpy(planes)  # (B, 3, H, W)
        with self.watch.measuring("network"):
            result = self.segmenter.scores(pixels) if self.segmenter.gives_scores else self.segmenter(pixels)
            runtime.synchronize(result.device)
        with self.watch.measuring("label map"):
            if self.segmenter.gives_scores:
                result = label_map(smoother(result), pixels.shape[-2:], align_corners=self.segmenter.align_corners)
            return list(result.cpu().numpy())


class Smoother:
    """Exponential moving average of the class scores over frames, against flicker.

    Args:
        weight: of the past, in [0, 1); 0 turns it off. The half-life is ln 0.5 / ln weight frames.
    """

    def __init__(self, weight: float = 0.0) -> None:
        if not 0 <= weight < 1:
            raise ValueError(f"--smooth must be at least 0 and below 1, got {weight:g}")
        self.weight = weight
        self.mean: Tensor | None = None

    def __call__(self, scores: Tensor) -> Tensor:
        """Return the averages (B, C, h, w) up to each of the consecutive frames in `scores`."""
        if not self.weight:
            return scores
        means = []
        for frame in scores:
            if self.mean is None or self.mean.shape != frame.shape:
                self.mean = frame
            self.mean = torch.lerp(frame, self.mean, self.weight)
            means.append(self.mean)
        return torch.stack(means)


def _as_array(image: np.ndarray | Image.Image | str | Path) -> np.ndarray:
    if isinstance(image, str | Path):
        image = read_image(image)
    elif isinstance(image, Image.Image):
        image = np.asarray(to_rgb(image))
    is_array = isinstance(image, np.ndarray)  # cv2.imread returns None for a missing file
    if not is_array or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        found = f"{image.shape} {image.dtype}" if is_array else type(image).__name__
        raise ValueError(f"expected an RGB image (H, W, 3) uint8, H and W at least 1, got {found}")
    check_elongation(image, "the image")
    return image
