"""Opening a trained network: from a file and the configuration to a segmenter."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from utils import runtime
from utils.config import Config, TestConfig, load_config
from utils.inference.onnx import OnnxSegmenter
from utils.inference.segmenter import BRANCHES, Segmenter, build_segmenter
from utils.inference.views import with_options
from utils.settings import read_yaml
from utils.weights.checkpoint import Checkpoint, read_checkpoint


def open_network(
    path: str | Path, device: torch.device, test: TestConfig, *, branches: int = BRANCHES
) -> tuple[Checkpoint, Segmenter]:
    """Open a checkpoint, or an ONNX file written by `tools/export.py`, for prediction.

    Args:
        test: precision, compilation, input size, test-time augmentation and sliding windows.
        branches: how many of the cascade's branches to run.

    Returns:
        the checkpoint (without weights for an ONNX file), and the segmenter.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file of another kind, options that do not go together, or a missing package.
    """
    segmenter: Segmenter
    if Path(path).suffix.lower() == ".onnx":
        if branches < BRANCHES:
            raise ValueError(f"{path} cannot run single branches; name a checkpoint (*.pth)")
        segmenter = OnnxSegmenter(path, device)
        checkpoint = segmenter.checkpoint
    else:
        checkpoint = read_checkpoint(path)
        precision = runtime.choose_precision(test.precision, device)
        segmenter = build_segmenter(checkpoint, device, precision=precision, compiled=test.compile, branches=branches)
    return checkpoint, with_options(
        segmenter,
        short_side=short_side(checkpoint, test),
        scales=test.tta.scales,
        flip=test.tta.flip,
        window=test.window,
        stride=test.stride,
        device=device,
    )


def short_side(checkpoint: Checkpoint, test: TestConfig) -> int | None:
    """Return the size that images' short sides are resized to: the configured one, or else the checkpoint's own.

    Returns:
        pixels; None to leave images as they are.
    """
    if test.short_side is None:
        own = _own_section(checkpoint, "test").get("short_side")
        test = load_config({"test": {"short_side": own}}, name=str(checkpoint.source)).test
    return test.short_side or None


def describe(checkpoint: Checkpoint, test: TestConfig) -> str:
    """Describe an opened network and its input size in one line."""
    side = short_side(checkpoint, test)
    return checkpoint.describe() + (f"; images are resized to a short side of {side}" if side else "")


def with_own_data(checkpoint: Checkpoint, default: Path, overrides: Sequence[str] = ()) -> Config:
    """Build the configuration of a user who names none: a default file with the dataset of the checkpoint.

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
