"""Exported networks in OpenVINO, for CPUs."""

from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch

from utils.inference.exported import METADATA, ExportedSegmenter

HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoSegmenter(ExportedSegmenter):
    """An OpenVINO IR (.xml with its .bin) compiled for the CPU.

    Args:
        precision: "fp32" or "bf16" for the arithmetic; layers quantised to int8 in the file stay so.
        cache: folder for compiled networks, which makes the next start faster; None for no cache.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file of another kind, a precision that the CPU lacks, or OpenVINO is not usable.
    """

    def __init__(self, path: str | Path, *, precision: str = "fp32", cache: Path | None = None) -> None:
        if not Path(path).is_file():
            raise FileNotFoundError(f"no OpenVINO file {path}; python tools/export.py --format openvino writes one")
        core = import_openvino().Core()
        check_precision(precision)
        _check_header(Path(path))
        try:
            model = core.read_model(path)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ValueError(f"{path}, with its .bin, cannot be read as an OpenVINO file: {reason}") from None
        metadata = model.get_rt_info(METADATA).astype(str) if model.has_rt_info(METADATA) else None
        super().__init__(Path(path), metadata)
        if self.gives_scores:
            model = _channels_last(model)
        config = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        self.network = core.compile_model(model, "CPU", config | ({"CACHE_DIR": str(cache)} if cache else {}))
        self.request = self.network.create_infer_request()
        self.lock = Lock()
        self.runtime = "OpenVINO"
        self.precision = precision if self.precision == "fp32" else f"{self.precision} and {precision}"

    def infer(self, image: np.ndarray) -> np.ndarray:
        """Run the network on its input (B, 3, H, W); return its output."""
        with self.lock:  # the next call, of another thread too, overwrites the tensor
            self.request.infer([image], share_inputs=True)
            output = self.request.get_output_tensor().data.copy()
        return output.transpose(0, 3, 1, 2) if self.gives_scores else output


def _channels_last(model: Any) -> Any:
    """Let a network return its logits as (B, h, w, C), the layout in which `label_map` needs them."""
    step = import_openvino().preprocess.PrePostProcessor(model)
    step.output().model().set_layout(import_openvino().Layout("NCHW"))
    step.output().tensor().set_layout(import_openvino().Layout("NHWC"))
    return step.build()


def _check_header(path: Path) -> None:
    """Raise ValueError unless the file is an IR; given any other file, OpenVINO would try every format it knows."""
    try:
        _, root = next(ElementTree.iterparse(path, events=("start",)))
    except (ElementTree.ParseError, StopIteration):
        root = None
    if root is None or root.tag != "net" or "version" not in root.attrib or not path.with_suffix(".bin").is_file():
        raise ValueError(f"{path} cannot be read as an OpenVINO file: it is not an IR (.xml) with its .bin")


def check_precision(precision: str) -> None:
    """Raise a ValueError for a precision that OpenVINO, or this CPU, does not have."""
    if precision not in HINTS:
        raise ValueError(f"test.precision={precision} is not available in OpenVINO; use {' or '.join(HINTS)}")
    if precision == "bf16" and not has_bf16():
        raise ValueError("test.precision=bf16: this CPU has no bf16 arithmetic (AVX512-BF16 or AMX); use fp32")


def has_bf16() -> bool:
    """Return whether the CPU computes in bf16, with AVX512-BF16 or AMX."""
    return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def import_openvino() -> ModuleType:
    """Import OpenVINO.

    Raises:
        ValueError: it is not installed, or cannot be loaded.
    """
    try:
        import openvino
    except ModuleNotFoundError:
        raise ValueError("OpenVINO is not installed: pip install -r requirements-openvino.txt") from None
    except ImportError as error:  # such as a DLL that Windows lacks
        raise ValueError(f"OpenVINO cannot be loaded: {error}") from None
    return openvino
