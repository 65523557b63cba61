"""SGD with a learning rate per branch, poly learning-rate decay, and an exponential moving average of the weights."""

from copy import deepcopy
from functools import partial

import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from models import ICNet
from utils.config import OptimizerConfig


def build_optimizer(network: nn.Module, config: OptimizerConfig) -> Optimizer:
    """Build SGD with a parameter group per branch: the children `backbone` and `sub1`, and "head" for all others.

    Without `decay_all`, norms and biases are in groups of their own, `{branch}_1d`, without weight decay.
    """
    factors = {"backbone": config.backbone_lr_factor, "sub1": config.sub1_lr_factor, "head": config.head_lr_factor}
    groups: dict[str, dict] = {}
    for branch, factor in factors.items():
        for name, decay in ((branch, config.weight_decay), (f"{branch}_1d", 0.0)):
            groups[name] = {"name": name, "params": [], "lr": config.init_lr * factor, "weight_decay": decay}
    for name, child in network.named_children():
        branch = name if name in factors else "head"
        for parameter in filter(lambda p: p.requires_grad, child.parameters()):
            groups[branch if config.decay_all or parameter.ndim > 1 else f"{branch}_1d"]["params"].append(parameter)
    # not fused=True: if fp16's scaler skips the first step, it goes on from uninitialised momentum
    return SGD([group for group in groups.values() if group["params"]], momentum=config.momentum)


def build_scheduler(optimizer: Optimizer, config: OptimizerConfig, *, iterations: int) -> LambdaLR:
    """Build the poly schedule, (1 - iteration / iterations) ** power after linear warm-up, stepped every iteration.

    Each group decays from its own rate to `min_lr`; a group whose rate is below `min_lr` keeps it.

    Raises:
        ValueError: a warm-up as long as the run.
    """
    if config.warmup_iters >= iterations:
        raise ValueError(
            f"optimizer.warmup_iters={config.warmup_iters} is not below the {iterations} iterations of the run; lower "
            "it, or raise train.epochs"
        )

    def factor(iteration: int, lowest: float) -> float:
        warmup = min(1.0, (iteration + 1) / (config.warmup_iters + 1))
        return warmup * (lowest + (1 - lowest) * max(0.0, 1 - iteration / iterations) ** config.power)

    lowest = [min(1.0, config.min_lr / group["lr"]) if group["lr"] else 0.0 for group in optimizer.param_groups]
    return LambdaLR(optimizer, [partial(factor, lowest=share) for share in lowest])


class WeightEMA:
    """Exponential moving average (EMA) of a network's weights and batch norm statistics, in the copy `module`.

    After n updates the decay is min(decay, (1 + n) / (10 + n)), so that the early, nearly random weights fade quickly.
    Unlike torch's `AveragedModel`, an update does not synchronise with the GPU.
    """

    def __init__(self, network: ICNet, decay: float) -> None:
        self.module = deepcopy(network)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Include the network's current weights; the first update copies them."""
        n = self.updates
        weight = 1 - min(self.decay, (1 + n) / (10 + n)) if n else 1.0
        for average, value in zip(self.module.state_dict().values(), network.state_dict().values(), strict=True):
            if average.is_floating_point():
                average.lerp_(value, weight)
            else:  # batch norm's counter
                average.copy_(value)
        self.updates += 1
