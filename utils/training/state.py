"""What changes in the course of a training run: what is saved, and what a resumed run takes up."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from utils import runtime
from utils.config import Config
from utils.settings import fill, flatten
from utils.training.losses import LossMeter
from utils.weights.checkpoint import Checkpoint, load_state

_HARMLESS = {  # keys that a run may be resumed with another value of
    *(f"train.{key}" for key in ("specific_gpu_num", "valid_batch_size", "cityscapes_root", "log_iter", "val_epoch")),
    *(f"train.{key}" for key in ("ckpt_dir", "resume", "save_iter", "num_workers", "amp", "accumulate")),
    *("dataset.root", "dataset.cache", "model.backbone_weights", "model.weights"),
}


@dataclass(kw_only=True)
class RunState:
    """The state of a run between two iterations.

    Attributes:
        network: what is trained.
        optimizer, scheduler, scaler: how.
        mean: running mean of the network's weights; None: none.
        iteration: how many are done.
        losses: of the epoch's iterations so far.
        rates: learning rates at the epoch's beginning.
        metrics: of the latest validation.
        best_miou, best_path: of the best validation so far, and the weights that it measured.
    """

    network: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler
    scaler: torch.amp.GradScaler
    mean: AveragedModel | None = None
    iteration: int = 0
    losses: LossMeter = field(default_factory=LossMeter)
    rates: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    best_miou: float = -1.0
    best_path: Path | None = None

    @property
    def trained(self) -> nn.Module:
        """The network to be used: the running mean where there is one."""
        return self.network if self.mean is None else self.mean.module

    def describe_weights(self, description: Checkpoint, *, epoch: int) -> Checkpoint:
        """Return a checkpoint of the weights that are to be used.

        Args:
            description: what of each checkpoint stays the same.
            epoch: how many are complete.
        """
        return replace(
            description,
            state_dict=self.trained.state_dict(),
            epoch=epoch,
            iteration=self.iteration,
            metrics=self.metrics,
        )

    def describe_run(self, description: Checkpoint, *, epoch: int) -> Checkpoint:
        """Return a checkpoint to go on from: the weights and all else; arguments as of `describe_weights`."""
        training = {
            "network": None if self.mean is None else self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "losses": self.losses.state_dict(),
            "rates": self.rates,
            "best_miou": self.best_miou,
            "best_name": self.best_path.name if self.best_path else None,
            "random": runtime.random_state(),
        }
        return replace(self.describe_weights(description, epoch=epoch), training=training)

    def restore(self, checkpoint: Checkpoint, *, device: torch.device, folder: Path) -> None:
        """Take up everything where `describe_run` left it.

        Args:
            device: where the losses are.
            folder: where the best weights are.

        Raises:
            ValueError: the checkpoint is not one to go on from, or does not fit.
        """
        state = checkpoint.training
        if state is None:
            raise ValueError(f"{checkpoint.source} holds weights only; training goes on from a last.pth")
        load_state(self.trained, checkpoint.state_dict)
        if self.mean is not None:
            load_state(self.network, state["network"])
            self.mean.n_averaged.fill_(checkpoint.iteration)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        self.iteration, self.metrics = checkpoint.iteration, checkpoint.metrics
        self.losses.load_state_dict(state["losses"], device)
        self.rates = state["rates"]
        self.best_miou = state["best_miou"]
        self.best_path = folder / state["best_name"] if state["best_name"] else None
        runtime.set_random_state(state["random"])


def check_resumable(config: Config, trained: Mapping) -> None:
    """Make sure that a run goes on with what it began with.

    Args:
        trained: the configuration in the checkpoint, as plain values.

    Raises:
        ValueError: keys that have another value now, with both values.
    """
    now, then = flatten(config.as_dict()), flatten(fill(Config, trained).as_dict())
    keys = [key for key in now if now[key] != then[key] and key not in _HARMLESS and not key.startswith("test.")]
    changed = [f"{key} (was {then[key]}, is {now[key]})" for key in keys]
    if changed:
        raise ValueError(f"the run to resume was begun with other settings: {', '.join(changed)}")
