"""What is left to look at where a loss is not finite."""

from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from utils import runtime
from utils.data import TrainLoader
from utils.files import replacing


def explain_divergence(
    iteration: int, *, network: nn.Module, batches: TrainLoader, optimizer: Optimizer, path: Path
) -> str:
    """Save the batch of an iteration (counted from 0) beside the weights as they are now; say which images it had.

    The batch is loaded again: what is in it depends on the seed, the epoch and the samples' indices alone.
    """
    epoch, number = divmod(iteration, len(batches))
    indices = batches.sampler.batches(epoch + 1)[number].tolist()
    images = [str(batches.dataset.samples[index].image) for index in indices]
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    if runtime.rank() == 0:
        batch = [batches.dataset[epoch + 1, index] for index in indices]
        content = {"iteration": iteration + 1, "learning_rates": rates, "images": images, "batch": batch}
        with replacing(path) as temporary:
            torch.save(content | {"state_dict": network.state_dict()}, temporary)
    return (
        f"the loss is not finite at iteration {iteration + 1} (learning rates: "
        f"{', '.join(f'{name} {rate:g}' for name, rate in rates.items())}; images: {', '.join(images)}); "
        f"the batch and the weights are in {path}; lower optimizer.init_lr, or set optimizer.clip_norm"
    )
