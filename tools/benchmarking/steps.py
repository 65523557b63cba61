"""How long a step of training takes."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from dataset.labels import cityscapes_classes
from dataset.transforms import Normalize
from models import ICNet
from models.layers import resize_target
from tools.benchmarking.contenders import Setting
from tools.benchmarking.timing import time_in_turns
from utils import runtime
from utils.config import OptimizerConfig
from utils.engine import train_one_epoch
from utils.loss import CascadeLoss
from utils.optim import build_optimizer, build_scheduler


def time_steps(setting: Setting, *, crop: int, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of a step of this project, and of the plainest loop, on the same images in memory."""
    jobs = {"the plainest loop": plain_step(setting, crop), "this project's": own_step(setting, crop)}
    return time_in_turns(jobs, repeats=repeats, device=setting.device)


def _batch(setting: Setting, crop: int) -> dict[str, Tensor]:
    image = setting.image((crop, crop))
    target = torch.randint(0, len(cityscapes_classes()), (setting.batch, crop, crop), dtype=torch.uint8)
    return {"image": image, "target": target}


def own_step(setting: Setting, crop: int) -> Callable[[], object]:
    """Make a job of one step as `train.py` does it."""
    device = torch.device(setting.device)
    network = ICNet(len(cityscapes_classes()), setting.backbone).to(device).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(network, OptimizerConfig())
    return partial(
        train_one_epoch,
        network,
        [_batch(setting, crop)],
        criterion=CascadeLoss(),
        normalize=Normalize(),
        optimizer=optimizer,
        scheduler=build_scheduler(optimizer, OptimizerConfig(), iterations=10**6),
        device=device,
        scaler=runtime.gradient_scaler(device, setting.precision),
        precision=setting.precision,
    )


def plain_step(setting: Setting, crop: int) -> Callable[[], object]:
    """Make a job of one step as one would first write it, with the same network, losses and rates."""
    device = torch.device(setting.device)
    network = ICNet(len(cityscapes_classes()), setting.backbone).to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    batch, normalize = _batch(setting, crop), Normalize()

    def step() -> None:
        image, target = normalize(batch["image"].to(device)), batch["target"].to(device).long()
        with runtime.autocast(device, setting.precision):
            outputs = network(image)
        losses = []
        for logits in outputs.values():
            small = resize_target(target, logits.shape[-2:])
            losses.append(F.cross_entropy(logits.float(), small, ignore_index=255))
        optimizer.zero_grad()
        (losses[0] + 0.4 * losses[1] + 0.4 * losses[2]).backward()
        optimizer.step()

    return step
