"""What training makes small."""

import math
from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dataset.labels import IGNORE_INDEX
from dataset.segmentation import SegmentationDataset
from models.layers import resize, resize_target
from utils import runtime
from utils.config import LossConfig


class CascadeLoss(nn.Module):
    """Cross-entropy of every output of the cascade (label guidance, section 3.4).

    The main output "out" has weight 1, every other one `aux_weight`; so torchvision's `{"out", "aux"}` networks can be
    trained with it too.

    Args:
        aux_weight: weight of the auxiliary outputs.
        class_weights: weight of the pixels of each class (C,); None counts all alike.
        label_smoothing: share of each label that is spread evenly over all classes.
        full_size: compare at the labels' size, with logits made larger; otherwise at each output's own, with labels
            made smaller.
        ohem: count only pixels whose own class has a probability below this (online hard example mining, Shrivastava
            et al. 2016), though no less than the share `ohem_keep` of all pixels; None counts all.
        align_corners: how the network resizes, see `models.layers.resize`.
        ignore_index: label that is left out.
        over_processes: the mean over all processes of a tensor, so that every pixel of a shared batch counts alike.
    """

    def __init__(
        self,
        *,
        aux_weight: float = 0.4,
        class_weights: Tensor | None = None,
        label_smoothing: float = 0.0,
        full_size: bool = False,
        ohem: float | None = None,
        ohem_keep: float = 0.0625,
        align_corners: bool = True,
        ignore_index: int = IGNORE_INDEX,
        over_processes: Callable[[Tensor], Tensor] = lambda value: value,
    ) -> None:
        super().__init__()
        self.aux_weight = aux_weight
        self.label_smoothing = label_smoothing
        self.full_size = full_size
        self.ohem = ohem
        self.ohem_keep = ohem_keep
        self.align_corners = align_corners
        self.ignore_index = ignore_index
        self.over_processes = over_processes
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights)

    def forward(self, outputs: dict[str, Tensor], target: Tensor) -> dict[str, Tensor]:
        """Return the weighted sum as "loss", and the loss of each output by its name.

        Args:
            outputs: logits (B, C, h, w) by name.
            target: (B, H, W) uint8 class indices.
        """
        losses = {name: self._at_one_size(logits.float(), target) for name, logits in outputs.items()}
        weighted = (loss * (1.0 if name == "out" else self.aux_weight) for name, loss in losses.items())
        return {"loss": reduce(torch.add, weighted), **losses}

    def _at_one_size(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.full_size:
            return self._cross_entropy(resize(logits, target.shape[-2:], align_corners=self.align_corners), target)
        return self._cross_entropy(logits, resize_target(target, logits.shape[-2:], align_corners=self.align_corners))

    def _cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        target = target.long()
        valid = target != self.ignore_index
        pixels = F.cross_entropy(
            logits,
            target,
            self.class_weights,
            ignore_index=self.ignore_index,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        counted = valid
        if self.ohem is not None:
            counted = valid & self._hard(logits, target.where(valid, 0), valid, below=self.ohem)
        weight = counted if self.class_weights is None else self.class_weights[target.where(valid, 0)] * counted
        total = self.over_processes(weight.sum().float())
        return (pixels * counted).sum() / total.clamp(min=1e-6)  # 0, not NaN, where all is ignored

    @torch.no_grad()
    def _hard(self, logits: Tensor, target: Tensor, valid: Tensor, *, below: float) -> Tensor:
        """Mark the pixels (B, H, W) whose own class is unlikely, or at least the least likely ones."""
        surprise = F.cross_entropy(logits, target, reduction="none").masked_fill(~valid, 0)
        enough = surprise.flatten().topk(max(1, int(self.ohem_keep * surprise.numel()))).values[-1]
        return surprise >= enough.clamp(max=-math.log(below))


def balanced_weights(counts: Tensor) -> Tensor:
    """Weigh rare classes more: 1 / ln(1.05 + share of the pixels), with mean 1 (ENet, arXiv 1606.02147, section 5.1).

    differs from ENet: 1.05 where it has 1.02, so that no class weighs over 15 times another.

    Args:
        counts: pixels of each class (C,).
    """
    weights = 1 / torch.log(1.05 + counts / counts.sum())
    return weights / weights.mean()


def build_loss(config: LossConfig, dataset: SegmentationDataset, *, align_corners: bool = True) -> CascadeLoss:
    """The loss, its class weights given or computed from the training set; `align_corners` is the network's.

    Raises:
        ValueError: weights for another number of classes, or impossible ones.
    """
    weights = None
    if config.class_weights:
        if len(config.class_weights) != len(dataset.classes):
            raise ValueError(
                f"loss.class_weights has {len(config.class_weights)} values, the dataset {len(dataset.classes)} classes"
            )
        if min(config.class_weights) < 0 or config.balance != "none":
            raise ValueError("loss.class_weights must be 0 or more, and loss.balance none beside them")
        weights = torch.tensor(config.class_weights)
    elif config.balance == "log":
        weights = balanced_weights(torch.from_numpy(dataset.count_pixels())).float()
    return CascadeLoss(
        aux_weight=config.aux_weight,
        class_weights=weights,
        label_smoothing=config.label_smoothing,
        full_size=config.resolution == "full",
        ohem=config.ohem,
        ohem_keep=config.ohem_keep,
        align_corners=align_corners,
        over_processes=runtime.mean_over_processes,
    )
