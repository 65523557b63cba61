"""The mean losses of an epoch."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from utils import runtime
from utils.data import TrainLoader
from utils.io.files import replacing


class LossMeter:
    """Add up the losses of an epoch's iterations, on their device and in memory that does not grow.

    Losses that are not finite are left out of the means; whether there were some, `find_divergence` tells.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.totals = torch.zeros(2, 0)  # (2, names) float64: sum of the finite ones, and how many
        self.unchecked: list[Tensor] = []  # whether the whole loss was finite, since `find_divergence`

    def update(self, losses: dict[str, Tensor]) -> None:
        """Add the losses of an iteration; the whole is named "loss"."""
        values = torch.stack(list(losses.values())).double()
        finite = values.isfinite()
        totals = torch.stack([values.where(finite, 0), finite.double()])
        self.totals = self.totals + totals if self.names else totals
        self.names = list(losses)
        self.unchecked.append(finite[self.names.index("loss")])

    def find_divergence(self, *, skipping: bool = False) -> int | None:
        """Tell how many iterations ago a loss was not finite (1: in the latest), looking at each iteration once.

        Args:
            skipping: such iterations are skipped, so it is none as long as the epoch had a loss that was finite.
        """
        finite = torch.stack(self.unchecked).tolist() if self.unchecked else []
        self.unchecked = []
        if all(finite) or (skipping and self.totals[1, self.names.index("loss")] > 0):
            return None
        return len(finite) - finite.index(False)

    def means(self) -> dict[str, float]:
        """Return the mean of each loss over all iterations and processes: of the whole as "loss", of X as "loss_X"."""
        means = runtime.mean_over_processes(self.totals[0] / self.totals[1]).tolist()
        names = (name if name == "loss" else f"loss_{name}" for name in self.names)
        return dict(zip(names, means, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes; what is unchecked must be checked before."""
        return {} if not self.names else {"names": self.names, "totals": self.totals.cpu()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on from a state, with losses on that device."""
        if state:
            self.names, self.totals = list(state["names"]), state["totals"].to(device)


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
