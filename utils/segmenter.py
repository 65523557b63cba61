"""A trained network at work, from uint8 images to label maps; all that predicts goes through here."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from dataset.transforms import IMAGENET_MEAN, IMAGENET_STD, Normalize
from models.fold import fold_batch_norms
from models.icnet import MIN_SIZE
from models.layers import resize
from utils import runtime
from utils.checkpoint import Checkpoint, read_checkpoint
from utils.labelmap import label_map
from utils.onnx_segmenter import OnnxSegmenter


class Segments(Protocol):
    """What tells the class of every pixel of images, be it in PyTorch or in ONNX Runtime."""

    gives_scores: bool  # else `scores` is an error

    def __call__(self, image: Tensor) -> Tensor:
        """Return the most likely class of every pixel: (B, 3, H, W) uint8 -> (B, H, W) uint8, of any size."""

    def scores(self, image: Tensor) -> Tensor:
        """Return the logits (B, C, h, w) at the size the network has them in, for an ICNet 1/4 of the image's."""

    def labels(self, scores: Tensor, size: Sequence[int]) -> Tensor:
        """Return the label maps (B, H, W) uint8, `size` being (H, W), of what `scores` gave."""


class Segmenter:
    """A network of PyTorch that segments images.

    Args:
        network: in evaluation mode, an ICNet, or a network of torchvision's convention (`{"out": logits}`); on
            `device`.
        mean, std: of the images it was trained on, see `dataset.transforms.Normalize`.
        precision: of the arithmetic, see `utils.runtime.autocast`.
        compiled: "default" or "cuda_graphs": through torch.compile, which takes a minute or so for each new size.
    """

    gives_scores = True

    def __init__(
        self,
        network: nn.Module,
        *,
        device: torch.device | str = "cpu",
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        precision: str = "fp32",
        compiled: str = "none",
    ) -> None:
        self.device = torch.device(device)
        self.normalize = Normalize(mean, std)
        self.precision = precision
        self.logits = getattr(network, "cascade", network)
        if compiled != "none":
            self.logits = torch.compile(self.logits, mode="reduce-overhead" if compiled == "cuda_graphs" else "default")

    def __call__(self, image: Tensor) -> Tensor:
        """Return the most likely class of every pixel.

        Args:
            image: (B, 3, H, W) uint8, of any size, on any device.

        Returns:
            (B, H, W) uint8 class indices, on the segmenter's device.
        """
        return self.labels(self.scores(image), image.shape[-2:])

    def labels(self, scores: Tensor, size: Sequence[int]) -> Tensor:
        """Return the label maps (B, H, W) uint8, `size` being (H, W), of what `scores` gave."""
        return label_map(scores, size)

    @torch.inference_mode()
    def scores(self, image: Tensor) -> Tensor:
        """Return the logits (B, C, h, w) float32 at the size the network has them in, an ICNet at 1/4."""
        x = self.normalize(image.to(self.device, non_blocking=True))
        enough = [max(side, MIN_SIZE) for side in x.shape[-2:]]
        if list(x.shape[-2:]) != enough:
            x = resize(x, enough)
        with runtime.autocast(self.device, self.precision):
            return self.logits(x.contiguous(memory_format=torch.channels_last))["out"].float()


def build_segmenter(
    checkpoint: Checkpoint, device: torch.device | str, *, precision: str = "fp32", compiled: str = "none"
) -> Segmenter:
    """Build a checkpoint's network in its inference form, with batch norms folded."""
    network = fold_batch_norms(checkpoint.build()).to(device, memory_format=torch.channels_last)
    return Segmenter(
        network, device=device, mean=checkpoint.mean, std=checkpoint.std, precision=precision, compiled=compiled
    )


def open_segmenter(
    path: str | Path, device: torch.device | str, *, precision: str = "fp32", compiled: str = "none"
) -> tuple[Checkpoint, Segments]:
    """Open a checkpoint, or an ONNX file that `tools/export.py` wrote, to predict with.

    Returns:
        what it is (of an ONNX file without the weights), and what segments images.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is something else, or ONNX Runtime is not installed.
    """
    if Path(path).suffix.lower() == ".onnx":
        segmenter = OnnxSegmenter(path, device)
        return segmenter.description, segmenter
    checkpoint = read_checkpoint(path)
    return checkpoint, build_segmenter(checkpoint, device, precision=precision, compiled=compiled)
