"""Batch norm folding for inference."""

import copy
from itertools import pairwise
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Network = TypeVar("Network", bound=nn.Module)


def fold_batch_norms(network: Network) -> Network:
    """Return a copy in evaluation mode whose batch norms are folded into the convolutions before them.

    A batch norm belongs to the convolution directly before it in the order of the network's modules, which holds for
    ICNet and torchvision's networks. Batch norms that follow anything else are kept.
    """
    network = copy.deepcopy(network).eval()
    leaves = [(name, module) for name, module in network.named_modules() if not list(module.children())]
    for (conv_name, conv), (norm_name, norm) in pairwise(leaves):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            network.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm))
            network.set_submodule(norm_name, nn.Identity())
    return network
