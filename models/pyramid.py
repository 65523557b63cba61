"""Pyramid pooling: global context, with and without learned weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import ConvBNReLU, axis_resizing_matrix, conv_of_resized, scaled

BINS = (1, 2, 3, 6)  # per side, of the four poolings


class PyramidPooling(nn.Module):
    """Add average-pooled features, of 1x1, 2x2, 3x3 and 6x6 bins, to the features (section 3.2).

    differs from PSPNet: the pooled maps are summed instead of concatenated, so there are no weights.

    Args:
        overlapping: see `axis_pooling_matrix`.
        align_corners: see `models.layers.resize`.
    """

    def __init__(self, *, overlapping: bool = False, align_corners: bool = True) -> None:
        super().__init__()
        self.overlapping = overlapping
        self.align_corners = align_corners

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        size = x.shape[-2:]
        down = [pooling_matrix(size, n, x, overlapping=self.overlapping) for n in BINS]
        up = [upsampling_matrix(n, size, x, align_corners=self.align_corners) for n in BINS]
        means = apply_to_pixels(torch.cat(down), x, (-1, 1))  # (B, C, 50, 1): 1 + 4 + 9 + 36 bins
        return x + apply_to_pixels(torch.cat(up, 1), means, size)


class LearnedPyramidPooling(nn.Module):
    """Combine the features with 1x1 convs of average-pooled ones (PSPNet, arXiv 1612.01105, section 3.2).

    Args:
        channels: of the features; each branch and the output have a quarter of them.
    """

    def __init__(self, channels: int, *, align_corners: bool = True) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.out_channels = scaled(channels, 1 / 4)
        self.branches = nn.ModuleList(ConvBNReLU(channels, self.out_channels, kernel_size=1) for _ in BINS)
        self.bottleneck = ConvBNReLU(len(BINS) * self.out_channels + channels, self.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C / 4, H, W)."""
        conv, size = self.bottleneck.conv, x.shape[-2:]
        *weights, weight = conv.weight.split([self.out_channels] * len(BINS) + [x.shape[1]], dim=1)
        # differs from PSPNet: instead of one conv of the concatenation, the sum of a conv per part, which is the same
        y = F.conv2d(x, weight, conv.bias, padding=1)
        for n, branch, weight in zip(BINS, self.branches, weights, strict=True):
            y = y + conv_of_resized(branch(pool(x, n)), weight, size, align_corners=self.align_corners)
        return self.bottleneck.relu(self.bottleneck.bn(y))


def pool(x: Tensor, bins: int) -> Tensor:
    """Adaptive average pooling, (B, C, H, W) -> (B, C, bins, bins).

    As a matrix product, since ONNX has no adaptive pooling for variable input sizes.
    """
    return apply_to_pixels(pooling_matrix(x.shape[-2:], bins, x), x, (bins, bins))


def apply_to_pixels(matrix: Tensor, x: Tensor, size: Sequence[int]) -> Tensor:
    """Multiply a matrix (N, H W) with the pixels of (B, C, H, W); return (B, C, h, w), where h w = N.

    Channels-last memory is neither copied before nor after the product.
    """
    y = matrix @ x.permute(0, 2, 3, 1).flatten(1, 2)
    return y.unflatten(1, tuple(size)).permute(0, 3, 1, 2)


def pooling_matrix(size: Sequence[int], bins: int, like: Tensor, *, overlapping: bool = False) -> Tensor:
    """Return the matrix (bins^2, H W) of average pooling, see `axis_pooling_matrix`."""
    return _kronecker(*(axis_pooling_matrix(side, bins, like, overlapping=overlapping) for side in size)).to(like.dtype)


def _kronecker(rows: Tensor, columns: Tensor) -> Tensor:
    """Return the Kronecker product of two matrices; `torch.kron` fixes their sizes on export."""
    return (rows[:, None, :, None] * columns[:, None]).flatten(2).flatten(0, 1)


def axis_pooling_matrix(size: int, bins: int, like: Tensor, *, overlapping: bool = False) -> Tensor:
    """Return the averaging matrix (bins, size) of an axis.

    Args:
        overlapping: bins as in the paper's release, which has them for sizes of 33 and 65: for 1, 2, 3 or 6 bins their
            stride is 1, 1/2, 10/32 or 5/32 of `size - 1`, rounded down here for other sizes, and together they just
            cover `size`. Otherwise adaptive bins, which overlap only if `size` is not a multiple of `bins`.
    """
    place = torch.arange(size, device=like.device)
    number = torch.arange(bins, device=like.device)[:, None]
    if overlapping:
        stride = (size - 1) * (32 // bins) // 32
        start = number * stride
        stop = start + size - (bins - 1) * stride
    else:
        start, stop = number * size // bins, -(-(number + 1) * size // bins)
    inside = (place >= start) & (place < stop)
    return inside / inside.sum(1, keepdim=True)


def upsampling_matrix(bins: int, size: Sequence[int], like: Tensor, *, align_corners: bool = True) -> Tensor:
    """Return the matrix (H W, bins^2) that resizes a map of bins to `size`, see `resize`."""
    return _kronecker(*(axis_resizing_matrix(bins, side, like, align_corners) for side in size))
