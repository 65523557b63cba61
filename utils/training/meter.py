"""The mean losses of an epoch."""

from typing import Any

import torch
from torch import Tensor

from utils import runtime


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
