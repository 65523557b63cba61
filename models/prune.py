"""Pruning of channels (section 5): kernels with a small sum of absolute weights are removed (arXiv 1608.08710).

The layers of a network are not listed here: which channels belong together is observed while it runs.
"""

import copy
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

SPAN = 1 << 14  # more than any layer's inputs; n * SPAN + input is exact in float32 for fewer than 1024 convolutions


@torch.no_grad()
def prune(wide: nn.Module, narrow: nn.Module) -> dict[str, Tensor]:
    """Return a state dict for `narrow`, made of the kernels of `wide` with the largest sums of absolute weights.

    Layers whose outputs are added to one another keep the same channels, those with the largest sum over all of them.

    Args:
        wide: a network of ungrouped convolutions, batch norms, and operations that do not mix channels.
        narrow: the same network with fewer channels, which says how many each layer keeps.
    """
    convs = {name: module for name, module in wide.named_modules() if isinstance(module, nn.Conv2d)}
    assert all(conv.groups == 1 for conv in convs.values()), "inputs of a group cannot be chosen alone"
    sources = observe_sources(wide)
    kept: dict[str, Tensor] = {}  # by convolution
    for tied in unite([{name} for name in convs] + [added for parts in sources.values() for added in parts.values()]):
        (count,) = {len(narrow.get_parameter(f"{name}.weight")) for name in tied}
        score = torch.stack([convs[name].weight.abs().sum((1, 2, 3)) for name in sorted(tied)]).sum(0)
        kept |= dict.fromkeys(tied, score.topk(count).indices.sort().values)
    inputs = {  # by layer
        name: torch.cat([start + kept[min(added)] for start, added in sorted(parts.items())])
        for name, parts in sources.items()
    }
    state = {}
    for name, tensor in wide.state_dict().items():
        layer = name.rpartition(".")[0]
        if layer in convs:
            tensor = tensor[kept[layer]]
            if layer in inputs and tensor.ndim == 4:
                tensor = tensor[:, inputs[layer]]
        elif layer in inputs and tensor.ndim == 1:  # 0: a batch norm's counter
            tensor = tensor[inputs[layer]]
        state[name] = tensor
    return state


@torch.no_grad()
def observe_sources(network: nn.Module) -> dict[str, dict[int, set[str]]]:
    """Run a network to see where the input channels of each convolution and batch norm come from.

    The batch has one item per convolution: convolution n outputs ones in item n and zeros elsewhere. So at any layer,
    the items that are not zero name the convolutions whose outputs were added there, and the first channel that is not
    zero shows where a concatenation has put them. The weights of convolution n are n * SPAN + the input channel: the
    first one tells which convolution runs and, if its weight was split, from which channel on. Batch norms are reset,
    so that they keep ones and zeros apart.

    Returns:
        for each layer, the convolutions whose sum it reads, keyed by the first input channel of that sum. Layers that
        read the image itself are missing.
    """
    network = copy.deepcopy(network)
    for module in network.modules():
        module.training = bool(list(module.children()))  # all outputs, but no dropout nor batch statistics
    convs = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    sources: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))

    def read(layer: str, x: Tensor, first: int = 0) -> None:
        for number in x.flatten(1).any(1).nonzero().flatten().tolist():
            start = int(x[number].flatten(1).any(1).nonzero()[0])
            sources[layer][first + start].add(convs[number])

    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
            module.register_forward_pre_hook(lambda _, inputs, name=name: read(name, *inputs))
    for number, name in enumerate(convs):
        weight = network.get_parameter(f"{name}.weight")
        weight.copy_(number * SPAN + torch.arange(weight.shape[1])[:, None, None].expand_as(weight))
    with _Marking(lambda x, mark: read(convs[mark // SPAN], x, mark % SPAN)):
        network(torch.zeros(len(convs), 3, 64, 64))
    return sources


class _Marking(TorchDispatchMode):
    """Makes each convolution output ones in its own batch item, zeros elsewhere, to show which outputs are added.

    Convolutions are identified by their weights, as some are computed by functions that rearrange these.

    Args:
        on_read: called with the input of each convolution and its first weight.
    """

    def __init__(self, on_read: Any) -> None:
        super().__init__()
        self.on_read = on_read

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is not torch.ops.aten.convolution.default:
            return function(*args, **(kwargs or {}))
        x, weight = args[:2]
        mark = int(weight.flatten()[0])
        self.on_read(x, mark)
        shape = function(*(arg.to("meta") if isinstance(arg, Tensor) else arg for arg in args)).shape
        output = x.new_zeros(shape)
        output[mark // SPAN] = 1
        return output


def unite(sets: Iterable[set[str]]) -> list[set[str]]:
    """Merge all sets that have an element in common."""
    united: list[set[str]] = []
    for new in sets:
        touching = [old for old in united if old & new]
        united = [old for old in united if not old & new] + [new.union(*touching)]
    return united
