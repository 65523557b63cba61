"""What several parts of the network are made of."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm that, in training, normalises a channel of a single value by its running statistics.

    One value has no variance, and torch makes an error of it. It comes with a batch of 1 wherever a map is 1x1, as deep
    in the network for small crops. The running statistics stay as they are then; scale and shift learn as ever.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class ConvBNReLU(nn.Sequential):
    """A convolution without bias, batch norm, ReLU; padded, so that the stride alone sets the output's size."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)
        self.bn = BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)


class Classifier(nn.Conv2d):
    """A 1x1 conv from features to logits; in training it drops channels with probability `dropout` before."""

    def __init__(self, channels: int, num_classes: int, *, bias: bool = False, dropout: float = 0.0) -> None:
        super().__init__(channels, num_classes, 1, bias=bias)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, num_classes, H, W)."""
        return super().forward(F.dropout2d(x, self.dropout) if self.training and self.dropout else x)


def conv_head(channels: int, num_classes: int, *, dropout: float = 0.0) -> nn.Sequential:
    """A 3x3 conv, batch norm and ReLU before a classifier with bias."""
    return nn.Sequential(ConvBNReLU(channels, channels), Classifier(channels, num_classes, bias=True, dropout=dropout))


def resize(x: Tensor, size: Sequence[int], *, align_corners: bool = True) -> Tensor:
    """Resize (B, C, H, W) bilinearly to `size`.

    Args:
        align_corners: centres of the corner pixels onto one another, as the published network does; otherwise the
            corners of the whole image, as mmsegmentation's does.
    """
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=align_corners)


def shrink(x: Tensor, factor: int, *, align_corners: bool = True) -> Tensor:
    """Resize (B, C, H, W) bilinearly to (H // factor, W // factor).

    Without aligned corners a pixel lies `factor` from the next, so that of a side that is no multiple the end is left.
    """
    if align_corners:
        return resize(x, [side // factor for side in x.shape[-2:]])
    return F.interpolate(x, scale_factor=1 / factor, mode="bilinear", align_corners=False)


def pool(x: Tensor, bins: int) -> Tensor:
    """Average (B, C, H, W) over `bins` a side, as `adaptive_avg_pool2d` does, (B, C, bins, bins).

    As products of matrices, since ONNX has no such pooling for images of any size.
    """
    rows, columns = (_bins(size, bins, x) for size in x.shape[-2:])
    return rows @ x @ columns.T


def _bins(size: int, bins: int, like: Tensor) -> Tensor:
    """Return the matrix (bins, size) that averages over bins; they overlap where `size` is no multiple."""
    place = torch.arange(size, device=like.device)
    number = torch.arange(bins, device=like.device)[:, None]
    inside = (place >= number * size // bins) & (place < -(-(number + 1) * size // bins))
    return (inside / inside.sum(1, keepdim=True)).to(like.dtype)


def dilated_conv_of_resized(
    x: Tensor,
    weight: Tensor,
    size: Sequence[int],
    *,
    bias: Tensor | None = None,
    dilation: int = 2,
    align_corners: bool = True,
) -> Tensor:
    """Give what a padded 3x3 convolution makes of `resize(x, size)`, with the channels mixed before the resize.

    Convolution and bilinear resizing are both linear, so W * up(x), the sum over the nine taps k of W_k up(x) shifted,
    is the sum of up(W_k x) shifted: nine 1x1 convolutions at the small size. Rows and columns are resized and summed
    one after the other, so that fewer channels are left for the second resize.

    Args:
        x: (B, C, h, w).
        weight: (D, C, 3, 3).
        size: (H, W).
        bias: (D,), which a network has whose batch norms are folded.
        align_corners: see `resize`.

    Returns:
        (B, D, H, W).
    """
    (height, width), channels, d = size, len(weight), dilation
    taps = weight.permute(2, 3, 0, 1).reshape(9 * channels, -1, 1, 1)
    y = resize(F.conv2d(x, taps), (x.shape[-2], width), align_corners=align_corners)  # (B, 9 D, h, W)
    y = F.pad(y, (d, d)).unflatten(1, (3, 3, channels))
    y = sum(y[:, :, k, ..., k * d : k * d + width] for k in range(3)).flatten(1, 2)  # (B, 3 D, h, W)
    y = resize(y, (height, width), align_corners=align_corners)
    y = F.pad(y, (0, 0, d, d)).unflatten(1, (3, channels))
    y = sum(y[:, k, :, k * d : k * d + height] for k in range(3))
    return y if bias is None else y + bias[:, None, None]


def conv_of_resized_bins(x: Tensor, weight: Tensor, size: Sequence[int], *, align_corners: bool = True) -> Tensor:
    """Give what a padded 3x3 convolution makes of `resize(x, size)`, for a map of a few bins.

    As in `dilated_conv_of_resized` the nine taps mix the channels at the small size. What is left, resizing, shifting
    and adding up, is for each axis one matrix, with a column for each bin and tap.

    Args:
        x: (B, C, h, w).
        weight: (D, C, 3, 3).
        size: (H, W).
        align_corners: see `resize`.

    Returns:
        (B, D, H, W).
    """
    taps = weight.permute(0, 2, 3, 1).reshape(9 * len(weight), -1, 1, 1)
    y = F.conv2d(x, taps).unflatten(1, (-1, 3, 3)).permute(0, 1, 2, 4, 3, 5)  # (B, D, 3, h, 3, w)
    y = y.flatten(4).flatten(2, 3)  # (B, D, 3 h, 3 w)
    rows, columns = (
        _shifted_resizing(small, large, y, align_corners) for small, large in zip(x.shape[-2:], size, strict=True)
    )
    return rows @ y @ columns.T


def _shifted_resizing(small: int, large: int, like: Tensor, align_corners: bool) -> Tensor:
    """Return the matrix (large, 3 * small) that resizes an axis, once for each tap of a padded 3-tap convolution."""
    identity = torch.eye(small, dtype=like.dtype, device=like.device)[None, None]
    matrix = F.pad(resize(identity, (large, small), align_corners=align_corners)[0, 0], (0, 0, 1, 1))
    return torch.cat([matrix[k : k + large] for k in range(3)], 1)


def resize_target(target: Tensor, size: Sequence[int], *, align_corners: bool = True) -> Tensor:
    """Resize label maps (B, H, W) by taking the label nearest to where the logits' pixel lies.

    differs from the published code: it interpolated the class numbers bilinearly, which invents classes (between 0 and
    2 lies 1) and turns ignored pixels into labelled ones.
    """
    rows, cols = (
        _nearest(full, small, target, align_corners) for full, small in zip(target.shape[-2:], size, strict=True)
    )
    return target[:, rows[:, None], cols]


def _nearest(full: int, small: int, like: Tensor, align_corners: bool) -> Tensor:
    """Return, for each of `small` pixels, the number of the one of `full` that is nearest to its centre."""
    if align_corners:
        return torch.linspace(0, full - 1, small, device=like.device).round().long()
    return (2 * torch.arange(small, device=like.device) + 1) * full // (2 * small)
