"""What several parts of the network are made of."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class ConvBNReLU(nn.Sequential):
    """A 3x3 convolution without bias, batch norm, ReLU; padded, so that the stride alone sets the output's size."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (B, C, H, W) bilinearly to `size`, corner pixels onto corner pixels, as the published network does."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)
