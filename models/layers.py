"""Layers shared by several parts of the network."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm that uses its running statistics in training if there is only one value per channel.

    A single value has no variance, and PyTorch raises an error. It occurs for a batch of 1 with feature maps of 1x1,
    deep in the network for small crops. The running statistics are not updated then; scale and shift still learn.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class ConvBNReLU(nn.Sequential):
    """Bias-free convolution, then batch norm and ReLU; "same" padding, so that only the stride changes the size."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)
        self.bn = BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)


class Classifier(nn.Conv2d):
    """1x1 conv from features to logits, after channel dropout in training."""

    def __init__(self, channels: int, num_classes: int, *, bias: bool = False, dropout: float = 0.0) -> None:
        super().__init__(channels, num_classes, 1, bias=bias)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, num_classes, H, W)."""
        return super().forward(F.dropout2d(x, self.dropout, self.training))


def conv_head(channels: int, num_classes: int, *, dropout: float = 0.0) -> nn.Sequential:
    """Build a head of a 3x3 conv, batch norm, ReLU and a classifier with bias."""
    return nn.Sequential(ConvBNReLU(channels, channels), Classifier(channels, num_classes, bias=True, dropout=dropout))


def scaled(channels: int, width: float) -> int:
    """Return the share `width` of a number of channels, rounded, at least 1."""
    return max(1, round(channels * width))


def resize(x: Tensor, size: Sequence[int], *, align_corners: bool = True) -> Tensor:
    """Resize (B, C, H, W) bilinearly to `size`.

    Args:
        align_corners: align the centres of the corner pixels, as the published network does, instead of the corners of
            the image, as mmsegmentation does.
    """
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=align_corners)


def resize_target(target: Tensor, size: Sequence[int], *, align_corners: bool = True) -> Tensor:
    """Resize label maps (B, H, W) by nearest neighbour, in the alignment of `resize`.

    differs from the published code: it interpolated the class ids bilinearly, which invents classes (1 between 0 and 2)
    and turns ignored pixels into labelled ones; see `utils.loss.interpolate_labels`.
    """
    rows, columns = (
        _nearest(full, small, target, align_corners) for full, small in zip(target.shape[-2:], size, strict=True)
    )
    return target[:, rows[:, None], columns]


def _nearest(full: int, small: int, like: Tensor, align_corners: bool) -> Tensor:
    """Return, for each of `small` pixels, the index of the nearest of `full` pixels."""
    if align_corners:
        return torch.linspace(0, full - 1, small, device=like.device).round().long()
    return (2 * torch.arange(small, device=like.device) + 1) * full // (2 * small)


def shrink(x: Tensor, factor: int, *, align_corners: bool = True) -> Tensor:
    """Resize (B, C, H, W) bilinearly to (H // factor, W // factor).

    Without aligned corners the output pixels are exactly `factor` apart, so a remainder of the image is cut off.
    """
    if align_corners:
        return resize(x, [side // factor for side in x.shape[-2:]])
    return F.interpolate(x, scale_factor=1 / factor, mode="bilinear", align_corners=False)


def subsample(x: Tensor, factor: int) -> Tensor:
    """Keep every `factor`-th row and column of (B, C, H, W), from the first: -> (B, C, ceil(H / factor), …).

    For sides one above a multiple of `factor`, this equals bilinear resizing with aligned corners.
    """
    return x[..., ::factor, ::factor]


def conv_of_resized(
    x: Tensor,
    weight: Tensor,
    size: Sequence[int],
    *,
    bias: Tensor | None = None,
    dilation: int = 1,
    align_corners: bool = True,
) -> Tensor:
    """Compute a padded 3x3 convolution of `resize(x, size)`, mixing the channels before the resize.

    Convolution and bilinear resizing are both linear, so W * up(x), the sum over the nine taps k of shifted W_k up(x),
    is the sum of shifted up(W_k x): nine 1x1 convolutions at the small size. Resizing, shifting and summing are then
    one matrix per axis, and as each pixel's taps and channels are adjacent in memory, no product needs a copy.

    Args:
        x: (B, C, h, w).
        weight: (D, C, 3, 3).
        size: (H, W).
        bias: (D,), present once batch norms are folded.
        align_corners: see `resize`.

    Returns:
        (B, D, H, W).
    """
    rows, columns = (
        _shifted_resizing_matrices(small, large, dilation, x, align_corners)
        for small, large in zip(x.shape[-2:], size, strict=True)
    )
    taps = weight.permute(2, 3, 0, 1).flatten(1, 2)[..., None, None]  # (3, 3 D, C, 1, 1): a row of the kernel at a time
    y = torch.cat([F.conv2d(x, row).permute(0, 2, 3, 1) for row in taps], 1)  # (B, 3 h, w, 3 D)
    y = rows.flatten(1) @ y.flatten(2)  # (B, H, w 3 D)
    y = columns.transpose(1, 2).flatten(1) @ y.unflatten(2, (-1, len(weight)))  # (B, H, W, D)
    y = y.permute(0, 3, 1, 2)
    return y if bias is None else y + bias[:, None, None]


def _shifted_resizing_matrices(small: int, large: int, dilation: int, like: Tensor, align_corners: bool) -> Tensor:
    """Return the matrices (large, 3, small) that resize an axis and shift it by each tap of a 3-tap convolution."""
    identity = torch.eye(small, dtype=like.dtype, device=like.device)[None, None]
    matrix = resize(identity, (large, small), align_corners=align_corners)[0, 0]
    matrix = F.pad(matrix, (0, 0, dilation, dilation))
    return torch.stack([matrix[k * dilation : k * dilation + large] for k in range(3)], 1)


def conv_of_doubled(x: Tensor, weight: Tensor, size: Sequence[int], *, bias: Tensor | None = None) -> Tensor:
    """Compute a padded 3x3 convolution, with dilation 2, of `resize(x, size)`, `size` being twice that of x, minus one.

    The taps, two pixels apart in the large map, are one pixel apart in `x`, so that convolving and resizing commute:
    the convolution of `x` itself is resized, at a quarter of the FLOPs. The results differ only one pixel inside
    the borders: there, one tap falls outside the large map, where the padding is 0, but the resized convolution counts
    half of the border pixel of `x`. That half is subtracted. For any other size, at least 3x3, the operation is defined
    by this computation.

    Args and returns: as for `conv_of_resized`, with aligned corners.
    """
    (height, width), first, last = size, slice(0, 1), slice(-1, None)
    y = resize(F.conv2d(x, weight, bias, padding=1), size)
    top, bottom = (
        F.conv2d(resize(x[:, :, end], (1, width)), weight[:, :, end], padding=(0, 2), dilation=2) / 2
        for end in (first, last)
    )
    left, right = (
        resize(F.conv2d(x[..., end], weight[..., end], padding=(1, 0)), (height, 1)) / 2 for end in (first, last)
    )
    # concatenated, as exported networks take far longer to assign to a part of a map
    y = torch.cat([y[:, :, :1], y[:, :, 1:2] - top, y[:, :, 2:]], 2)
    y = torch.cat([y[:, :, :-2], y[:, :, -2:-1] - bottom, y[:, :, -1:]], 2)
    y = torch.cat([y[..., :1], y[..., 1:2] - left, y[..., 2:]], 3)
    return torch.cat([y[..., :-2], y[..., -2:-1] - right, y[..., -1:]], 3)
