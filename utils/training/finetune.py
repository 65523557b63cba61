"""Training that begins with trained weights, and leaves parts of them as they are."""

from collections.abc import Sequence

from torch import nn

from utils.checkpoint import Checkpoint
from utils.weights import load_state


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
