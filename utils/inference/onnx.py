"""An exported network in ONNX Runtime."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataset.transforms import Normalize
from models.icnet import MIN_SIZE
from models.layers import resize, resize_target
from utils.inference.label_map import label_map
from utils.weights.checkpoint import Checkpoint

METADATA = "icnet"  # key of the JSON metadata in exported files
DTYPES = {"tensor(uint8)": np.uint8, "tensor(float16)": np.float16, "tensor(float)": np.float32}


class OnnxSegmenter:
    """A file written by `tools/export.py` in ONNX Runtime, implementing `utils.inference.segmenter.Segmenter`.

    Attributes:
        checkpoint: the file's metadata, as a checkpoint without weights.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file of another kind, or ONNX Runtime is not installed.
    """

    def __init__(self, path: str | Path, device: torch.device | str = "cpu") -> None:
        if not Path(path).is_file():
            raise FileNotFoundError(f"no ONNX file {path}; python tools/export.py writes one")
        self.session = _open_session(path, torch.device(device))
        metadata = self.session.get_modelmeta().custom_metadata_map
        if METADATA not in metadata:
            raise ValueError(f"{path} was not written by tools/export.py: it does not name its classes")
        facts = json.loads(metadata[METADATA])
        self.gives_scores = facts["output"] == "logits"
        self.align_corners = facts["align_corners"]
        self.checkpoint = Checkpoint.from_metadata(facts, state_dict={}, source=Path(path))
        self.runtime = f"ONNX Runtime ({self.session.get_providers()[0]})"
        self.precision = facts.get("precision", "fp32")  # files exported before it was recorded
        self.normalize = None if facts["normalized_inside"] else Normalize(self.checkpoint.mean, self.checkpoint.std)

    def __call__(self, image: Tensor) -> Tensor:
        """Return the most likely class of every pixel: (B, 3, H, W) uint8 of any size -> (B, H, W) uint8."""
        size = image.shape[-2:]
        if self.gives_scores:
            return label_map(self.scores(image), size, align_corners=self.align_corners)
        labels = self._run(image)
        return labels if labels.shape[-2:] == size else resize_target(labels, size)

    def scores(self, image: Tensor) -> Tensor:
        """Return the logits (B, C, h, w): (B, 3, H, W) uint8 -> float32.

        Raises:
            ValueError: the file was exported to give label maps.
        """
        if not self.gives_scores:
            raise ValueError(f"{self.checkpoint.source} gives only label maps; export it with --output logits")
        return self._run(image).float()

    def _run(self, image: Tensor) -> Tensor:
        image = image.cpu()
        size = [max(side, MIN_SIZE) for side in image.shape[-2:]]
        if list(image.shape[-2:]) != size:
            image = resize(image.float(), size, align_corners=self.align_corners).round().to(torch.uint8)
        values = image if self.normalize is None else self.normalize(image)
        entry = self.session.get_inputs()[0]
        return torch.from_numpy(self.session.run(None, {entry.name: values.numpy().astype(DTYPES[entry.type])})[0])


def _open_session(path: str | Path, device: torch.device) -> Any:  # onnxruntime has no types
    ort = _onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    cuda = [("CUDAExecutionProvider", {"device_id": device.index or 0})] if device.type == "cuda" else []
    providers = [entry for entry in cuda if entry[0] in ort.get_available_providers()]
    try:
        return ort.InferenceSession(str(path), options, providers=[*providers, "CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no public base class
        raise ValueError(f"{path} cannot be read as an ONNX file: {str(error).splitlines()[0]}") from None


def _onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError:
        raise ValueError("an .onnx file needs ONNX Runtime: pip install -r requirements-onnx.txt") from None
    onnxruntime.set_default_logger_severity(3)  # errors only
    return onnxruntime
