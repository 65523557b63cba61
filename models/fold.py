"""The inference form of a network: batch norms folded into the convolutions before them."""

import copy
from itertools import pairwise
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Network = TypeVar("Network", bound=nn.Module)


def fold_batch_norms(network: Network) -> Network:
    """Return a copy, in evaluation mode, that gives the same output without batch norms.

    In evaluation a norm is a scale and a shift per channel, which the convolution before it can take over. A norm
    belongs to the convolution that stands right before it in the network's list of modules, as it does in ICNet and in
    torchvision's networks; one that follows something else stays.
    """
    network = copy.deepcopy(network).eval()
    leaves = [(name, module) for name, module in network.named_modules() if not list(module.children())]
    for (conv_name, conv), (norm_name, norm) in pairwise(leaves):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            network.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm))
            network.set_submodule(norm_name, nn.Identity())
    return network
