"""What training makes small."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dataset.labels import IGNORE_INDEX


class CascadeLoss(nn.Module):
    """Cross-entropy of every output of the cascade (label guidance, section 3.4).

    Each output is compared at its own size with the label map made smaller. The main output "out" has weight 1, every
    other one `aux_weight`; so torchvision's `{"out", "aux"}` networks can be trained with it too.

    Args:
        aux_weight: weight of the auxiliary outputs.
        ignore_index: label that is left out.
    """

    def __init__(self, *, aux_weight: float = 0.4, ignore_index: int = IGNORE_INDEX) -> None:
        super().__init__()
        self.aux_weight = aux_weight
        self.ignore_index = ignore_index

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
        total = F.cross_entropy(logits, target, ignore_index=self.ignore_index, reduction="sum")
        return total / (target != self.ignore_index).sum().clamp(min=1)  # 0, not NaN, where all is ignored


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
