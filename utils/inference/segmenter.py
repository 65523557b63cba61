"""A trained network at work, from uint8 images to label maps; all that predicts goes through here."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from dataset.transforms import IMAGENET_MEAN, IMAGENET_STD, Normalize
from models.fold import fold_batch_norms
from models.icnet import MIN_SIZE, ICNet
from models.layers import resize
from utils import runtime
from utils.inference.label_map import label_map
from utils.inference.onnx import OnnxSegmenter
from utils.weights.checkpoint import Checkpoint, read_checkpoint

BRANCHES = 3  # of an ICNet


class Segments(Protocol):
    """What tells the class of every pixel of images, be it in PyTorch or in ONNX Runtime.

    Attributes:
        align_corners: how its logits are to be resized, see `models.layers.resize`.
        gives_scores: whether it has scores to give, not label maps alone.
    """

    align_corners: bool
    gives_scores: bool

    def __call__(self, image: Tensor) -> Tensor:
        """Return the most likely class of every pixel: (B, 3, H, W) uint8 -> (B, H, W) uint8, of any size."""

    def scores(self, image: Tensor) -> Tensor:
        """Return the logits (B, C, h, w) at the size the network has them in, see `models.ICNet.forward`."""


class Segmenter:
    """A network of PyTorch that segments images.

    Args:
        network: in evaluation mode, an ICNet (whose `align_corners` holds here too), or a network of torchvision's
            convention (`{"out": logits}`); on `device`.
        mean, std: of the images it was trained on, see `dataset.transforms.Normalize`.
        precision: of the arithmetic, see `utils.runtime.autocast`.
        compiled: "default" or "cuda_graphs": through torch.compile, which takes a minute or so for each new size.
        branches: of an ICNet's three, how many; fewer give coarser label maps in less time, see `ICNet.cut_off`.
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
        branches: int = BRANCHES,
    ) -> None:
        self.device = torch.device(device)
        self.normalize = Normalize(mean, std)
        self.precision = precision
        self.logits = getattr(network, "cascade", network)
        if branches < BRANCHES:
            assert isinstance(network, ICNet), type(network)
            self.logits = partial(network.cut_off, branches=branches)
        self.align_corners = getattr(network, "align_corners", True)  # of torchvision's, logits have full size already
        if compiled != "none":
            self.logits = torch.compile(self.logits, mode="reduce-overhead" if compiled == "cuda_graphs" else "default")

    def __call__(self, image: Tensor) -> Tensor:
        """Return the most likely class of every pixel.

        Args:
            image: (B, 3, H, W) uint8, of any size, on any device.

        Returns:
            (B, H, W) uint8 class indices, on the segmenter's device.
        """
        return label_map(self.scores(image), image.shape[-2:], align_corners=self.align_corners)

    @torch.inference_mode()
    def scores(self, image: Tensor) -> Tensor:
        """Return the logits (B, C, h, w) float32 at the size the network has them in, see `models.ICNet.forward`."""
        x = self.normalize(image.to(self.device, non_blocking=True))
        enough = [max(side, MIN_SIZE) for side in x.shape[-2:]]
        if list(x.shape[-2:]) != enough:
            x = resize(x, enough, align_corners=self.align_corners)
        with runtime.autocast(self.device, self.precision):
            return self.logits(x.contiguous(memory_format=torch.channels_last))["out"].float()


def build_segmenter(
    checkpoint: Checkpoint,
    device: torch.device | str,
    *,
    precision: str = "fp32",
    compiled: str = "none",
    branches: int = BRANCHES,
) -> Segmenter:
    """Build a checkpoint's network in its inference form, with batch norms folded."""
    network = fold_batch_norms(checkpoint.build()).to(device).to(memory_format=torch.channels_last)
    return Segmenter(
        network,
        device=device,
        mean=checkpoint.mean,
        std=checkpoint.std,
        precision=precision,
        compiled=compiled,
        branches=branches,
    )


def read_description(path: str | Path) -> Checkpoint:
    """Read what a checkpoint or an ONNX file says of itself; raises as `open_segmenter` does."""
    return OnnxSegmenter(path).description if _is_onnx(path) else read_checkpoint(path)


def open_segmenter(
    path: str | Path,
    device: torch.device | str,
    *,
    precision: str = "fp32",
    compiled: str = "none",
    branches: int = BRANCHES,
) -> tuple[Checkpoint, Segments]:
    """Open a checkpoint, or an ONNX file that `tools/export.py` wrote, to predict with.

    Returns:
        what it is (of an ONNX file without the weights), and what segments images.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is something else, branches of an ONNX file, or ONNX Runtime is not installed.
    """
    if _is_onnx(path):
        if branches < BRANCHES:
            raise ValueError(f"{path} is one piece, its branches cannot be run alone; name a checkpoint, *.pth")
        segmenter = OnnxSegmenter(path, device)
        return segmenter.description, segmenter
    checkpoint = read_checkpoint(path)
    return checkpoint, build_segmenter(checkpoint, device, precision=precision, compiled=compiled, branches=branches)


def _is_onnx(path: str | Path) -> bool:
    return Path(path).suffix.lower() == ".onnx"
