"""The training loop of one epoch, and the evaluation loop."""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from dataset.labels import IGNORE_INDEX
from utils import distributed, runtime
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
    teacher: Callable[[Tensor], Tensor] | None = None,
    on_step: Callable[[dict[str, Tensor]], None] = lambda losses: None,
) -> None:
    """Train for one epoch.

    Args:
        network: possibly wrapped by `distributed.parallel`.
        batches: of `image` (B, 3, H, W) uint8 and `target` (B, H, W) uint8.
        criterion: returns losses by name; "loss" is minimised, see `utils.loss.CascadeLoss`.
        scheduler: stepped at every iteration, including those whose optimiser step the scaler skips: the poly schedule
            spans all iterations and would otherwise not reach its end.
        scaler: fp16 loss scaler, which skips steps with non-finite gradients; disabled for other precisions.
        precision: see `runtime.autocast`.
        accumulate: gradient accumulation steps: each batch is processed as this many micro-batches, to save memory.
            Batch norm sees one micro-batch at a time; for the loss see `micro_batch_weights`.
        clip: maximum gradient norm; None for no clipping.
        freeze_bn: do not update the running statistics of any batch norm.
        teacher: maps images (B, 3, H, W) uint8 to logits for the criterion; None: no distillation.
        on_step: called after each iteration with its losses, still on the device: reading them synchronises.
    """
    train_mode(network, freeze_bn=freeze_bn)
    for batch in batches:
        optimizer.zero_grad(set_to_none=True)
        count = min(accumulate, len(batch["image"]))
        images = batch["image"].to(device, non_blocking=True).tensor_split(count)
        targets = batch["target"].to(device, non_blocking=True).tensor_split(count)
        total: dict[str, Tensor] = {}
        parts = zip(images, targets, micro_batch_weights(targets), strict=True)
        for number, (image, target, weight) in enumerate(parts, start=1):
            with distributed.sharing_gradients(network, now=number == len(images)):
                x = normalize(image)
                with runtime.autocast(device, precision):
                    outputs = network(x)
                losses = criterion(outputs, target) if teacher is None else criterion(outputs, target, teacher(image))
                scaler.scale(losses["loss"] * weight).backward()
            total = {name: total.get(name, 0) + loss.detach() * weight for name, loss in losses.items()}
        if clip is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(network.parameters(), clip)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        on_step(total)


def micro_batch_weights(targets: Sequence[Tensor]) -> Tensor:
    """Return the fraction of the batch's labelled pixels in each micro-batch (len(targets),), without synchronising.

    Losses averaged over labelled pixels (of all processes, see `utils.loss.CascadeLoss`), weighted by these, sum to the
    average over the whole batch. With class weights, OHEM or labels downsampled to the resolution of an output, which
    change the denominator, this is an approximation.
    """
    labelled = torch.stack([(target != IGNORE_INDEX).sum() for target in targets])
    if len(targets) > 1:
        distributed.sum_over_processes(labelled)
    return labelled / labelled.sum().clamp(min=1)


def train_mode(network: nn.Module, *, freeze_bn: bool = False) -> None:
    """Set training mode, except for batch norms whose parameters are frozen, or all batch norms with `freeze_bn`."""
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
    """Predict all images and add them to a confusion matrix.

    Args:
        segment: maps images (B, 3, H, W) uint8 to label maps (B, H, W) uint8, see `utils.inference.segmenter`.
        batches: lists of samples (`index`, `image`, and for labelled data `target`); image sizes may differ.
        confusion: updated with every sample that has a `target`.
        on_image: called with the index and the prediction (H, W) of each image.
    """
    for batch in batches:
        for _, group in groupby(batch, key=lambda sample: sample["image"].shape):
            samples = list(group)
            images = [sample["image"] for sample in samples]
            preds = segment(torch.stack(images) if len(images) > 1 else images[0][None])  # a single one without copying
            for sample, pred in zip(samples, preds, strict=True):
                if "target" in sample:
                    target = sample["target"].to(pred.device, non_blocking=True)
                    confusion.update(pred, target, index=sample["index"])
                on_image(sample["index"], pred)
