"""The two loops: an epoch of training, and an evaluation."""

from collections.abc import Callable, Iterable
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from utils import runtime
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
    scaler: torch.amp.GradScaler,
    precision: str = "fp32",
    accumulate: int = 1,
    clip: float | None = None,
    freeze_bn: bool = False,
    on_step: Callable[[dict[str, Tensor]], None] = lambda losses: None,
) -> None:
    """Train on every batch once.

    Args:
        network: the network, or what `runtime.parallel` made of it.
        batches: of `image` (B, 3, H, W) uint8 and `target` (B, H, W) uint8.
        criterion: gives the losses by name, "loss" being the one to make small, see `utils.loss.CascadeLoss`.
        scheduler: stepped at every iteration, also where the scaler skips the optimiser's step: the poly decay is over
            all iterations of the run, and would else not reach its end.
        scaler: of the gradients under fp16, where it skips a step whose gradients are not finite; disabled otherwise.
        precision: of the network's arithmetic, see `runtime.autocast`.
        accumulate: parts that a batch is computed in, one after the other, to save memory.
        clip: largest norm of all gradients together; None: as they are.
        freeze_bn: leave the statistics of all batch norms as they are.
        on_step: called after each iteration with its losses, still on the device: reading one waits for the device.
    """
    train_mode(network, freeze_bn=freeze_bn)
    for batch in batches:
        optimizer.zero_grad(set_to_none=True)
        parts = list(zip(batch["image"].chunk(accumulate), batch["target"].chunk(accumulate), strict=True))
        mean: dict[str, Tensor] = {}
        for number, (image, target) in enumerate(parts, start=1):
            share = len(image) / len(batch["image"])  # the last part may have fewer images
            image = normalize(image.to(device, non_blocking=True))
            target = target.to(device, non_blocking=True)
            with runtime.sharing_gradients(network, now=number == len(parts)):
                with runtime.autocast(device, precision):
                    outputs = network(image)
                losses = criterion(outputs, target)
                scaler.scale(losses["loss"] * share).backward()
            mean = {name: mean.get(name, 0) + loss.detach() * share for name, loss in losses.items()}
        if clip is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(network.parameters(), clip)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        on_step(mean)


def train_mode(network: nn.Module, *, freeze_bn: bool = False) -> None:
    """Set the network to training, but batch norms that are frozen to the statistics that they have."""
    network.train()
    for norm in (module for module in network.modules() if isinstance(module, _BatchNorm)):
        if freeze_bn or not any(parameter.requires_grad for parameter in norm.parameters()):
            norm.eval()


def evaluate(
    segment: Callable[[Tensor], Tensor],
    batches: Iterable[list[dict]],
    *,
    confusion: ConfusionMatrix,
    on_image: Callable[[int, Tensor], None] = lambda index, pred: None,
) -> None:
    """Compare the predictions for whole images with their labels.

    Args:
        segment: from images (B, 3, H, W) uint8 to label maps (B, H, W) uint8, see `inference.segmenter`.
        batches: lists of samples (`index`, `image`, `target`); images of different sizes may be in one list.
        confusion: where they are counted, unless they come without a `target`.
        on_image: called with the index and the prediction (H, W) of each image.
    """
    for batch in batches:
        for _, group in groupby(batch, key=lambda sample: sample["image"].shape):
            samples = list(group)
            preds = segment(stacked([sample["image"] for sample in samples]))
            for sample, pred in zip(samples, preds, strict=True):
                if "target" in sample:
                    target = sample["target"].to(pred.device, non_blocking=True)
                    confusion.update(pred, target, index=sample["index"])
                on_image(sample["index"], pred)


def stacked(images: list[Tensor]) -> Tensor:
    """Make a batch (B, 3, H, W) of images (3, H, W); a single one is not copied."""
    return torch.stack(images) if len(images) > 1 else images[0][None]
