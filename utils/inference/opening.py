"""Open a trained network as a configuration says."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from utils import runtime
from utils.config import Config, TestConfig, load_config
from utils.inference.segmenter import BRANCHES, Segments, open_segmenter, read_description
from utils.inference.views import with_options
from utils.settings import read_yaml
from utils.weights.checkpoint import Checkpoint


def open_network(
    path: str | Path, device: torch.device, test: TestConfig, *, branches: int = BRANCHES
) -> tuple[Checkpoint, Segments]:
    """Open a checkpoint or an ONNX file to predict with, as the configuration says.

    Where that does not say to which size images are brought, the file's own configuration does.

    Returns and raises what `utils.inference.segmenter.open_segmenter` and `utils.inference.views.with_options` do.
    """
    precision = runtime.choose_precision(test.precision, device)
    network, segment = open_segmenter(path, device, precision=precision, compiled=test.compile, branches=branches)
    segment = with_options(
        segment,
        short_side=short_side(network, test),
        scales=test.tta.scales,
        flip=test.tta.flip,
        window=test.window,
        stride=test.stride,
        device=device,
    )
    return network, segment


def short_side(network: Checkpoint, test: TestConfig) -> int | None:
    """Return to how many pixels the short side of images is brought; None: they stay as they are."""
    own = {"test": {"short_side": _own_section(network, "test").get("short_side")}}
    chosen = load_config(own, name=str(network.source)).test if test.short_side is None else test
    return chosen.short_side or None


def describe(network: Checkpoint, test: TestConfig) -> str:
    """Say in a line what was opened, and to which size it brings images."""
    side = short_side(network, test)
    return network.describe() + (f"; images are brought to a short side of {side}" if side else "")


def config_with_own_data(path: str | Path, default: Path, overrides: Sequence[str] = ()) -> Config:
    """Build the configuration where the user names none: a default file's, but with the data of a checkpoint.

    Args:
        path: a checkpoint or an ONNX file, whose own configuration says what data it was trained on.
        default: a YAML file for all else.
        overrides: see `utils.config.load_config`.

    Raises:
        FileNotFoundError, ValueError: as `utils.inference.segmenter.open_segmenter` and `utils.config.load_config` do.
    """
    values, network = read_yaml(default), read_description(path)
    if "dataset" in network.config:
        root = {key: value for key, value in _own_section(network, "train").items() if key == "cityscapes_root"}
        values |= {"dataset": network.config["dataset"], "train": (values.get("train") or {}) | root}
    return load_config(values, overrides, name=str(path))


def _own_section(network: Checkpoint, name: str) -> Mapping:
    """Return a section of a checkpoint's own configuration, empty where it has none."""
    section = network.config.get(name) or {}
    if not isinstance(section, Mapping):
        raise ValueError(f"{network.source}: {name} in its own configuration is {section!r:.40}, which is no section")
    return section
