"""train.py with the published code's labels: python tools/ablating/train_on_bilinear_labels.py --config FILE

They are made smaller by interpolating class numbers, which invents classes (between 0 and 2 lies 1).
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))  # the repository, of which this is a script

import torch
from torch import Tensor
from torch.nn import functional as F

import train
from dataset.labels import IGNORE_INDEX
from utils import cli, loss


def resize_bilinearly(target: Tensor, size: Sequence[int], *, align_corners: bool = True) -> Tensor:
    """Resize label maps (B, H, W) as the published code does, with -1 for ignored pixels and fractions cut off."""
    numbers = target.float().where(target != IGNORE_INDEX, -1)
    small = F.interpolate(numbers[:, None], tuple(size), mode="bilinear", align_corners=align_corners)[:, 0].long()
    return small.where(small >= 0, IGNORE_INDEX).to(torch.uint8)


if __name__ == "__main__":
    loss.resize_target = resize_bilinearly
    cli.run(train.main)
