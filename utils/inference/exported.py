"""The base class of exported networks, whichever runtime runs them."""

import json
from abc import abstractmethod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dataset.transforms import Normalize
from models.layers import resize_target
from utils.inference.segmenter import Segmenter, enlarged
from utils.weights.checkpoint import Checkpoint

METADATA = "icnet"  # key of the JSON metadata in exported files
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}  # of the file for each runtime


def runtime_of(path: str | Path) -> str:
    """Return the runtime that a file needs, from its suffix: "onnx", "openvino", or "pytorch" for a checkpoint."""
    return next((name for name, suffix in SUFFIXES.items() if Path(path).suffix.lower() == suffix), "pytorch")


class ExportedSegmenter(Segmenter):
    """A file written by `tools/export.py`.

    Args:
        metadata: JSON text stored in the file; None if there is none.

    Attributes:
        checkpoint: the metadata, as a checkpoint without weights.

    Raises:
        ValueError: a file without metadata, or with damaged metadata.
    """

    device = torch.device("cpu")

    def __init__(self, path: Path, metadata: str | None) -> None:
        if metadata is None:
            raise ValueError(f"{path} was not written by tools/export.py: it does not name its classes")
        try:
            facts = json.loads(metadata)
            self.gives_scores = facts["output"] == "logits"
            self.align_corners = facts["align_corners"]
            self.precision = facts["precision"]
            inside = facts["normalized_inside"]
            self.checkpoint = Checkpoint.from_metadata(facts, state_dict={}, source=path)
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path}: its metadata is damaged; export it again with tools/export.py") from None
        self.normalize = None if inside else Normalize(self.checkpoint.normalization)
        self.dtype = np.uint8 if inside else np.float16 if self.precision == "fp16" else np.float32

    @abstractmethod
    def infer(self, image: np.ndarray) -> np.ndarray:
        """Run the network on its input (B, 3, H, W); return its output."""

    def __call__(self, image: Tensor) -> Tensor:
        """Return the most likely class of every pixel: (B, 3, H, W) uint8 of any size -> (B, H, W) uint8."""
        if self.gives_scores:
            return super().__call__(image)
        labels, size = self._run(image), image.shape[-2:]
        return labels if labels.shape[-2:] == size else resize_target(labels, size, align_corners=self.align_corners)

    def scores(self, image: Tensor) -> Tensor:
        """Return the logits (B, C, h, w): (B, 3, H, W) uint8 -> float32.

        Raises:
            ValueError: the file was exported to give label maps.
        """
        if not self.gives_scores:
            raise ValueError(f"{self.checkpoint.source} gives only label maps; export it with --output logits")
        return self._run(image).float()

    def _run(self, image: Tensor) -> Tensor:
        image = enlarged(image.cpu(), align_corners=self.align_corners)
        values = image if self.normalize is None else self.normalize(image)
        return torch.from_numpy(self.infer(values.contiguous().numpy().astype(self.dtype, copy=False)))
