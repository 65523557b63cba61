"""An exported network in ONNX Runtime, to be used as one of PyTorch."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from dataset.labels import class_table
from dataset.transforms import Normalize
from models.icnet import MIN_SIZE
from models.layers import resize, resize_target
from utils.inference.label_map import label_map
from utils.weights.checkpoint import Checkpoint

METADATA = "icnet"  # the key under which an exported file says what it is


class OnnxSegmenter:
    """Segment images with a file that `tools/export.py` wrote; see `utils.inference.segmenter.Segments`.

    Attributes:
        description: what the file says of itself, as a checkpoint without weights.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is something else, or ONNX Runtime is not installed.
    """

    def __init__(self, path: str | Path, device: torch.device | str = "cpu") -> None:
        if not Path(path).is_file():
            raise FileNotFoundError(f"no ONNX file {path}; python tools/export.py writes one")
        ort = _onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        cuda = ["CUDAExecutionProvider"] if torch.device(device).type == "cuda" else []
        available = [name for name in (*cuda, "CPUExecutionProvider") if name in ort.get_available_providers()]
        try:
            self.session = ort.InferenceSession(str(path), options, providers=available)
        except Exception as error:  # of classes that ONNX Runtime does not name
            raise ValueError(f"{path} cannot be read as an ONNX file: {str(error).splitlines()[0]}") from None
        known = self.session.get_modelmeta().custom_metadata_map
        if METADATA not in known:
            raise ValueError(f"{path} was not written by tools/export.py: it does not say what its classes are")
        self.facts = json.loads(known[METADATA])
        self.gives_scores = self.facts["output"] == "logits"
        self.description = Checkpoint(
            state_dict={},
            backbone=self.facts["backbone"],
            structure=self.facts["structure"],
            classes=class_table(self.facts["classes"], self.facts["colors"]),
            config=self.facts["config"],
            mean=tuple(self.facts["mean"]),
            std=tuple(self.facts["std"]),
            source=Path(path),
        )
        self.align_corners = self.facts["align_corners"]
        self.normalize = Normalize(self.description.mean, self.description.std)

    def __call__(self, image: Tensor) -> Tensor:
        """Return the most likely class of every pixel: (B, 3, H, W) uint8 -> (B, H, W) uint8, of any size."""
        size = image.shape[-2:]
        if self.gives_scores:
            return label_map(self.scores(image), size, align_corners=self.align_corners)
        labels = self._run(image)
        return labels if labels.shape[-2:] == size else resize_target(labels, size)

    def scores(self, image: Tensor) -> Tensor:
        """Return the logits (B, C, h, w) at the size the network has them in, see `models.ICNet.forward`.

        Raises:
            ValueError: the file was exported to give label maps.
        """
        if not self.gives_scores:
            raise ValueError(f"{self.description.source} gives label maps only; export it with --output logits")
        return self._run(image).float()

    def _run(self, image: Tensor) -> Tensor:
        image = image.cpu()
        enough = [max(side, MIN_SIZE) for side in image.shape[-2:]]
        if list(image.shape[-2:]) != enough:
            image = resize(image.float(), enough, align_corners=self.align_corners).round().to(torch.uint8)
        values = image if self.facts["normalized_inside"] else self.normalize(image)
        kind = {"tensor(uint8)": np.uint8, "tensor(float16)": np.float16, "tensor(float)": np.float32}
        entry = self.session.get_inputs()[0]
        return torch.from_numpy(self.session.run(None, {entry.name: values.numpy().astype(kind[entry.type])})[0])


def _onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError:
        raise ValueError("an .onnx file needs ONNX Runtime: pip install -r requirements-onnx.txt") from None
    onnxruntime.set_default_logger_severity(3)  # errors only
    return onnxruntime
