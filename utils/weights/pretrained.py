"""Starting training from trained weights: a whole network, or an ImageNet backbone; and freezing parts of it."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from models import ICNet
from utils.weights.checkpoint import Checkpoint
from utils.weights.layouts import MMSEG_STEM, rename
from utils.weights.tensors import load_state, read_tensors, state_dict_of


def load_pretrained(network: ICNet, checkpoint: Checkpoint) -> list[str]:
    """Load a checkpoint's weights, except classifiers for another number of classes, which stay random.

    Returns:
        the names of the tensors left out.

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
    for key in ("ppm", "sub4_input"):  # the tensors may fit even if these differ
        then, now = checkpoint.structure[key], network.structure[key]
        if then != now:
            raise ValueError(
                f"model.weights {checkpoint.describe()}: trained with model.{key}={then}, not {now}; "
                f"set model.{key}={then}"
            )
    return left_out


def load_backbone(backbone: nn.Module, path: Path) -> None:
    """Load ImageNet weights with the tensor names of torchvision, or of OpenMMLab's ResNets, into a backbone.

    Raises:
        FileNotFoundError, ValueError: no such file, or weights that do not fit.
    """
    state = state_dict_of(read_tensors(path))
    state = {rename(name, MMSEG_STEM, otherwise=name): tensor for name, tensor in state.items()}
    try:
        load_state(backbone, {name: tensor for name, tensor in state.items() if not name.startswith("fc.")})
    except ValueError as error:
        raise ValueError(
            f"model.backbone_weights {path}: {error}; choose the model.backbone of these weights, or "
            "model.backbone_weights=null"
        ) from None


def freeze(network: nn.Module, parts: Sequence[str]) -> int:
    """Exclude the named parts (`backbone`, `backbone.layer1`, `sub1`, …) from training.

    Returns:
        the number of frozen parameters.

    Raises:
        ValueError: an unknown part, or nothing left to train.
    """
    weights = [name.split(".") for name, _ in network.named_parameters()]
    known = list(dict.fromkeys(".".join(name[:depth]) for name in weights for depth in (1, 2) if len(name) > depth))
    for part in parts:
        if part not in known:
            raise ValueError(f"train.freeze: the network has no part {part!r}; known parts: {', '.join(known)}")
        network.get_submodule(part).requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ValueError(f"train.freeze {list(parts)} leaves nothing to train; freeze fewer parts")
    return sum(parameter.numel() for parameter in network.parameters() if not parameter.requires_grad)
