"""The three loops: an epoch of training, a prediction, an evaluation."""

from collections.abc import Callable, Iterable
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from models.icnet import MIN_SIZE
from models.layers import resize
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


@torch.inference_mode()
def predict(network: nn.Module, image: Tensor, *, normalize: Callable[[Tensor], Tensor]) -> Tensor:
    """Find the most likely class of every pixel; evaluation, validation and inference all go through here.

    Args:
        network: in evaluation mode, returning `{"out": logits}`.
        image: (B, 3, H, W) uint8 on the network's device, of any size.

    Returns:
        (B, H, W) uint8 class indices.
    """
    size = image.shape[-2:]
    enough = [max(side, MIN_SIZE) for side in size]
    x = normalize(image)
    logits = network(x if list(size) == enough else resize(x, enough))["out"]
    if logits.shape[-2:] != size:
        logits = resize(logits, size)
    return logits.argmax(1).to(torch.uint8)


def evaluate(
    network: nn.Module,
    batches: Iterable[list[dict]],
    *,
    num_classes: int,
    normalize: Callable[[Tensor], Tensor],
    device: torch.device,
    on_image: Callable[[int, Tensor], None] = lambda index, pred: None,
) -> ConfusionMatrix:
    """Compare the predictions for whole images with their labels.

    Args:
        batches: lists of samples (`index`, `image`, `target`); images of different sizes may be in one list.
        on_image: called with the index and the prediction (H, W) of each image.
    """
    network.eval()
    confusion = ConfusionMatrix(num_classes, device)
    for batch in batches:
        for _, group in groupby(batch, key=lambda sample: sample["image"].shape):
            samples = list(group)
            images = torch.stack([sample["image"] for sample in samples]).to(device, non_blocking=True)
            for sample, pred in zip(samples, predict(network, images, normalize=normalize), strict=True):
                confusion.update(pred, sample["target"].to(device, non_blocking=True))
                on_image(sample["index"], pred)
    return confusion
