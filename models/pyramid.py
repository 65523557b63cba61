"""Pyramid pooling, summed or learned: what a pixel learns of the whole image."""

from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import ConvBNReLU, conv_of_resized_bins, pool, resize


class PyramidPooling(nn.Module):
    """Add to the features their means over 1, 2, 3 and 6 bins a side (PSPNet's module without its weights).

    differs from PSPNet: the pooled maps are summed, not concatenated, so there is nothing to learn (section 3.2).
    """

    def __init__(self, bins: tuple[int, ...] = (1, 2, 3, 6), *, align_corners: bool = True) -> None:
        super().__init__()
        self.bins = bins
        self.align_corners = align_corners

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        size = x.shape[-2:]
        return x + sum(resize(pool(x, n), size, align_corners=self.align_corners) for n in self.bins)


class LearnedPyramidPooling(nn.Module):
    """Mix the features with what 1x1 convs make of their means over 1, 2, 3 and 6 bins a side (PSPNet, 1612.01105).

    Args:
        channels: of the features; each mean is brought to a quarter of them, as is the result.
    """

    def __init__(self, channels: int, bins: tuple[int, ...] = (1, 2, 3, 6), *, align_corners: bool = True) -> None:
        super().__init__()
        self.bins = bins
        self.align_corners = align_corners
        self.out_channels = channels // 4
        self.branches = nn.ModuleList(ConvBNReLU(channels, self.out_channels, kernel_size=1) for _ in bins)
        self.bottleneck = ConvBNReLU(len(bins) * self.out_channels + channels, self.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C / 4, H, W)."""
        conv, size = self.bottleneck.conv, x.shape[-2:]
        *weights, weight = conv.weight.split([self.out_channels] * len(self.bins) + [x.shape[1]], dim=1)
        # differs from PSPNet: nothing is resized and concatenated, but each part has its share of the conv's weights.
        y = F.conv2d(x, weight, conv.bias, padding=1)
        for n, branch, weight in zip(self.bins, self.branches, weights, strict=True):
            y = y + conv_of_resized_bins(branch(pool(x, n)), weight, size, align_corners=self.align_corners)
        return self.bottleneck.relu(self.bottleneck.bn(y))
