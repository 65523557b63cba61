"""The variants of ICNet's structure.

- "published": the structure of the published PyTorch code.
- "psp": mmsegmentation's structure, with the best reported results. Pyramid pooling is learned, sub4 continues from
  sub2, both are projected to fewer channels, heads have two convolutions, and `align_corners` is False.
- "paper": the structure of the paper's release, at half the width. sub4 continues from sub2, which ends after the first
  block of layer2.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from models.layers import Classifier, conv_head, shrink, subsample

POOLINGS = ("sum", "concat", "none")
SUB4_INPUTS = ("image", "sub2")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A variant of ICNet's structure; the defaults give "published".

    Attributes:
        backbone, ppm, sub4_input, width: defaults of the arguments of `ICNet`.
        overlapping: whether the bins of `ppm` "sum" overlap, see `PyramidPooling`.
        projections: channels of sub2 and sub4 after a 1x1 conv, in multiples of `shallow_channels`; None: no conv.
        head: builds a classifier from its channels and classes.
        rectified, doubling: see `CascadeFeatureFusion`.
        shrink: makes an image or features smaller by an integer factor.
        align_corners: how features and logits are resized, see `models.layers.resize`.
        upsample_logits: when the logits at 1/8 are resized to 1/4: "always", in "training" or "never".
    """

    backbone: str = "resnet50"
    ppm: str = "sum"
    sub4_input: str = "image"
    width: float = 1.0
    overlapping: bool = False
    projections: tuple[float | None, float | None] = (None, None)
    head: Callable[..., nn.Module] = Classifier
    rectified: bool = False
    doubling: bool = False
    shrink: Callable[[Tensor, int], Tensor] = shrink
    align_corners: bool = True
    upsample_logits: str = "always"


VARIANTS = {
    "published": Variant(),
    "psp": Variant(
        ppm="concat",
        sub4_input="sub2",
        projections=(0.5, 0.5),
        head=conv_head,
        rectified=True,
        shrink=partial(shrink, align_corners=False),
        align_corners=False,
        upsample_logits="never",
    ),
    "paper": Variant(
        backbone="resnet50_v1s",
        overlapping=True,
        sub4_input="sub2",
        width=0.5,
        projections=(None, 1.0),
        head=partial(Classifier, bias=True),
        shrink=subsample,
        doubling=True,
        # evaluation resizes once, by 8: the same as by 2 and then by 4 if sides are one above a multiple of 32
        upsample_logits="training",
    ),
}


def complete_structure(
    variant: str = "published",
    *,
    ppm: str | None = None,
    sub4_input: str | None = None,
    width: float | None = None,
    dropout: float = 0.0,
) -> dict[str, Any]:
    """Return these arguments of `ICNet`, the variant's in place of None; raise ValueError for invalid ones."""
    _check("variant", variant, VARIANTS)
    own = VARIANTS[variant]
    ppm, sub4_input, width = ppm or own.ppm, sub4_input or own.sub4_input, own.width if width is None else width
    _check("ppm", ppm, POOLINGS)
    _check("sub4_input", sub4_input, SUB4_INPUTS)
    if not 0 < width <= 1:
        raise ValueError(f"width must be above 0 and at most 1, got {width}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
    return {"variant": variant, "ppm": ppm, "sub4_input": sub4_input, "dropout": dropout, "width": width}


def _check(name: str, value: object, known: Collection) -> None:
    if value not in known:
        raise ValueError(f"unknown {name} {value!r}; available: {', '.join(map(str, known))}")
