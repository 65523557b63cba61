"""The two small things that every part of the network is made of."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class ConvBNReLU(nn.Sequential):
    """Convolve without bias, normalise, rectify; "same" padding, so that stride alone sets the output size."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, *, stride: int = 1, relu: bool = True
    ) -> None:
        padding = kernel_size // 2
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        if relu:
            self.relu = nn.ReLU(inplace=True)


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (B, C, H, W) bilinearly to `size`, corner pixels onto corner pixels, as the published network does."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)
