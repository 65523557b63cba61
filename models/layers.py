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
    """A 3x3 convolution without bias, batch norm, ReLU; padded, so that the stride alone sets the output's size."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn = BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (B, C, H, W) bilinearly to `size`, corner pixels onto corner pixels, as the published network does."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)


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
    x: Tensor, weight: Tensor, size: Sequence[int], *, bias: Tensor | None = None, dilation: int = 2
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

    Returns:
        (B, D, H, W).
    """
    (height, width), channels, d = size, len(weight), dilation
    taps = weight.permute(2, 3, 0, 1).reshape(9 * channels, -1, 1, 1)
    y = resize(F.conv2d(x, taps), (x.shape[-2], width))  # (B, 9 D, h, W)
    y = F.pad(y, (d, d)).unflatten(1, (3, 3, channels))
    y = sum(y[:, :, k, ..., k * d : k * d + width] for k in range(3)).flatten(1, 2)  # (B, 3 D, h, W)
    y = F.pad(resize(y, (height, width)), (0, 0, d, d)).unflatten(1, (3, channels))
    y = sum(y[:, k, :, k * d : k * d + height] for k in range(3))
    return y if bias is None else y + bias[:, None, None]
