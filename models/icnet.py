"""ICNet for Real-Time Semantic Segmentation on High-Resolution Images (Zhao et al., ECCV 2018, arXiv 1704.08545).

image ──────────► sub1: three convs of stride 2 ───────────────────────────┐
  ├─ x1/2 ─► backbone.shallow = sub2 ─────────────────────► cff_24 ──► cff_12 ──► classifier
  └─ x1/4 ─► backbone (shared) ─► pyramid pooling = sub4 ─────┘

That is the published structure; others are in `models.variants`.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from models.fusion import CascadeFeatureFusion
from models.layers import ConvBNReLU, resize, scaled
from models.pyramid import LearnedPyramidPooling, PyramidPooling
from models.resnet import DilatedResNet
from models.timm_backbone import TIMM, TimmBackbone
from models.variants import VARIANTS, complete_structure

MIN_SIZE = 32  # shortest side of an image, which leaves sub4 one pixel


class Sub1(nn.Sequential):
    """High-resolution branch: three 3x3 convs with stride 2, (B, 3, H, W) -> (B, 64, H/8, W/8) (section 3.2).

    Args:
        width: share of the channels.
    """

    def __init__(self, *, width: float = 1.0) -> None:
        narrow, wide = scaled(32, width), scaled(64, width)
        super().__init__(
            ConvBNReLU(3, narrow, stride=2), ConvBNReLU(narrow, narrow, stride=2), ConvBNReLU(narrow, wide, stride=2)
        )
        self.out_channels = wide


class ICNet(nn.Module):
    """Image cascade network (figure 2), with random weights; for pretrained ones see `utils.weights.pretrained`.

    Args:
        num_classes: number of classes.
        backbone: one of `models.BACKBONES`: "resnet50_v1s" in the published checkpoint and, at half the width, in the
            paper's release; "resnet50_v1c" in mmsegmentation's. Or "timm/NAME", see `models.timm_backbone`. None: the
            variant's default.
        variant: one of `VARIANTS`.
        ppm: pyramid pooling, "sum" (without weights), "concat" (learned) or "none"; None: the variant's default.
        sub4_input: input of sub4, the "image" at 1/4 or the output of "sub2", halved again; None: the variant's
            default.
        width: share of each layer's channels, classifiers excepted; None: the variant's default, 0.5 for "paper", as
            released, and 1 for the others.
        dropout: channel dropout probability in the classifiers.

    Attributes:
        structure: the arguments from `variant` on, resolved; they rebuild the same structure.
        spec: the `Variant`.
        align_corners: how the network resizes, and how its logits are to be resized, see `models.layers.resize`.

    Raises:
        ValueError: an unknown name, an impossible width or dropout, or a timm network that is unsuitable or missing.
    """

    def __init__(
        self,
        num_classes: int = 19,
        backbone: str | None = None,
        *,
        variant: str = "published",
        ppm: str | None = None,
        sub4_input: str | None = None,
        width: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.structure = complete_structure(variant, ppm=ppm, sub4_input=sub4_input, width=width, dropout=dropout)
        self.spec = spec = VARIANTS[variant]
        self.align_corners, width = spec.align_corners, self.structure["width"]
        scale = width / spec.width  # Sub1 and the fusions have 32, 64 and 128 channels at the variant's own width
        self.backbone = _backbone(backbone or spec.backbone, width=width, paper=variant == "paper")
        self.pyramid_pooling, pooled_channels = self._pyramid_pooling(self.structure["ppm"])
        self.sub1 = Sub1(width=scale)
        shallow_channels, fused_channels = self.backbone.shallow_channels, scaled(128, scale)
        self.conv_sub2, sub2_channels = _projection(shallow_channels, shallow_channels, spec.projections[0])
        self.conv_sub4, sub4_channels = _projection(pooled_channels, shallow_channels, spec.projections[1])
        head = partial(spec.head, dropout=dropout)
        fusion = partial(
            CascadeFeatureFusion,
            num_classes=num_classes,
            head=head,
            rectified=spec.rectified,
            doubling=spec.doubling,
            align_corners=self.align_corners,
        )
        self.cff_24 = fusion(sub4_channels, sub2_channels, fused_channels)
        self.cff_12 = fusion(fused_channels, self.sub1.out_channels, fused_channels)
        self.classifier = head(fused_channels, num_classes)
        self._sub2_sizes: dict[torch.Size, torch.Size] = {}

    def _pyramid_pooling(self, kind: str) -> tuple[nn.Module, int]:
        """Return the module and its output channels."""
        channels = self.backbone.deep_channels
        if kind == "concat":
            module = LearnedPyramidPooling(channels, align_corners=self.align_corners)
            return module, module.out_channels
        if kind == "none":
            return nn.Identity(), channels
        return PyramidPooling(overlapping=self.spec.overlapping, align_corners=self.align_corners), channels

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Compute the logits of every pixel.

        Args:
            image: (B, 3, H, W) RGB, normalised as for the backbone; H and W at least 32.

        Returns:
            in evaluation `{"out": logits (B, num_classes, H, W)}`; in training the logits of the cascade, `out` at
            1/4 (of the variant "psp" at 1/8), `aux_8` at 1/8 and `aux_16` at 1/16 of the image size, finest first.

        Raises:
            ValueError: a side below 32.
        """
        outputs = self.cascade(image)
        if self.training:
            return outputs
        return {"out": resize(outputs["out"], image.shape[-2:], align_corners=self.align_corners)}

    def cascade(self, image: Tensor) -> dict[str, Tensor]:
        """Return the output of `forward` in training; in evaluation only `out`, at low resolution.

        In evaluation, `out` is at 1/4 of the image size for the variant "published", at 1/8 for the others. The shapes
        below are those of "published" with a ResNet50.
        """
        height, width = image.shape[-2:]
        if min(height, width) < MIN_SIZE:
            raise ValueError(f"ICNet needs images of at least {MIN_SIZE}x{MIN_SIZE} pixels, got {width}x{height}")
        sub1 = self.sub1(image)  # (B, 64, H/8, W/8)
        sub2 = self._sub2(image)  # (B, 512, H/16, W/16)
        sub4 = self._sub4(image, sub2)  # (B, 2048, H/32, W/32)
        fused, aux_16 = self.cff_24(sub4, self.conv_sub2(sub2))  # (B, 128, H/16, W/16)
        fused, aux_8 = self.cff_12(fused, sub1)  # (B, 128, H/8, W/8)
        logits = self.classifier(fused)
        if self.spec.upsample_logits == "always" or (self.spec.upsample_logits == "training" and self.training):
            # differs from the published code: the 1x1 classifier runs before this resize, with which it commutes.
            less = 1 if self.spec.doubling else 0  # the release enlarges n pixels to 2 n - 1 and keeps their places
            logits = resize(logits, [2 * side - less for side in logits.shape[-2:]])  # (B, num_classes, H/4, W/4)
        return {"out": logits, "aux_8": aux_8, "aux_16": aux_16} if self.training else {"out": logits}

    def partial_cascade(self, image: Tensor, branches: int) -> dict[str, Tensor]:
        """Run only the branches of lowest resolution, and return their auxiliary logits as `out`.

        Args:
            branches: 1: sub4, with logits at 1/16 of the image size; 2: sub4 and sub2, at 1/8.
        """
        height, width = image.shape[-2:]
        needed = branches == 2 or self.structure["sub4_input"] == "sub2"
        sub2 = self._sub2(image) if needed else None
        sub4 = self._sub4(image, sub2)
        if branches == 1:
            size = self._sub2_size(image) if sub2 is None else sub2.shape[-2:]
            return {"out": self.cff_24.auxiliary_logits(sub4, size)}
        fused, _ = self.cff_24(sub4, self.conv_sub2(sub2))
        return {"out": self.cff_12.auxiliary_logits(fused, (-(-height // 8), -(-width // 8)))}  # rounded up, as by sub1

    def _sub2(self, image: Tensor) -> Tensor:
        # differs from the published code: sub2 stops after layer2. The output of its deeper layers was never used, cost
        # 60 % of the FLOPs, and fed half-resolution statistics into their batch norms.
        return self.backbone.shallow(self.spec.shrink(image, 2))

    def _sub2_size(self, image: Tensor) -> torch.Size:
        """Return the height and width of sub2's features without computing them."""
        size = image.shape[-2:]
        if size not in self._sub2_sizes:  # even without computation, some networks take longer for this than for sub4
            weights = {name: tensor.to("meta") for name, tensor in self.backbone.state_dict().items()}
            half = self.spec.shrink(image[:1].to("meta"), 2)
            self._sub2_sizes[size] = functional_call(self.backbone, weights, half).shape[-2:]  # `deep` keeps it
        return self._sub2_sizes[size]

    def _sub4(self, image: Tensor, sub2: Tensor | None) -> Tensor:
        if self.structure["sub4_input"] == "sub2":
            assert sub2 is not None, "sub4 continues from sub2"
            shallow = self.spec.shrink(sub2, 2)
        else:
            shallow = self.backbone.shallow(self.spec.shrink(image, 4))
        deep = self.backbone.deep(shallow)
        if isinstance(self.pyramid_pooling, PyramidPooling) and isinstance(self.conv_sub4, ConvBNReLU):
            return self._pool_last(deep, *self.conv_sub4)
        return self.conv_sub4(self.pyramid_pooling(deep))

    def _pool_last(self, deep: Tensor, conv: nn.Conv2d, norm: nn.Module, relu: nn.Module) -> Tensor:
        """Compute `conv_sub4` of the pooled features.

        differs from the release: the 1x1 conv runs before the pooling, with which it commutes, so that only a quarter
        of the channels are pooled; the conv's bias, present once batch norms are folded, is added afterwards.
        """
        y = self.pyramid_pooling(F.conv2d(deep, conv.weight))
        return relu(norm(y if conv.bias is None else y + conv.bias[:, None, None]))


def _projection(channels: int, shallow_channels: int, multiple: float | None) -> tuple[nn.Module, int]:
    """Return a 1x1 conv to a multiple of the shallow channels, or nothing for None, and its output channels."""
    if multiple is None:
        return nn.Identity(), channels
    out_channels = scaled(shallow_channels, multiple)
    return ConvBNReLU(channels, out_channels, kernel_size=1), out_channels


def _backbone(name: str, *, width: float, paper: bool) -> DilatedResNet | TimmBackbone:
    if not name.startswith(TIMM):
        return DilatedResNet(name, width=width, paper=paper)
    if width != 1 or paper:
        raise ValueError(
            f"backbone {name} has a fixed width and structure; choose a variant other than paper, and width 1"
        )
    return TimmBackbone(name)
