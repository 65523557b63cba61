"""Batch norm folding for inference."""

import copy
from itertools import pairwise
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Network = TypeVar("Network", bound=nn.Module)


def fold_batch_norms(network: Network) -> Network:
    """Return a copy in evaluation mode whose batch norms are folded into the convolutions before them.

    Submodules of a batch norm, such as the activation in timm's, remain in its place.
    """
    network = copy.deepcopy(network).eval()
    for (conv_name, conv), (norm_name, norm) in foldable_batch_norms(network):
        network.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm))
        network.set_submodule(norm_name, nn.Sequential(*norm.children()))
    return network


def foldable_batch_norms(network: nn.Module) -> list[tuple[tuple[str, nn.Conv2d], tuple[str, nn.BatchNorm2d]]]:
    """Return each convolution and the batch norm that belongs to it, with their names.

    A batch norm belongs to the convolution directly before it in the order of the network's modules, which holds for
    ICNet and torchvision's networks, and is checked for timm's. Batch norms that follow anything else are kept.
    """
    layers = [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, nn.BatchNorm2d) or not list(module.children())
    ]
    return [
        ((conv_name, conv), (norm_name, norm))
        for (conv_name, conv), (norm_name, norm) in pairwise(layers)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    ]
