"""SGD with a learning rate per branch, and its poly decay."""

from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import PolynomialLR

from utils.config import OptimizerConfig


def parameter_groups(model: nn.Module, *, lr: float, factors: dict[str, float]) -> list[dict]:
    """Put every parameter into the group of its branch.

    Args:
        lr: learning rate for factor 1.
        factors: by the name of a direct child of the model; what is not named belongs to "head".

    Returns:
        a group per branch that has parameters, with `name`, `params` and `lr`, in the order of `factors`.
    """
    groups = {name: [] for name in factors}
    for name, child in model.named_children():
        groups[name if name in factors else "head"] += list(child.parameters())
    return [{"name": name, "params": params, "lr": lr * factors[name]} for name, params in groups.items() if params]


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    """SGD: backbone, sub1 and head each at their rate (the original author: 10 x for what is not pretrained)."""
    factors = {
        "backbone": config.backbone_lr_factor,
        "sub1": config.sub1_lr_factor,
        "head": config.head_lr_factor,
    }
    groups = parameter_groups(model, lr=config.init_lr, factors=factors)
    return SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay)


def build_scheduler(optimizer: Optimizer, config: OptimizerConfig, *, iterations: int) -> PolynomialLR:
    """Poly decay to 0, rate x (1 - iteration / iterations) ** power, stepped at every iteration."""
    return PolynomialLR(optimizer, total_iters=iterations, power=config.power)
