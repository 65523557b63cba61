"""Opening a trained network: from a file and the configuration to a segmenter."""

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock

import torch

from utils import runtime
from utils.config import Config, TestConfig, load_config
from utils.inference.export import export_onnx, export_openvino
from utils.inference.exported import SUFFIXES, ExportedSegmenter, runtime_of
from utils.inference.onnx import OnnxSegmenter
from utils.inference.openvino import OpenVinoSegmenter, check_precision
from utils.inference.segmenter import BRANCHES, Segmenter, build_segmenter
from utils.inference.views import with_options
from utils.io.files import check_folder
from utils.settings import read_yaml
from utils.weights.checkpoint import Checkpoint, read_checkpoint

EXPORT_VERSION = b"3"  # raise it when exported graphs change, so that cached ones are not used
EXPORTING = Lock()  # two threads that open the same network would export it twice


def open_network(
    path: str | Path, device: torch.device, test: TestConfig, *, branches: int = BRANCHES
) -> tuple[Checkpoint, Segmenter]:
    """Open a checkpoint, or a file written by `tools/export.py`, for prediction.

    Args:
        test: runtime and precision, compilation, input size, test-time augmentation and sliding windows.
        branches: how many of the cascade's branches to run; all, unless `test.branches`.

    Returns:
        the checkpoint (without weights for an exported file), and the segmenter.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file of another kind, incompatible options, or a package that is missing or unusable.
    """
    segmenter: Segmenter
    if runtime_of(path) != "pytorch":
        check_exported(Path(path), test)
        segmenter = _open_exported(Path(path), device, test.precision)
        checkpoint = segmenter.checkpoint
    else:
        checkpoint = read_checkpoint(path)
        segmenter = _open_checkpoint(checkpoint, device, test, branches)
    return checkpoint, with_options(segmenter, with_checkpoint_input(checkpoint, test))


def check_exported(path: Path, test: TestConfig) -> None:
    """Raise a ValueError for settings that an exported file cannot follow."""
    name = runtime_of(path)
    if test.runtime not in ("auto", name):
        raise ValueError(
            f"{path} cannot run in test.runtime={test.runtime}; set test.runtime=auto, or name a checkpoint (*.pth)"
        )
    if test.compile != "none":
        raise ValueError(f"{path} cannot be compiled by PyTorch; set test.compile=none, or name a checkpoint (*.pth)")
    if test.branches:
        raise ValueError(f"{path} cannot run single branches; set test.branches=false, or name a checkpoint (*.pth)")
    if name == "onnx" and test.precision not in ("auto", "fp32"):
        raise ValueError(
            f"{path} has its own precision, and test.precision={test.precision} cannot change it; "
            "set test.precision=fp32, or name a checkpoint (*.pth)"
        )


def _open_checkpoint(checkpoint: Checkpoint, device: torch.device, test: TestConfig, branches: int) -> Segmenter:
    """Open a checkpoint in the configured runtime; under "auto" in PyTorch if the runtime chosen cannot run it."""
    in_pytorch = "compile" if test.compile != "none" else "branches" if test.branches else None
    if in_pytorch and test.runtime not in ("auto", "pytorch"):
        raise ValueError(f"test.{in_pytorch} needs PyTorch; set test.runtime=pytorch instead of {test.runtime}")
    only_fp32 = test.runtime == "onnx" and test.precision == "auto"  # ONNX Runtime has no other
    where = torch.device("cpu") if test.runtime == "openvino" else device
    precision = "fp32" if only_fp32 else runtime.choose_precision(test.precision, where)
    name = "pytorch" if in_pytorch else runtime.choose_runtime(test.runtime, device, precision)
    if name != "pytorch":
        try:
            if name == "openvino":
                check_precision(precision)  # before the export
            return _open_exported(_export_once(checkpoint, name), device, precision)
        except (ValueError, OSError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            if test.runtime != "auto":
                raise ValueError(f"test.runtime={name}: {reason}") from error
            hint = "test.runtime=pytorch skips the attempt"
            print(f"using PyTorch, as the network cannot run in {name}: {reason} ({hint})", file=sys.stderr)
    if branches == BRANCHES:  # warn once, although test.branches opens three networks
        runtime.warn_of_emulation(precision, device)
    return build_segmenter(checkpoint, device, precision=precision, compiled=test.compile, branches=branches)


def _open_exported(path: Path, device: torch.device, precision: str) -> ExportedSegmenter:
    if runtime_of(path) == "onnx":
        return OnnxSegmenter(path, device)
    precision = runtime.choose_precision(precision, torch.device("cpu"))  # where OpenVINO runs
    folder = cache_folder()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    usable = folder.is_dir() and os.access(folder, os.W_OK)  # else the network is compiled anew each time
    return OpenVinoSegmenter(path, precision=precision, cache=folder if usable else None)


def _export_once(checkpoint: Checkpoint, name: str) -> Path:
    """Return a checkpoint's network in the format of a runtime, exported into the cache unless it is there already."""
    assert checkpoint.source is not None, "it was read from a file"
    file = cache_folder() / f"{checkpoint.source.stem}-{_digest(checkpoint)}{SUFFIXES[name]}"
    with EXPORTING:
        if not file.is_file():
            check_folder(file.parent, "XDG_CACHE_HOME")  # before half a minute of work
            print(f"exporting the network for {name}, once, to {file}", file=sys.stderr)
            export = export_openvino if name == "openvino" else export_onnx
            export(checkpoint, file)
    return file


def _digest(checkpoint: Checkpoint) -> str:
    """Return 20 hexadecimal digits that identify an exported network.

    They are a hash of what was read rather than of the file, which a training may have replaced in the meantime.
    """
    digest = hashlib.sha256(EXPORT_VERSION + json.dumps(checkpoint.metadata()).encode())
    for name, tensor in checkpoint.state_dict.items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:20]


def cache_folder() -> Path:
    """Return the folder of exported and compiled networks, $XDG_CACHE_HOME/icnet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "icnet"


def with_checkpoint_input(checkpoint: Checkpoint, test: TestConfig) -> TestConfig:
    """Fill in the input size and how the output is resized, where the configuration leaves it to the checkpoint.

    Returns:
        `test`, with at most one of `short_side` and `input_size`; None (or 0) and None to leave images as they are.
    """
    unset = {"resize_probabilities"} if test.resize_probabilities is None else set()
    if test.short_side is None and test.input_size is None:
        unset |= {"short_side", "input_size"}
    given = _own_section(checkpoint, "test")
    own = load_config({"test": {key: given.get(key) for key in unset}}, name=str(checkpoint.source)).test
    return test.model_copy(update={key: getattr(own, key) for key in unset})


def describe_network(checkpoint: Checkpoint, segmenter: Segmenter, test: TestConfig) -> str:
    """Describe an opened network, its runtime and its input size in one line."""
    own = with_checkpoint_input(checkpoint, test)
    resized = f"; images are resized to a short side of {own.short_side}" if own.short_side else ""
    if own.input_size:
        resized = f"; images are resized to {own.input_size[1]}x{own.input_size[0]}"
    return f"{checkpoint.describe()}; {segmenter.runtime}, {segmenter.precision}{resized}"


def with_checkpoint_data(checkpoint: Checkpoint, default: Path, overrides: Sequence[str] = ()) -> Config:
    """Build the configuration for a run without --config: a default file with the dataset of the checkpoint.

    Raises:
        ValueError: a damaged configuration in the checkpoint, or impossible overrides.
    """
    values = read_yaml(default)
    if "dataset" in checkpoint.config:
        train = _own_section(checkpoint, "train")
        root = {key: value for key, value in train.items() if key == "cityscapes_root"}
        values |= {"dataset": checkpoint.config["dataset"], "train": (values.get("train") or {}) | root}
    return load_config(values, overrides, name=str(checkpoint.source))


def _own_section(checkpoint: Checkpoint, name: str) -> Mapping:
    """Return a section of the checkpoint's own configuration, empty if it has none."""
    section = checkpoint.config.get(name) or {}
    if not isinstance(section, Mapping):
        raise ValueError(f"{checkpoint.source}: {name} in its configuration is {section!r:.40}, not a section")
    return section
