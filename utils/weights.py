"""Weights in files: read safely, loaded completely, fetched where torchvision has them."""

import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights

from utils.layouts import STEM, rename


def read_weights(path: Path) -> Any:
    """Read tensors and plain values from a file, and nothing that would run code.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is broken, or holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}; name another (test.ckpt_path, train.resume), or train first")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an error says it all
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a broken file raises depends on where it is broken
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        if "Weights only load failed" in reason[0]:
            reason = ["it holds more than tensors and plain values, and none of that was run"]
        raise ValueError(f"{path} cannot be read as a checkpoint: {reason[0]}") from None


def plain_state(content: Any) -> dict[str, Tensor]:
    """Return a bare state dict, without the `module.` that DataParallel puts before each name."""
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        return {}
    prefix = "module." if all(str(name).startswith("module.") for name in content) else ""
    return {str(name).removeprefix(prefix): tensor for name, tensor in content.items()}


def inner_state(content: Any) -> dict[str, Tensor]:
    """Return the state dict in a file that holds more beside it, as those of OpenMMLab's projects do."""
    return plain_state(content.get("state_dict")) if isinstance(content, Mapping) else {}


def load_state(module: nn.Module, state: Mapping[str, Tensor], *, name_of: Callable[[str], str] = str) -> None:
    """Load weights, every one of them.

    Args:
        name_of: what the file calls a tensor, for errors.

    Raises:
        ValueError: tensors that are missing, left over or of another shape, by name.
    """
    own = module.state_dict()
    faults = {
        "missing": [name_of(name) for name in own if name not in state],
        "unknown": [name_of(name) for name in state if name not in own],
        "of another shape": [
            f"{name_of(name)} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
            for name in own
            if name in state and state[name].shape != own[name].shape
        ],
    }
    words = [f"{len(names)} {kind}: {_brief(names)}" for kind, names in faults.items() if names]
    if words:
        raise ValueError(f"the weights do not fit the network; of {len(own)} tensors " + "; ".join(words))
    module.load_state_dict(dict(state))


def load_backbone(backbone: nn.Module, name: str, weights: str) -> None:
    """Load ImageNet weights into a backbone.

    Args:
        name: the backbone's name.
        weights: the name of weights in torchvision (`IMAGENET1K_V1`), which are fetched if they are not in its cache,
            or a file with a state dict of torchvision's layout, or of a ResNet of OpenMMLab's.

    Raises:
        ValueError: no such weights, or they cannot be had or do not fit.
    """
    state = _read_backbone(Path(weights)) if Path(weights).is_file() else _fetch(name, weights)
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    try:
        load_state(backbone, state)
    except ValueError as error:
        raise ValueError(f"model.backbone_weights {weights}: {error}") from None


def _read_backbone(path: Path) -> dict[str, Tensor]:
    content = read_weights(path)
    state = plain_state(content) or inner_state(content)
    return {rename(key, STEM, otherwise=key): value for key, value in state.items()}


def _fetch(name: str, weights: str) -> dict[str, Tensor]:
    plain, _, deep_stem = name.partition("_")
    if deep_stem:
        raise ValueError(
            f"no file {weights}, and torchvision has no ImageNet weights for {name}; set model.backbone_weights to a "
            f"file or to null, or model.backbone to {plain}"
        )
    known = get_model_weights(name).__members__
    if weights not in known:
        raise ValueError(f"model.backbone_weights {weights!r} is neither a file nor one of {', '.join(known)}")
    url = known[weights].url
    try:
        with redirect_stderr(sys.stdout):  # where torch.hub shows its progress
            return known[weights].get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network, or a broken download
        raise ValueError(
            f"could not fetch {url} ({error}); fetch it by other means and set model.backbone_weights to the file, "
            "or to null to train from scratch"
        ) from None


def _brief(names: list[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
