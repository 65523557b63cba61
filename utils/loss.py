"""Loss functions."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dataset.labels import IGNORE_INDEX
from dataset.segmentation import SegmentationDataset
from models.layers import resize, resize_target
from utils import distributed
from utils.config import LossConfig


class CascadeLoss(nn.Module):
    """Cross-entropy over all outputs of the cascade (label guidance, section 3.4).

    The main output "out" has weight 1, every other one `aux_weight`; torchvision's `{"out", "aux"}` networks fit too.
    With the logits of a teacher, "out" also learns its soft labels (knowledge distillation, arXiv 1503.02531).

    Args:
        aux_weight: weight of the auxiliary outputs.
        class_weights: (C,); None: all 1.
        label_smoothing: share of each label that is spread evenly over all classes.
        full_size: upsample the logits to the size of the labels, instead of downsampling the labels.
        label_resize: how to downsample labels, "nearest" or "bilinear", see `interpolate_labels`.
        ohem: online hard example mining (Shrivastava et al. 2016): count only pixels whose class is predicted with a
            probability below this, but at least the share `ohem_keep` of all pixels; None: count all.
        temperature: divides the logits of network and teacher before their softmax.
        distill_weight: weight of the distillation loss.
        align_corners: how the network resizes, see `models.layers.resize`.
    """

    def __init__(
        self,
        *,
        aux_weight: float = 0.4,
        class_weights: Tensor | None = None,
        label_smoothing: float = 0.0,
        full_size: bool = False,
        label_resize: str = "nearest",
        ohem: float | None = None,
        ohem_keep: float = 0.0625,
        temperature: float = 2.0,
        distill_weight: float = 1.0,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        self.aux_weight = aux_weight
        self.label_smoothing = label_smoothing
        self.full_size = full_size
        self.resize_labels = {"nearest": resize_target, "bilinear": interpolate_labels}[label_resize]
        self.ohem = ohem
        self.ohem_keep = ohem_keep
        self.temperature = temperature
        self.distill_weight = distill_weight
        self.align_corners = align_corners
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights)

    def forward(self, outputs: dict[str, Tensor], target: Tensor, teacher: Tensor | None = None) -> dict[str, Tensor]:
        """Return the weighted sum as "loss", the loss of each output by its name, and "distill" with a teacher.

        Args:
            outputs: logits (B, C, h, w) by name.
            target: (B, H, W) uint8 class indices, 255 = ignored.
            teacher: its logits (B, C, h', w').
        """
        losses = {name: self._at_one_size(logits.float(), target) for name, logits in outputs.items()}
        auxiliary = (self.aux_weight * loss for name, loss in losses.items() if name != "out")
        total = sum(auxiliary, start=losses["out"])
        if teacher is not None:
            losses["distill"] = self._distillation(outputs["out"].float(), teacher, target)
            total = total + self.distill_weight * losses["distill"]
        return {"loss": total, **losses}

    def _distillation(self, logits: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        """Return the mean Kullback-Leibler divergence from the teacher's soft labels, over the labelled pixels.

        Unlabelled ones are mostly padding, of which the teacher knows nothing. The factor T² keeps the gradient's
        scale at any temperature T (section 2 of the source).
        """
        size, t = logits.shape[-2:], self.temperature
        soft = F.softmax(resize(teacher, size, align_corners=self.align_corners) / t, 1)
        divergence = F.kl_div(F.log_softmax(logits / t, 1), soft, reduction="none").sum(1)
        counted = self.resize_labels(target, size, align_corners=self.align_corners) != IGNORE_INDEX
        total = distributed.mean_over_processes(counted.sum().float())
        return t**2 * (divergence * counted).sum() / total.clamp(min=1)

    def _at_one_size(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.full_size:
            return self._cross_entropy(resize(logits, target.shape[-2:], align_corners=self.align_corners), target)
        target = self.resize_labels(target, logits.shape[-2:], align_corners=self.align_corners)
        return self._cross_entropy(logits, target)

    def _cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        target = target.long()
        valid = target != IGNORE_INDEX
        pixels = F.cross_entropy(
            logits,
            target,
            self.class_weights,
            ignore_index=IGNORE_INDEX,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        target = target.where(valid, 0)
        counted = valid if self.ohem is None else valid & self._hard(logits, target, valid, below=self.ohem)
        weight = counted if self.class_weights is None else self.class_weights[target] * counted
        total = distributed.mean_over_processes(weight.sum().float())  # so that pixels of all processes count equally
        pixels = pixels * (weight > 0)  # label smoothing gives pixels of a class without weight a loss, too
        return pixels.sum() / total.clamp(min=1e-6)  # 0, not NaN, if all are ignored

    @torch.no_grad()
    def _hard(self, logits: Tensor, target: Tensor, valid: Tensor, *, below: float) -> Tensor:
        """Return the mask (B, H, W) of pixels with a loss above -log(below), or at least those with the highest."""
        loss = F.cross_entropy(logits, target, reduction="none").masked_fill(~valid, 0)
        kept = loss.flatten().topk(max(1, int(self.ohem_keep * loss.numel()))).values[-1]
        return loss >= kept.clamp(max=-math.log(below))


def interpolate_labels(target: Tensor, size: Sequence[int], *, align_corners: bool = True) -> Tensor:
    """Downsample label maps (B, H, W) as the published code does: interpolate class ids bilinearly and truncate.

    For comparison only: it invents classes (1 between 0 and 2) and, because ignored pixels count as -1, gives the
    pixels around them lower ids.
    """
    ids = target.float().where(target != IGNORE_INDEX, -1)
    ids = resize(ids[:, None], size, align_corners=align_corners)[:, 0].long()
    return ids.where(ids >= 0, IGNORE_INDEX).to(torch.uint8)


def balanced_weights(counts: Tensor, offset: float = 1.05) -> Tensor:
    """Weigh rare classes higher: 1 / ln(offset + share of the pixels), mean 1 (ENet, arXiv 1606.02147, section 5.2).

    Args:
        counts: pixels of each class (C,).
        offset: above 1. With 1.02, as in ENet, no class weighs more than 36 times as much as another; with 1.05, 15
            times; with 1.2, 4.3 times.
    """
    weights = 1 / torch.log(offset + counts / counts.sum())
    return weights / weights.mean()


def build_loss(config: LossConfig, dataset: SegmentationDataset, *, align_corners: bool = True) -> CascadeLoss:
    """Build the loss; `loss.balance` counts the pixels of `dataset`, and `align_corners` is the network's.

    Raises:
        ValueError: invalid class weights.
    """
    weights = None
    if config.class_weights:
        if len(config.class_weights) != len(dataset.classes):
            raise ValueError(
                f"loss.class_weights has {len(config.class_weights)} values, the dataset {len(dataset.classes)} "
                "classes; give one weight per class"
            )
        weights = torch.tensor(config.class_weights)
    elif config.balance == "log":
        counts = torch.from_numpy(dataset.pixel_counts.sum(0))
        if not counts.any():
            raise ValueError("loss.balance=log: no pixel of the training masks is labelled; check dataset.ignore_index")
        weights = balanced_weights(counts, config.balance_offset).float()
    return CascadeLoss(
        aux_weight=config.aux_weight,
        class_weights=weights,
        label_smoothing=config.label_smoothing,
        full_size=config.resolution == "full",
        label_resize=config.label_resize,
        ohem=config.ohem,
        ohem_keep=config.ohem_keep,
        temperature=config.distill_temperature,
        distill_weight=config.distill_weight,
        align_corners=align_corners,
    )
