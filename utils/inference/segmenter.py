"""Segmenters: from uint8 images to label maps. The base class, and its implementation in PyTorch."""

from abc import ABC, abstractmethod
from functools import partial

import torch
from torch import Tensor

from dataset.transforms import IMAGENET, Normalization, Normalize
from models.fold import fold_batch_norms
from models.icnet import MIN_SIZE, ICNet
from models.layers import resize
from utils import runtime
from utils.inference.label_map import label_map
from utils.weights.checkpoint import Checkpoint

BRANCHES = 3  # of the cascade


class Segmenter(ABC):
    """Base class of all networks that predict label maps, whatever the runtime.

    Attributes:
        device: where the network runs; images may be elsewhere.
        align_corners: how its logits are to be resized, see `models.layers.resize`.
        gives_scores: whether callers should use `scores`; if not, only label maps.
        runtime, precision: what executes the network, and in which precision, for reports.
    """

    device: torch.device
    align_corners: bool
    gives_scores: bool = True
    runtime: str
    precision: str

    def __call__(self, image: Tensor) -> Tensor:
        """Return the most likely class of every pixel: (B, 3, H, W) uint8 -> (B, H, W) uint8."""
        return label_map(self.scores(image), image.shape[-2:], align_corners=self.align_corners)

    @abstractmethod
    def scores(self, image: Tensor) -> Tensor:
        """Return logits, or logarithms of mean probabilities, (B, C, h, w): (B, 3, H, W) uint8 -> float32."""


class PyTorchSegmenter(Segmenter):
    """A network in PyTorch.

    Args:
        network: in evaluation mode on `device`; its weights' dtype is that of the arithmetic.
        normalization: of the input.
        compiled: "default" or "cuda_graphs" for torch.compile, which takes about a minute for each new input size.
        branches: how many of the network's branches to run; fewer are faster and coarser, see `ICNet.partial_cascade`.
    """

    runtime = "PyTorch"

    def __init__(
        self,
        network: ICNet,
        *,
        device: torch.device | str = "cpu",
        normalization: Normalization = IMAGENET,
        compiled: str = "none",
        branches: int = BRANCHES,
    ) -> None:
        self.device = torch.device(device)
        self.normalize = Normalize(normalization)
        self.dtype = next(network.parameters()).dtype
        self.precision = {dtype: name for name, dtype in runtime.DTYPES.items()}[self.dtype]
        self.run = network.cascade if branches == BRANCHES else partial(network.partial_cascade, branches=branches)
        self.align_corners = network.align_corners
        if compiled != "none":
            mode = "reduce-overhead" if compiled == "cuda_graphs" else "default"
            self.run = torch.compile(self.run, mode=mode)

    @torch.inference_mode()
    def scores(self, image: Tensor) -> Tensor:
        """Return the logits (B, C, h, w): (B, 3, H, W) uint8 of any size -> float32, see `models.ICNet.cascade`."""
        image = image.to(self.device, non_blocking=self.device.type == "cuda")  # a CPU would not wait for a GPU's image
        x = self.normalize(enlarged(image, align_corners=self.align_corners))
        return self.run(x.to(self.dtype).contiguous(memory_format=torch.channels_last))["out"].float()


def enlarged(image: Tensor, *, align_corners: bool) -> Tensor:
    """Enlarge images (B, 3, H, W) uint8 that have a side below the smallest that the network takes."""
    size = [max(side, MIN_SIZE) for side in image.shape[-2:]]
    if list(image.shape[-2:]) == size:
        return image
    return resize(image.float(), size, align_corners=align_corners).round().to(torch.uint8)


def build_segmenter(
    checkpoint: Checkpoint,
    device: torch.device | str,
    *,
    precision: str = "fp32",
    compiled: str = "none",
    branches: int = BRANCHES,
) -> PyTorchSegmenter:
    """Build a checkpoint's network for inference: batch norms folded, weights cast to the precision, channels last.

    Weights cast once need less memory than autocast, which casts them in every call.
    """
    network = fold_batch_norms(checkpoint.build()).to(device, runtime.DTYPES[precision])
    network = network.to(memory_format=torch.channels_last)
    return PyTorchSegmenter(
        network, device=device, normalization=checkpoint.normalization, compiled=compiled, branches=branches
    )
