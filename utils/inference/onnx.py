"""Exported networks in ONNX Runtime."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from utils.inference.exported import METADATA, ExportedSegmenter


class OnnxSegmenter(ExportedSegmenter):
    """An ONNX file in ONNX Runtime.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file of another kind, or ONNX Runtime is not usable.
    """

    def __init__(self, path: str | Path, device: torch.device | str = "cpu") -> None:
        if not Path(path).is_file():
            raise FileNotFoundError(f"no ONNX file {path}; python tools/export.py writes one")
        self.session = _open_session(path, torch.device(device))
        provider = self.session.get_providers()[0]
        self.runtime = f"ONNX Runtime ({provider})"
        self.device = torch.device(device if provider.startswith("CUDA") else "cpu")
        self.input = self.session.get_inputs()[0].name
        metadata = self.session.get_modelmeta().custom_metadata_map.get(METADATA)
        super().__init__(Path(path), metadata)

    def infer(self, image: np.ndarray) -> np.ndarray:
        """Run the network on its input (B, 3, H, W); return its output."""
        try:
            return self.session.run(None, {self.input: image})[0]
        except Exception as error:  # see `_open_session`
            if "Failed to allocate memory" in str(error):
                raise MemoryError from None
            raise


def _open_session(path: str | Path, device: torch.device) -> Any:  # onnxruntime has no types
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    settings = {"device_id": device.index or 0, "cudnn_conv_algo_search": "HEURISTIC"}  # sizes vary
    cuda = [("CUDAExecutionProvider", settings)] if device.type == "cuda" else []
    providers = [entry for entry in cuda if entry[0] in ort.get_available_providers()]
    try:
        return ort.InferenceSession(str(path), options, providers=[*providers, "CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no public base class
        raise ValueError(f"{path} cannot be read as an ONNX file: {str(error).splitlines()[0]}") from None


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime.

    Raises:
        ValueError: it is not installed, or cannot be loaded.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise ValueError("an .onnx file needs ONNX Runtime: pip install -r requirements-onnx.txt") from None
    except ImportError as error:  # such as a DLL that Windows lacks
        raise ValueError(f"ONNX Runtime cannot be loaded: {error}") from None
    onnxruntime.set_default_logger_severity(3)  # errors only
    return onnxruntime
