"""SGD with a learning rate per branch, its poly decay, and the running mean of the weights."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from utils.config import OptimizerConfig


def parameter_groups(
    model: nn.Module, *, lr: float, factors: dict[str, float], weight_decay: float, decay_all: bool = True
) -> list[dict]:
    """Put every parameter that is trained into the group of its branch.

    Args:
        lr: learning rate for factor 1.
        factors: by the name of a direct child of the model; what is not named belongs to "head".
        decay_all: else norms and biases, all of one dimension, are groups of their own, `{branch}_1d`, without decay.

    Returns:
        a group per branch that has parameters, with `name`, `params`, `lr` and `weight_decay`, in the order of
        `factors`.
    """
    groups: dict[str, dict] = {}
    for branch in factors:
        for suffix, decay in (("", weight_decay), ("_1d", 0.0)):
            groups[branch + suffix] = {"params": [], "lr": lr * factors[branch], "weight_decay": decay}
    for name, child in model.named_children():
        branch = name if name in factors else "head"
        for parameter in filter(lambda p: p.requires_grad, child.parameters()):
            groups[branch if decay_all or parameter.ndim > 1 else f"{branch}_1d"]["params"].append(parameter)
    return [{"name": name, **group} for name, group in groups.items() if group["params"]]


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    """SGD: backbone, sub1 and head each at their rate (the original author: 10 x for what is not pretrained)."""
    factors = {
        "backbone": config.backbone_lr_factor,
        "sub1": config.sub1_lr_factor,
        "head": config.head_lr_factor,
    }
    groups = parameter_groups(
        model, lr=config.init_lr, factors=factors, weight_decay=config.weight_decay, decay_all=config.decay_all
    )
    fused = any(parameter.is_cuda for parameter in model.parameters())  # one kernel for all weights
    return SGD(groups, momentum=config.momentum, fused=fused)


def build_scheduler(optimizer: Optimizer, config: OptimizerConfig, *, iterations: int) -> LambdaLR:
    """Poly decay by (1 - iteration / iterations) ** power, stepped at every iteration; warm-up before it.

    From each group's rate down to `min_lr`; a group whose rate is lower than that keeps it.
    """

    def factor(iteration: int, lowest: float) -> float:
        warm = min(1.0, (iteration + 1) / (config.warmup_iters + 1))
        return warm * (lowest + (1 - lowest) * max(0.0, 1 - iteration / iterations) ** config.power)

    lowest = [min(1.0, config.min_lr / group["lr"]) if group["lr"] else 0.0 for group in optimizer.param_groups]
    return LambdaLR(optimizer, [partial(factor, lowest=share) for share in lowest])


def running_mean(model: nn.Module, decay: float) -> AveragedModel:
    """Make a copy of a model that follows it as an exponential mean, weights and batch norms' statistics alike.

    The first updates weigh more, decay (1 + n) / (10 + n) if that is less, so that the random beginning is forgotten.
    """
    return AveragedModel(model, multi_avg_fn=partial(_follow, decay=decay), use_buffers=True)


@torch.no_grad()
def _follow(means: list[Tensor], values: list[Tensor], updates: Tensor, *, decay: float) -> None:
    step = 1 - ((1 + updates) / (10 + updates)).clamp(max=decay)  # a tensor still: reading it would wait for the device
    for mean, value in zip(means, values, strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, step)
        else:  # how many batches a norm has seen
            mean.copy_(value)
