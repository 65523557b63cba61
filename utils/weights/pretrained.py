"""Training that begins with trained weights, and leaves parts of them as they are."""

import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path

from torch import Tensor, nn
from torchvision.models import get_model_weights

from utils.weights.checkpoint import Checkpoint, inner_state, load_state, plain_state, read_weights
from utils.weights.layouts import STEM, rename


def load_pretrained(network: nn.Module, checkpoint: Checkpoint) -> list[str]:
    """Load a checkpoint's weights; classifiers for another number of classes keep their random ones.

    Returns:
        the names of the tensors that were left out.

    Raises:
        ValueError: weights of another network.
    """
    own = network.state_dict()
    left_out = [
        name
        for name, tensor in checkpoint.state_dict.items()
        if "classifier" in name and name in own and own[name].shape != tensor.shape
    ]
    try:
        load_state(network, checkpoint.state_dict | {name: own[name] for name in left_out})
    except ValueError as error:
        raise ValueError(f"model.weights {checkpoint.describe()}: {error}") from None
    return left_out


def freeze(network: nn.Module, parts: Sequence[str]) -> int:
    """Leave the weights of the named parts (`backbone`, `backbone.layer1`, `sub1`, …) as they are.

    Returns:
        how many parameters that concerns.

    Raises:
        ValueError: a name that is none, or nothing left to train.
    """
    weights = [name.split(".") for name, _ in network.named_parameters()]
    known = list(dict.fromkeys(".".join(name[:depth]) for name in weights for depth in (1, 2) if len(name) > depth))
    for part in parts:
        if part not in known or not part:
            raise ValueError(
                f"train.freeze: the network has no part {part!r}; there are {', '.join(filter(None, known))}"
            )
        network.get_submodule(part).requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ValueError(f"train.freeze {list(parts)} leaves nothing to train; freeze less")
    return sum(parameter.numel() for parameter in network.parameters() if not parameter.requires_grad)


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
