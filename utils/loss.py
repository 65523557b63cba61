"""What training makes small."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dataset.labels import IGNORE_INDEX
from dataset.segmentation import SegmentationDataset
from utils.config import LossConfig


class CascadeLoss(nn.Module):
    """Cross-entropy of every output of the cascade (label guidance, section 3.4).

    Each output is compared at its own size with the label map made smaller. The main output "out" has weight 1, every
    other one `aux_weight`; so torchvision's `{"out", "aux"}` networks can be trained with it too.

    Args:
        aux_weight: weight of the auxiliary outputs.
        class_weights: weight of the pixels of each class (C,); None counts all alike.
        ignore_index: label that is left out.
    """

    def __init__(
        self,
        *,
        aux_weight: float = 0.4,
        class_weights: Tensor | None = None,
        ignore_index: int = IGNORE_INDEX,
    ) -> None:
        super().__init__()
        self.aux_weight = aux_weight
        self.ignore_index = ignore_index
        self.register_buffer("class_weights", class_weights)

    def forward(self, outputs: dict[str, Tensor], target: Tensor) -> Tensor:
        """Return the weighted sum.

        Args:
            outputs: logits (B, C, h, w) by name.
            target: (B, H, W) uint8 class indices.
        """
        losses = {
            name: self._cross_entropy(logits, resize_target(target, logits.shape[-2:]))
            for name, logits in outputs.items()
        }
        return sum(loss * (1.0 if name == "out" else self.aux_weight) for name, loss in losses.items())

    def _cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        target = target.long()
        pixels = F.cross_entropy(logits, target, self.class_weights, ignore_index=self.ignore_index, reduction="none")
        valid = target != self.ignore_index
        weight = valid if self.class_weights is None else self.class_weights[target.where(valid, 0)] * valid
        return pixels.sum() / weight.sum().clamp(min=1e-6)  # 0, not NaN, where all is ignored


def resize_target(target: Tensor, size: tuple[int, int]) -> Tensor:
    """Make label maps (B, H, W) smaller by taking the nearest label, with corners on corners as the logits have.

    differs from the published code: it interpolated the class numbers bilinearly, which invents classes (between 0 and
    2 lies 1) and turns ignored pixels into labelled ones.
    """
    rows, cols = (
        torch.linspace(0, full - 1, small, device=target.device).round().long()
        for full, small in zip(target.shape[-2:], size, strict=True)
    )
    return target[:, rows[:, None], cols]


def balanced_weights(counts: Tensor) -> Tensor:
    """Weigh rare classes more: 1 / ln(1.05 + share of the pixels), with mean 1 (ENet, arXiv 1606.02147, section 5.1).

    differs from ENet: 1.05 where it has 1.02, so that no class weighs over 15 times another.

    Args:
        counts: pixels of each class (C,).
    """
    weights = 1 / torch.log(1.05 + counts / counts.sum())
    return weights / weights.mean()


def build_loss(config: LossConfig, dataset: SegmentationDataset) -> CascadeLoss:
    """The loss, its class weights given or computed from the training set.

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
    return CascadeLoss(aux_weight=config.aux_weight, class_weights=weights)
