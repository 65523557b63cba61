"""ICNet for Real-Time Semantic Segmentation on High-Resolution Images (Zhao et al., ECCV 2018, arXiv 1704.08545).

image ──────────► sub1: three convs of stride 2 ───────────────────────────┐
  ├─ x1/2 ─► backbone.shallow = sub2 ─────────────────────► cff_24 ──► cff_12 ──► classifier
  └─ x1/4 ─► backbone (shared) ─► pyramid pooling = sub4 ─────┘

That is the published structure. The variant "psp" is mmsegmentation's, with the best known results: learned pyramid
pooling, sub4 continues from sub2, narrower branches, heads of two convolutions, `align_corners=False`.
"""

from collections.abc import Collection
from functools import partial

from torch import Tensor, nn

from models.fusion import CascadeFeatureFusion
from models.layers import Classifier, ConvBNReLU, conv_head, resize, shrink
from models.pyramid import LearnedPyramidPooling, PyramidPooling
from models.resnet import DilatedResNet
from models.timm_backbone import TIMM, TimmBackbone

MIN_SIZE = 32  # shortest side of an image, which leaves sub4 one pixel
VARIANTS = {"published": ("sum", "image"), "psp": ("concat", "sub2")}  # defaults of `ppm` and `sub4_input`
POOLINGS = ("sum", "concat", "none")
SUB4_INPUTS = ("image", "sub2")


class Sub1(nn.Sequential):
    """High-resolution branch: three 3x3 convs with stride 2, (B, 3, H, W) -> (B, 64, H/8, W/8) (section 3.2)."""

    def __init__(self) -> None:
        super().__init__(ConvBNReLU(3, 32, stride=2), ConvBNReLU(32, 32, stride=2), ConvBNReLU(32, 64, stride=2))
        self.out_channels = 64


class ICNet(nn.Module):
    """Image cascade network (figure 2), with random weights; for pretrained ones see `utils.weights.pretrained`.

    Args:
        num_classes: number of classes.
        backbone: one of `models.BACKBONES`; the published checkpoint has "resnet50_v1s", mmsegmentation's
            "resnet50_v1c". Or "timm/NAME", see `models.timm_backbone`.
        variant: one of `VARIANTS`.
        ppm: pyramid pooling, "sum" (without weights), "concat" (learned) or "none"; None: that of the variant.
        sub4_input: input of sub4, the "image" at 1/4 or the output of "sub2" at 1/2; None: that of the variant.
        dropout: channel dropout probability in the heads.

    Attributes:
        structure: the last four arguments, resolved; they rebuild the same structure.
        align_corners: how the network resizes, and how its logits are to be resized, see `models.layers.resize`.
    """

    def __init__(
        self,
        num_classes: int = 19,
        backbone: str = "resnet50",
        *,
        variant: str = "published",
        ppm: str | None = None,
        sub4_input: str | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check("variant", variant, VARIANTS)
        ppm, sub4_input = ppm or VARIANTS[variant][0], sub4_input or VARIANTS[variant][1]
        _check("ppm", ppm, POOLINGS)
        _check("sub4_input", sub4_input, SUB4_INPUTS)
        self.structure = {"variant": variant, "ppm": ppm, "sub4_input": sub4_input, "dropout": dropout}
        psp = variant == "psp"
        self.align_corners = not psp
        self.backbone = TimmBackbone(backbone) if backbone.startswith(TIMM) else DilatedResNet(backbone)
        self.pyramid_pooling, deep = self._pyramid_pooling(ppm)
        self.sub1 = Sub1()
        shallow = self.backbone.shallow_channels
        narrow = shallow // 2
        self.conv_sub2: nn.Module = ConvBNReLU(shallow, narrow, kernel_size=1) if psp else nn.Identity()
        self.conv_sub4: nn.Module = ConvBNReLU(deep, narrow, kernel_size=1) if psp else nn.Identity()
        shallow, deep = (narrow, narrow) if psp else (shallow, deep)
        head = partial(conv_head if psp else Classifier, dropout=dropout)
        fusion = partial(
            CascadeFeatureFusion, num_classes=num_classes, head=head, rectified=psp, align_corners=self.align_corners
        )
        self.cff_24 = fusion(deep, shallow, 128)
        self.cff_12 = fusion(128, self.sub1.out_channels, 128)
        self.classifier = head(128, num_classes)

    def _pyramid_pooling(self, kind: str) -> tuple[nn.Module, int]:
        """Return the module and its output channels."""
        channels = self.backbone.deep_channels
        if kind == "concat":
            module = LearnedPyramidPooling(channels, align_corners=self.align_corners)
            return module, module.out_channels
        return nn.Identity() if kind == "none" else PyramidPooling(align_corners=self.align_corners), channels

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Compute the logits of every pixel.

        Args:
            image: (B, 3, H, W) RGB, normalised as for the backbone; H and W at least 32.

        Returns:
            in evaluation `{"out": logits (B, num_classes, H, W)}`; in training the logits of the cascade, `out` at
            1/4 (of the variant "psp" at 1/8), `aux_8` at 1/8 and `aux_16` at 1/16 of the image size, finest first.
        """
        outputs = self.cascade(image)
        if self.training:
            return outputs
        return {"out": resize(outputs["out"], image.shape[-2:], align_corners=self.align_corners)}

    def cascade(self, image: Tensor) -> dict[str, Tensor]:
        """Return the output of `forward` in training; in evaluation only `out`, at the same low resolution."""
        height, width = image.shape[-2:]
        if min(height, width) < MIN_SIZE:
            raise ValueError(f"ICNet needs images of at least {MIN_SIZE}x{MIN_SIZE} pixels, got {width}x{height}")
        sub1 = self.sub1(image)  # (B, 64, H/8, W/8)
        sub2 = self._sub2(image)  # (B, 512, H/16, W/16)
        sub4 = self._sub4(image, sub2)  # (B, 2048, H/32, W/32)
        fused, aux_16 = self.cff_24(sub4, self.conv_sub2(sub2))  # (B, 128, H/16, W/16)
        fused, aux_8 = self.cff_12(fused, sub1)  # (B, 128, H/8, W/8)
        logits = self.classifier(fused)
        if self.structure["variant"] == "published":
            # differs from the published code: the 1x1 classifier runs before this resize, with which it commutes.
            logits = resize(logits, (2 * logits.shape[-2], 2 * logits.shape[-1]))  # (B, num_classes, H/4, W/4)
        return {"out": logits, "aux_8": aux_8, "aux_16": aux_16} if self.training else {"out": logits}

    def cut_off(self, image: Tensor, branches: int) -> dict[str, Tensor]:
        """Run only the lowest branches, and return their auxiliary logits as `out`.

        Args:
            branches: 1: sub4, with logits at 1/16 of the image size; 2: sub4 and sub2, at 1/8.
        """
        height, width = image.shape[-2:]
        needed = branches == 2 or self.structure["sub4_input"] == "sub2"
        sub2 = self._sub2(image) if needed else None
        sub4 = self._sub4(image, sub2)
        if branches == 1:
            return {"out": self.cff_24.guide(sub4, [self.backbone.shallow_side(side // 2) for side in (height, width)])}
        fused, _ = self.cff_24(sub4, self.conv_sub2(sub2))
        return {"out": self.cff_12.guide(fused, (-(-height // 8), -(-width // 8)))}  # rounded up, as by sub1

    def _sub2(self, image: Tensor) -> Tensor:
        # differs from the published code: sub2 stops after layer2. The output of its deeper layers was never used, cost
        # 60 % of the arithmetic, and fed half-resolution statistics into their batch norms.
        return self.backbone.shallow(shrink(image, 2, align_corners=self.align_corners))

    def _sub4(self, image: Tensor, sub2: Tensor | None) -> Tensor:
        if self.structure["sub4_input"] == "sub2":
            assert sub2 is not None, "sub4 continues from sub2"
            shallow = shrink(sub2, 2, align_corners=self.align_corners)
        else:
            shallow = self.backbone.shallow(shrink(image, 4, align_corners=self.align_corners))
        return self.conv_sub4(self.pyramid_pooling(self.backbone.deep(shallow)))


def _check(name: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise ValueError(f"unknown {name} {value!r}; available: {', '.join(known)}")
