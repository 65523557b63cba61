"""From logits to the label map."""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.layers import resize


@torch.inference_mode()
def label_map(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Resize logits (B, C, h, w) to `size` and take the class with the highest, (B, H, W) uint8."""
    return resize(logits, size).argmax(1).to(torch.uint8)
