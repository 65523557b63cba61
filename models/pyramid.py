"""Pyramid pooling: global context, with and without learned weights."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import ConvBNReLU, apply_to_pixels, conv_of_resized, pool, pooling_matrix, scaled, upsampling_matrix


class PyramidPooling(nn.Module):
    """Add average-pooled features, of 1x1, 2x2, 3x3 and 6x6 bins, to the features (section 3.2).

    differs from PSPNet: the pooled maps are summed instead of concatenated, so there are no weights.

    Args:
        overlapping: see `models.layers.axis_pooling_matrix`.
        align_corners: see `models.layers.resize`.
    """

    def __init__(
        self, bins: tuple[int, ...] = (1, 2, 3, 6), *, overlapping: bool = False, align_corners: bool = True
    ) -> None:
        super().__init__()
        self.bins = bins
        self.overlapping = overlapping
        self.align_corners = align_corners

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        size = x.shape[-2:]
        down = [pooling_matrix(size, n, x, overlapping=self.overlapping) for n in self.bins]
        up = [upsampling_matrix(n, size, x, align_corners=self.align_corners) for n in self.bins]
        bins = apply_to_pixels(torch.cat(down), x, (-1, 1))  # (B, C, 50, 1): 1 + 4 + 9 + 36 bins
        return x + apply_to_pixels(torch.cat(up, 1), bins, size)


class LearnedPyramidPooling(nn.Module):
    """Combine the features with 1x1 convs of average-pooled ones (PSPNet, arXiv 1612.01105, section 3.2).

    Args:
        channels: of the features; each branch and the output have a quarter of them.
    """

    def __init__(self, channels: int, bins: tuple[int, ...] = (1, 2, 3, 6), *, align_corners: bool = True) -> None:
        super().__init__()
        self.bins = bins
        self.align_corners = align_corners
        self.out_channels = scaled(channels, 1 / 4)
        self.branches = nn.ModuleList(ConvBNReLU(channels, self.out_channels, kernel_size=1) for _ in bins)
        self.bottleneck = ConvBNReLU(len(bins) * self.out_channels + channels, self.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C / 4, H, W)."""
        conv, size = self.bottleneck.conv, x.shape[-2:]
        *weights, weight = conv.weight.split([self.out_channels] * len(self.bins) + [x.shape[1]], dim=1)
        # differs from PSPNet: instead of one conv of the concatenation, the sum of a conv per part, which is the same
        y = F.conv2d(x, weight, conv.bias, padding=1)
        for n, branch, weight in zip(self.bins, self.branches, weights, strict=True):
            y = y + conv_of_resized(branch(pool(x, n)), weight, size, align_corners=self.align_corners)
        return self.bottleneck.relu(self.bottleneck.bn(y))
