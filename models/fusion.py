"""Cascade feature fusion (CFF)."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import BatchNorm2d, Classifier, conv_of_doubled, conv_of_resized, resize


class CascadeFeatureFusion(nn.Module):
    """Fuse a low-resolution branch into a higher one (section 3.3), with label guidance (3.4) in training.

    Args:
        low_channels, high_channels: channels of the two branches.
        out_channels: channels of the fused features.
        num_classes: classes of the auxiliary logits.
        head: builds the auxiliary classifier from its channels and classes.
        rectified: apply a ReLU to each branch before the sum, besides the one after it.
        align_corners: see `models.layers.resize`.
        doubling: fuse n pixels with 2 n - 1, as in the paper's release: the auxiliary classifier reads the enlarged low
            branch instead of its convolution, which is computed before the enlarging, see `conv_of_doubled`.
    """

    def __init__(
        self,
        low_channels: int,
        high_channels: int,
        out_channels: int,
        *,
        num_classes: int,
        head: Callable[[int, int], nn.Module] = Classifier,
        rectified: bool = False,
        align_corners: bool = True,
        doubling: bool = False,
    ) -> None:
        super().__init__()
        self.conv_low = nn.Sequential(
            nn.Conv2d(low_channels, out_channels, 3, padding=2, dilation=2, bias=False),
            BatchNorm2d(out_channels),
        )
        self.conv_high = nn.Sequential(nn.Conv2d(high_channels, out_channels, 1, bias=False), BatchNorm2d(out_channels))
        self.aux_classifier = head(low_channels if doubling else out_channels, num_classes)
        self.activation = nn.ReLU() if rectified else nn.Identity()
        self.align_corners = align_corners
        self.doubling = doubling
        # with fewer, resizing nine times the fused channels costs more than it saves
        self.resize_last = low_channels >= 8 * out_channels

    def forward(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the fused features and, in training, the auxiliary logits, both at the size of `high`."""
        projected = self._project(low, high.shape[-2:])
        aux = self._classify(low, projected) if self.training else None
        return F.relu(projected + self.activation(self.conv_high(high))), aux

    def auxiliary_logits(self, low: Tensor, size: Sequence[int]) -> Tensor:
        """Return only the auxiliary logits, at the `size` of the higher branch."""
        return self._classify(low, self._project(low, size))

    def _classify(self, low: Tensor, projected: Tensor) -> Tensor:
        if self.doubling:  # the 1x1 classifier commutes with resizing
            return resize(self.aux_classifier(low), projected.shape[-2:], align_corners=self.align_corners)
        return self.aux_classifier(projected)

    def _project(self, low: Tensor, size: Sequence[int]) -> Tensor:
        """Bring the low branch to the size and channels of the fused features."""
        conv, norm = self.conv_low
        assert isinstance(conv, nn.Conv2d), conv
        # differs from the published code in the order of resizing and mixing channels, not in the result
        if self.doubling:
            low = conv_of_doubled(low, conv.weight, size, bias=conv.bias)
        elif self.resize_last:
            low = conv_of_resized(low, conv.weight, size, bias=conv.bias, dilation=2, align_corners=self.align_corners)
        else:
            low = conv(resize(low, size, align_corners=self.align_corners))
        return self.activation(norm(low))
