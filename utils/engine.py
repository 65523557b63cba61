"""The two loops: an epoch of training, and an evaluation."""

from collections.abc import Callable, Iterable
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from utils.metrics import ConfusionMatrix


def train_one_epoch(
    network: nn.Module,
    batches: Iterable[dict[str, Tensor]],
    *,
    criterion: nn.Module,
    normalize: Callable[[Tensor], Tensor],
    optimizer: Optimizer,
    scheduler: LRScheduler,
    device: torch.device,
    on_step: Callable[[Tensor], None] = lambda loss: None,
) -> None:
    """Train on every batch once.

    Args:
        batches: of `image` (B, 3, H, W) uint8 and `target` (B, H, W) uint8.
        scheduler: stepped at every iteration.
        on_step: called after each iteration with its loss, still on the device: reading it waits for the device.
    """
    network.train()
    for batch in batches:
        image = normalize(batch["image"].to(device, non_blocking=True))
        target = batch["target"].to(device, non_blocking=True)
        loss = criterion(network(image), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        scheduler.step()
        on_step(loss.detach())


def evaluate(
    segment: Callable[[Tensor], Tensor],
    batches: Iterable[list[dict]],
    *,
    confusion: ConfusionMatrix,
    on_image: Callable[[int, Tensor], None] = lambda index, pred: None,
) -> None:
    """Compare the predictions for whole images with their labels.

    Args:
        segment: from images (B, 3, H, W) uint8 to label maps (B, H, W) uint8, see `utils.segmenter.Segmenter`.
        batches: lists of samples (`index`, `image`, `target`); images of different sizes may be in one list.
        confusion: where they are counted.
        on_image: called with the index and the prediction (H, W) of each image.
    """
    for batch in batches:
        for _, group in groupby(batch, key=lambda sample: sample["image"].shape):
            samples = list(group)
            preds = segment(torch.stack([sample["image"] for sample in samples]))
            for sample, pred in zip(samples, preds, strict=True):
                confusion.update(pred, sample["target"].to(pred.device, non_blocking=True))
                on_image(sample["index"], pred)
