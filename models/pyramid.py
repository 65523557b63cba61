"""Pyramid pooling: global context, with and without learned weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import ConvBNReLU, conv_of_resized, scaled

BINS = (1, 2, 3, 6)  # per side, of the four poolings


class PyramidPooling(nn.Module):
    """Add average-pooled features, of 1x1, 2x2, 3x3 and 6x6 bins, to the features (section 3.2).

    differs from PSPNet: the pooled maps are summed instead of concatenated, so there are no weights. By default, the
    result is `x + sum(resize(adaptive_avg_pool2d(x, n), size) for n in BINS)`, computed as two matrix products, since
    ONNX has no adaptive pooling for variable input sizes.

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
        means = apply_to_pixels(pooling_matrix(size, x, overlapping=self.overlapping), x, (-1, 1))  # (B, C, 50, 1)
        return x + apply_to_pixels(upsampling_matrix(size, x, align_corners=self.align_corners), means, size)


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
        for means, branch, weight in zip(pool(x), self.branches, weights, strict=True):
            y = y + conv_of_resized(branch(means), weight, size, align_corners=self.align_corners)
        return self.bottleneck.relu(self.bottleneck.bn(y))


def pool(x: Tensor) -> list[Tensor]:
    """Average-pool features adaptively, (B, C, H, W), to a map (B, C, n, n) for each n of `BINS`."""
    means = apply_to_pixels(pooling_matrix(x.shape[-2:], x), x, (-1, 1)).flatten(2)
    return [part.unflatten(2, (n, n)) for n, part in zip(BINS, means.split([n * n for n in BINS], 2), strict=True)]


def apply_to_pixels(matrix: Tensor, x: Tensor, size: Sequence[int]) -> Tensor:
    """Multiply a matrix (N, H W) with the pixels of (B, C, H, W); return (B, C, h, w), where h w = N.

    Channels-last memory is neither copied before nor after the product.
    """
    y = matrix @ x.permute(0, 2, 3, 1).flatten(1, 2)
    return y.unflatten(1, tuple(size)).permute(0, 3, 1, 2)


def pooling_matrix(size: Sequence[int], like: Tensor, *, overlapping: bool = False) -> Tensor:
    """Return the matrix (50, H W) of all average poolings; their maps have 1 + 4 + 9 + 36 = 50 bins."""
    rows, columns = (axis_pooling_matrix(side, like, overlapping=overlapping).split(BINS) for side in size)
    # Kronecker products; `torch.kron` fixes their sizes on export
    products = [(r[:, None, :, None] * c[:, None]).flatten(0, 1) for r, c in zip(rows, columns, strict=True)]
    return torch.cat(products).flatten(1).to(like.dtype)


def axis_pooling_matrix(size: int, like: Tensor, *, overlapping: bool = False) -> Tensor:
    """Return the averaging matrix (12, size) of an axis: for each pooling, 1, 2, 3 and 6 bins.

    Args:
        overlapping: bins as in the paper's release, which has them for sizes of 33 and 65: for 1, 2, 3 or 6 bins their
            stride is 1, 1/2, 10/32 or 5/32 of `size - 1`, rounded down here for other sizes, and together they just
            cover `size`. Otherwise adaptive bins, which overlap only if `size` is not a multiple of their number.
    """
    place = torch.arange(size, device=like.device)
    bins, number = (column[:, None] for column in _bins_of_an_axis(like))
    if overlapping:
        stride = (size - 1) * _of_every_bin([32 // n for n in BINS], like)[:, None] // 32
        start = number * stride
        stop = start + size - (bins - 1) * stride
    else:
        start, stop = number * size // bins, -(-(number + 1) * size // bins)
    inside = (place >= start) & (place < stop)
    return inside / inside.sum(1, keepdim=True)


def upsampling_matrix(size: Sequence[int], like: Tensor, *, align_corners: bool = True) -> Tensor:
    """Return the matrix (H W, 50) that resizes the maps of all poolings to `size`, see `resize`, and adds them."""
    rows, columns = (axis_upsampling_matrix(side, like, align_corners=align_corners).split(BINS, 1) for side in size)
    products = [(r[:, None, :, None] * c[:, None]).flatten(2) for r, c in zip(rows, columns, strict=True)]
    return torch.cat(products, 2).flatten(0, 1).to(like.dtype)


def axis_upsampling_matrix(size: int, like: Tensor, *, align_corners: bool = True) -> Tensor:
    """Return the matrix (size, 12) that resizes an axis of each pooling's 1, 2, 3 and 6 bins, bilinearly.

    Computed from its definition, since the exporter takes seconds to resize eight identity matrices of variable size.
    """
    place = torch.arange(size, device=like.device, dtype=torch.float32)[:, None]
    bins, number = _bins_of_an_axis(like)
    if align_corners:
        position = place * (bins - 1) / place[-1].clamp(min=1)
    else:
        position = ((place + 0.5) * bins / size - 0.5).clamp(min=0).minimum(bins - 1)
    return (1 - (position - number).abs()).clamp(min=0)


def _bins_of_an_axis(like: Tensor) -> tuple[Tensor, Tensor]:
    """Return, for each of the 12 bins of an axis, how many its pooling has and which of them it is."""
    return _of_every_bin(BINS, like), torch.cat([torch.arange(n, device=like.device) for n in BINS])


def _of_every_bin(values: Sequence[int], like: Tensor) -> Tensor:
    """Repeat a value of each pooling for each of its bins of an axis: (4,) -> (12,)."""
    return torch.cat([torch.full((n,), value, device=like.device) for n, value in zip(BINS, values, strict=True)])
