"""ICNet for Real-Time Semantic Segmentation on High-Resolution Images (Zhao et al., ECCV 2018, arXiv 1704.08545).

image ──────────► sub1: three convs of stride 2 ───────────────────────────┐
  ├─ x1/2 ─► backbone.shallow = sub2 ─────────────────────► cff_24 ──► cff_12 ──► classifier
  └─ x1/4 ─► backbone (shared) ─► pyramid pooling = sub4 ─────┘
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import BatchNorm2d, ConvBNReLU, dilated_conv_of_resized, pool, resize
from models.resnet import DilatedResNet

MIN_SIZE = 32  # shortest side of an image, so that sub4 is left with a pixel to pool


class Sub1(nn.Sequential):
    """The high-resolution branch: three 3x3 convs of stride 2, (B, 3, H, W) -> (B, 64, H/8, W/8) (section 3.2)."""

    def __init__(self) -> None:
        super().__init__(ConvBNReLU(3, 32, stride=2), ConvBNReLU(32, 32, stride=2), ConvBNReLU(32, 64, stride=2))
        self.out_channels = 64


class PyramidPooling(nn.Module):
    """Add to the features their means over 1, 2, 3 and 6 bins a side (PSPNet's module without its weights).

    differs from PSPNet: the pooled maps are summed, not concatenated, so there is nothing to learn (section 3.2).
    """

    def __init__(self, bins: tuple[int, ...] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return x + sum(resize(pool(x, n), x.shape[-2:]) for n in self.bins)


class CascadeFeatureFusion(nn.Module):
    """Fuse a low-resolution branch into a higher one (CFF, section 3.3), with label guidance (3.4) in training.

    Args:
        low_channels, high_channels: channels of the two branches.
        out_channels: channels of the fused features.
        num_classes: classes of the auxiliary logits.
    """

    def __init__(self, low_channels: int, high_channels: int, out_channels: int, *, num_classes: int) -> None:
        super().__init__()
        self.conv_low = nn.Sequential(
            nn.Conv2d(low_channels, out_channels, 3, padding=2, dilation=2, bias=False),
            BatchNorm2d(out_channels),
        )
        self.conv_high = nn.Sequential(nn.Conv2d(high_channels, out_channels, 1, bias=False), BatchNorm2d(out_channels))
        self.aux_classifier = nn.Conv2d(out_channels, num_classes, 1, bias=False)
        self.resize_last = low_channels >= 1024  # fewer do not outweigh the nine times more channels to resize

    def forward(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the fused features and, in training, the auxiliary logits, both at the size of `high`."""
        low = self._at(high.shape[-2:], low)
        aux = self.aux_classifier(low) if self.training else None
        return F.relu(low + self.conv_high(high)), aux

    def guide(self, low: Tensor, size: Sequence[int]) -> Tensor:
        """Return the auxiliary logits alone, at the `size` that the higher branch would have."""
        return self.aux_classifier(self._at(size, low))

    def _at(self, size: Sequence[int], low: Tensor) -> Tensor:
        """Bring the low branch to the size and channels of the fusion."""
        conv, norm = self.conv_low
        # differs from the published code in the order of resizing and mixing channels, not in what comes out
        if self.resize_last:
            return norm(dilated_conv_of_resized(low, conv.weight, size, bias=conv.bias))
        return norm(conv(resize(low, size)))


class ICNet(nn.Module):
    """The image cascade network (figure 2).

    Built without touching disk or network; for ImageNet weights see `utils.weights.load_backbone`.

    Args:
        num_classes: number of classes to tell apart.
        backbone: one of `models.BACKBONES`; the published checkpoint has "resnet50_v1s".
    """

    def __init__(self, num_classes: int = 19, backbone: str = "resnet50") -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = DilatedResNet(backbone)
        self.pyramid_pooling = PyramidPooling()
        self.sub1 = Sub1()
        shallow, deep = self.backbone.shallow_channels, self.backbone.deep_channels
        self.cff_24 = CascadeFeatureFusion(deep, shallow, 128, num_classes=num_classes)
        self.cff_12 = CascadeFeatureFusion(128, self.sub1.out_channels, 128, num_classes=num_classes)
        self.classifier = nn.Conv2d(128, num_classes, 1, bias=False)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Segment normalised RGB images.

        Args:
            image: (B, 3, H, W), normalised as the backbone was trained; H and W at least 32.

        Returns:
            in evaluation `{"out": logits (B, num_classes, H, W)}`; in training the logits of the cascade, `out` at
            1/4, `aux_8` at 1/8 and `aux_16` at 1/16 of the image's size, finest first.
        """
        outputs = self.cascade(image)
        return outputs if self.training else {"out": resize(outputs["out"], image.shape[-2:])}

    def cascade(self, image: Tensor) -> dict[str, Tensor]:
        """Return what `forward` does in training; in evaluation `out` alone, at 1/4 of the image's size."""
        height, width = image.shape[-2:]
        if min(height, width) < MIN_SIZE:
            raise ValueError(f"ICNet needs images of at least {MIN_SIZE}x{MIN_SIZE} pixels, got {width}x{height}")
        sub1 = self.sub1(image)  # (B, 64, H/8, W/8)
        sub2 = self._sub2(image)  # (B, 512, H/16, W/16)
        sub4 = self._sub4(image)  # (B, 2048, H/32, W/32)
        fused, aux_16 = self.cff_24(sub4, sub2)  # (B, 128, H/16, W/16)
        fused, aux_8 = self.cff_12(fused, sub1)  # (B, 128, H/8, W/8)
        logits = self.classifier(fused)
        # differs from the published code: the 1x1 classifier runs before this resize, with which it commutes.
        logits = resize(logits, (2 * logits.shape[-2], 2 * logits.shape[-1]))  # (B, num_classes, H/4, W/4)
        return {"out": logits, "aux_8": aux_8, "aux_16": aux_16} if self.training else {"out": logits}

    def cut_off(self, image: Tensor, branches: int) -> dict[str, Tensor]:
        """Return as `out` the auxiliary logits of the lowest branches, and run no layer that they do not need.

        Args:
            branches: 1: sub4 alone, at 1/16 of the image's size; 2: sub4 and sub2, at 1/8.
        """
        height, width = image.shape[-2:]
        sub4 = self._sub4(image)
        if branches == 1:
            return {"out": self.cff_24.guide(sub4, (_eighth(height // 2), _eighth(width // 2)))}
        fused, _ = self.cff_24(sub4, self._sub2(image))
        return {"out": self.cff_12.guide(fused, (_eighth(height), _eighth(width)))}

    def _sub2(self, image: Tensor) -> Tensor:
        # differs from the published code: sub2 stops after layer2. Its deep layers' result was never used, cost 60 %
        # of the arithmetic, and fed half-resolution statistics into their batch norms.
        return self.backbone.shallow(resize(image, [side // 2 for side in image.shape[-2:]]))

    def _sub4(self, image: Tensor) -> Tensor:
        return self.pyramid_pooling(self.backbone(resize(image, [side // 4 for side in image.shape[-2:]])))


def _eighth(side: int) -> int:
    """Return what three layers of stride 2 leave of a side, each rounding up."""
    return -(-side // 8)
