"""Export to ONNX and OpenVINO: self-describing files, compared with PyTorch before they are put in place."""

import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dataset.transforms import Normalize
from models import ICNet
from models.fold import fold_batch_norms
from models.layers import resize
from utils.inference.exported import METADATA, ExportedSegmenter
from utils.inference.onnx import OnnxSegmenter, import_onnxruntime
from utils.inference.openvino import OpenVinoSegmenter, import_openvino
from utils.inference.segmenter import PyTorchSegmenter
from utils.io.files import replacing
from utils.runtime import installed
from utils.weights.checkpoint import Checkpoint

Preparation = Callable[[np.ndarray], np.ndarray]
OUTPUTS = ("logits", "labels")
PRECISIONS = ("fp32", "fp16", "int8")
TRIED = ((1, 128, 192), (2, 97, 161))  # (B, H, W): two, in case the export fixed a dimension


def export_onnx(
    checkpoint: Checkpoint,
    path: str | Path,
    *,
    output: str = "logits",
    precision: str = "fp32",
    normalized_inside: bool = True,
    calibration: Iterable[np.ndarray] = (),
) -> float:
    """Write a checkpoint's network as an ONNX file for any batch and image size, and compare it with PyTorch.

    Input "image" (B, 3, H, W); output "logits" (B, num_classes, h, w), see `models.ICNet.cascade`, or "labels"
    (B, H, W) uint8. The metadata, JSON under "icnet", holds classes, colours, normalisation and the training config.

    Args:
        output: one of `OUTPUTS`.
        precision: "fp32" or "fp16", for weights, arithmetic and logits.
        normalized_inside: the input is uint8 RGB, normalised inside the file; otherwise it is normalised already.
        calibration: uint8 RGB images (H, W, 3) for post-training quantisation from fp32 to int8, after which the
            difference from PyTorch is not bounded; empty: no quantisation.

    Returns:
        the largest difference from PyTorch in fp32, see `compare`.

    Raises:
        ValueError: missing packages, or a result that differs from PyTorch's; no file is left then.
    """
    check_packages("onnx")
    program, facts = _trace(checkpoint, output=output, precision=precision, normalized_inside=normalized_inside)
    images, tolerance = list(calibration), 2e-2 if precision == "fp16" else 1e-4
    if images:
        facts["precision"], tolerance = "int8", np.inf
    program.model.metadata_props[METADATA] = json.dumps(facts)
    with replacing(path) as temporary:
        if images:
            _quantize_onnx(program.model_proto, temporary, images, _preparation(checkpoint, normalized_inside))
        else:
            program.save(temporary, external_data=False)
        return compare(OnnxSegmenter(temporary), checkpoint, output, tolerance=tolerance)


def export_openvino(
    checkpoint: Checkpoint,
    path: str | Path,
    *,
    output: str = "logits",
    normalized_inside: bool = True,
    calibration: Iterable[np.ndarray] = (),
) -> float:
    """Write a checkpoint's network as an OpenVINO IR, `path` (.xml) and its .bin, and compare it with PyTorch.

    Args:
        calibration: as for `export_onnx`; NNCF quantises.

    All else is as for `export_onnx`.
    """
    images = list(calibration)
    check_packages("openvino", calibrating=bool(images))
    program, facts = _trace(checkpoint, output=output, precision="fp32", normalized_inside=normalized_inside)
    core, path = import_openvino().Core(), Path(path)
    model = core.read_model(program.model_proto.SerializeToString())
    if images:
        model = _quantize_openvino(model, images, _preparation(checkpoint, normalized_inside))
        facts["precision"] = "int8"
    model.set_rt_info(json.dumps(facts), [METADATA])
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export") as folder:
        temporary = Path(folder, path.name)
        import_openvino().save_model(model, temporary, compress_to_fp16=False)
        difference = compare(OpenVinoSegmenter(temporary), checkpoint, output, tolerance=np.inf if images else 1e-4)
        path.unlink(missing_ok=True)  # rather than with the .bin of another network, if killed in between
        temporary.with_suffix(".bin").replace(path.with_suffix(".bin"))
        temporary.replace(path)
    return difference


def _quantize_openvino(model: Any, images: Sequence[np.ndarray], prepare: Preparation) -> Any:
    """Quantise convolutions to int8 with NNCF, using the activation ranges observed on the images."""
    import nncf

    data = nncf.Dataset(images, prepare)
    return nncf.quantize(model, data, preset=nncf.QuantizationPreset.MIXED, subset_size=len(images))


def _quantize_onnx(model: Any, path: Path, images: Sequence[np.ndarray], prepare: Preparation) -> None:
    """Quantise convolutions to int8 with ONNX Runtime, in its QDQ format, and write the file."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):
        inputs = map(prepare, images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(({"image": image} for image in self.inputs), None)

    quantize_static(model, path, Reader(), op_types_to_quantize=["Conv"], per_channel=True)


def _preparation(checkpoint: Checkpoint, normalized_inside: bool) -> Preparation:
    """Return the function from an image (H, W, 3) to the input (1, 3, H, W) of an exported network."""
    normalize = Normalize(checkpoint.normalization)

    def prepare(image: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        return (tensor if normalized_inside else normalize(tensor)).contiguous().numpy()

    return prepare


def _trace(
    checkpoint: Checkpoint, *, output: str, precision: str, normalized_inside: bool
) -> tuple[torch.onnx.ONNXProgram, dict[str, Any]]:
    """Trace a checkpoint's network for any batch and image size; return the program and the file's metadata.

    Raises:
        ValueError: it cannot be traced.
    """
    network = fold_batch_norms(checkpoint.build())
    facts = {
        **checkpoint.metadata(),
        "align_corners": network.align_corners,
        "output": output,
        "precision": precision,
        "normalized_inside": normalized_inside,
    }
    dtype = torch.float16 if precision == "fp16" else torch.float32
    normalize = Normalize(checkpoint.normalization) if normalized_inside else None
    graph = _Graph(network.to(dtype), normalize=normalize, labels=output == "labels")
    sizes = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    try:
        with torch.inference_mode():
            program = torch.onnx.export(
                graph.eval(),
                (torch.zeros(2, 3, 128, 192, dtype=torch.uint8 if normalized_inside else dtype),),
                dynamo=True,
                verbose=False,
                input_names=["image"],
                output_names=[output],
                dynamic_shapes={"image": sizes},
            )
    except ImportError as error:
        raise ValueError(f"onnxscript does not fit this PyTorch ({error}): pip install -U onnxscript") from error
    except torch.onnx.OnnxExporterError as error:
        cause = error.__cause__ or error  # the error itself begins with general advice
        reason = (str(cause).splitlines() or [type(cause).__name__])[0]
        raise ValueError(f"the network cannot be exported: {reason}") from error
    assert program is not None, "dynamo=True returns it"
    return program, facts


class _Graph(nn.Module):
    """The exported graph: the network, optionally with normalisation before it and the argmax after it."""

    def __init__(self, network: ICNet, *, normalize: Normalize | None, labels: bool) -> None:
        super().__init__()
        self.network, self.normalize, self.labels = network, normalize, labels

    def forward(self, image: Tensor) -> Tensor:
        x = image
        if self.normalize is not None:
            x = self.normalize(image).to(next(self.network.parameters()).dtype)
        logits = self.network.cascade(x)["out"]
        if not self.labels:
            return logits
        full = resize(logits, image.shape[-2:], align_corners=self.network.align_corners)
        return full.argmax(1).to(torch.uint8)


def compare(exported: ExportedSegmenter, checkpoint: Checkpoint, output: str, *, tolerance: float) -> float:
    """Return the largest difference from PyTorch in fp32 over several image sizes.

    For "logits" it is relative to the largest logit; for "labels" it is the share of pixels with another class.

    Raises:
        ValueError: it is above the tolerance.
    """
    network = PyTorchSegmenter(checkpoint.build(), normalization=checkpoint.normalization)
    generator = torch.Generator().manual_seed(0)
    differences = []
    for shape in TRIED:
        image = _smooth_noise(shape, generator)
        if output == "labels":
            found = (exported(image) != network(image)).float().mean()
        else:
            expected = network.scores(image)
            found = (exported.scores(image) - expected).abs().max() / expected.abs().max()
        differences.append(found)
    worst = torch.stack(differences).max().item()  # NaN if one is, unlike Python's max
    if not worst <= tolerance:
        raise ValueError(f"the exported network differs from PyTorch: {output} by {worst:.2g}")
    return worst


def _smooth_noise(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return random images (B, 3, H, W) uint8 without sharp edges, like photographs."""
    batch, height, width = shape
    coarse = 255 * torch.rand(batch, 3, height // 16, width // 16, generator=generator)
    return resize(coarse, (height, width)).to(torch.uint8)


def check_packages(file_format: str, *, calibrating: bool = False) -> None:
    """Raise a ValueError unless the packages for an export to "onnx" or "openvino" are installed and can be loaded."""
    own = ["onnxruntime"] if file_format == "onnx" else ["openvino", *(["nncf"] if calibrating else [])]
    missing = [name for name in ("onnx", "onnxscript", *own) if not installed(name)]
    if missing:
        raise ValueError(f"export needs {', '.join(missing)}: pip install -r requirements-{file_format}.txt")
    import_onnxruntime() if file_format == "onnx" else import_openvino()
