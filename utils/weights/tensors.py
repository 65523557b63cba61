"""Files of tensors, and state dicts: reading them safely, loading them completely."""

import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.io.files import replacing


def read_tensors(path: Path) -> Any:
    """Load a file of tensors and plain values without running any code from it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or one that holds other objects.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"no checkpoint {path}; correct the path (--ckpt, test.ckpt_path, train.resume, model.weights, "
            "loss.distill), or train first"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error says enough
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if "Weights only load failed" in reason:
            reason = (
                "it holds more than tensors and plain values, and nothing in it was run; if you trust it, load it with "
                "torch.load(…, weights_only=False) and save its state dict alone"
            )
        raise ValueError(f"{path} cannot be read as a checkpoint: {reason}") from None


def write_tensors(path: str | Path, content: Any) -> None:
    """Write tensors and plain values; a kill or a full disk leaves the previous file at `path` intact.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:
            if not re.search(r"PytorchStreamWriter|inline_container", str(error)):  # errors from writing the file
                raise
            raise OSError(f"cannot write {path}: {str(error).splitlines()[0]}; is the disk full?") from None


def state_dict_of(content: Any) -> dict[str, Tensor]:
    """Return a bare state dict, or that under `state_dict`, without DataParallel's `module.`; {} if there is none."""
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        return {}
    prefix = "module." if all(str(name).startswith("module.") for name in state) else ""
    return {str(name).removeprefix(prefix): tensor for name, tensor in state.items()}


def load_state(module: nn.Module, state: Mapping[str, Tensor], *, name_of: Callable[[str], str] = str) -> None:
    """Load a complete state dict; `name_of` maps names to those in the file, for error messages.

    Raises:
        ValueError: missing, unknown or misshapen tensors, by name.
    """
    own = module.state_dict()
    optional = ".num_batches_tracked"  # the batch norms' counters, which torchvision's oldest files lack
    faults = {
        "missing": [name_of(name) for name in own if name not in state and not name.endswith(optional)],
        "unknown": [name_of(name) for name in state if name not in own],
        "of another shape": [
            f"{name_of(name)} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
            for name in own
            if name in state and state[name].shape != own[name].shape
        ],
    }
    words = [f"{len(names)} {kind}: {_brief(names)}" for kind, names in faults.items() if names]
    if words:
        raise ValueError(f"the weights do not fit the network, which has {len(own)} tensors: {'; '.join(words)}")
    module.load_state_dict(dict(state))


def _brief(names: list[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
