"""The state of a training run: the losses of the epoch, checkpoints, and resuming from one."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from models import ICNet
from utils import distributed, runtime
from utils.config import Config, load_config
from utils.optim import WeightEMA
from utils.settings import flatten
from utils.weights.checkpoint import Checkpoint, save_checkpoint
from utils.weights.run_folder import LAST, best_name
from utils.weights.tensors import load_state

_CHANGEABLE = (  # keys, or sections ending in a dot
    *("dataset.root", "dataset.cache", "dataset.colors", "model.weights", "model.backbone_weights"),
    *("train.specific_gpu_num", "train.num_workers", "train.valid_batch_size", "train.amp", "train.accumulate"),
    *("train.log_iter", "train.save_iter", "train.val_epoch", "train.cityscapes_root", "train.ckpt_dir"),
    *("train.resume", "test."),
)
_VALIDATION = ("split", "short_side", "input_size", "resize_probabilities")  # of `test`, on which the mIoU depends


def check_resumable(config: Config, checkpoint: Checkpoint) -> None:
    """Raise ValueError for weights only, or if a setting that affects the result differs from the checkpoint's."""
    if checkpoint.training is None:
        raise ValueError(
            f"{checkpoint.source} holds weights only; train.resume needs a last.pth (to fine-tune, set model.weights)"
        )
    saved = load_config(checkpoint.config, name=str(checkpoint.source))
    now, then = flatten(config.as_dict()), flatten(saved.as_dict())
    moved = {"loss.distill"} if now["loss.distill"] and then["loss.distill"] else set()  # the teacher's file may move
    keys = [key for key in now if now[key] != then[key] and key not in moved and not key.startswith(_CHANGEABLE)]
    changed = [f"{key} (was {then[key]}, is {now[key]})" for key in keys]
    if changed:
        raise ValueError(f"cannot resume with changed settings: {', '.join(changed)}; restore them or start a new run")


class LossMeter:
    """Means of an epoch's losses, accumulated on their device in constant memory."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.totals = torch.zeros(2, 0)  # (2, losses) float64: sums and numbers of the values
        self.unchecked: list[Tensor] = []  # whether the total loss was finite, per iteration since `find_divergence`

    def update(self, losses: dict[str, Tensor]) -> None:
        """Add the losses of one iteration; the total loss is named "loss"."""
        values = torch.stack(list(losses.values())).double()
        totals = torch.stack([values, torch.ones_like(values)])
        self.totals = self.totals + totals if self.names else totals
        self.names = list(losses)
        self.unchecked.append(losses["loss"].isfinite())

    def find_divergence(self) -> int:
        """Return how many iterations ago the loss was first non-finite (1: the latest; 0: never); each is checked once.

        This is fatal under fp16, too: the gradient scaler skips steps whose gradients overflow, but a loss that is not
        finite comes from activations that overflowed, and they have spoilt the batch norms' running statistics.
        """
        finite = torch.stack(self.unchecked).tolist() if self.unchecked else []
        self.unchecked = []
        return 0 if all(finite) else len(finite) - finite.index(False)

    def means(self) -> dict[str, float]:
        """Return the means over all iterations and processes: of the total as "loss", of another loss X as "loss_X"."""
        means = distributed.mean_over_processes(self.totals[0] / self.totals[1]).tolist()
        names = (name if name == "loss" else f"loss_{name}" for name in self.names)
        return dict(zip(names, means, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Return the state to save, {} if empty; `find_divergence` must have been called before.

        A collective operation: one process saves, and each continues from the mean of the totals.
        """
        return {"names": self.names, "totals": distributed.mean_over_processes(self.totals).cpu()} if self.names else {}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore a state; the losses that follow are on `device`."""
        if state:
            self.names, self.totals = list(state["names"]), state["totals"].to(device)


@dataclass(kw_only=True)
class RunState:
    """Everything that changes during a run, with its checkpoints."""

    network: ICNet
    optimizer: Optimizer
    scheduler: LRScheduler
    scaler: torch.amp.GradScaler
    ema: WeightEMA | None  # validated and saved instead of the network
    template: Checkpoint  # the content of every checkpoint but weights and progress
    folder: Path
    epoch_length: int  # iterations per epoch
    iteration: int = 0  # completed iterations
    losses: LossMeter = field(default_factory=LossMeter)  # of the current epoch; emptied after its validation
    rates: dict[str, float] = field(default_factory=dict)  # learning rates at the start of the epoch
    metrics: dict[str, Any] = field(default_factory=dict)  # of the latest validation
    best_miou: float = -1.0  # best validation so far, and its checkpoint
    best_path: Path | None = None
    begun: float = field(default_factory=time.perf_counter)  # start of the epoch, minus its time before resuming

    @property
    def epoch(self) -> int:
        """Number of epochs whose training is complete."""
        return self.iteration // self.epoch_length

    @property
    def step(self) -> int:
        """Number of completed iterations of the current epoch."""
        return self.iteration % self.epoch_length

    @property
    def unrecorded(self) -> bool:
        """Whether an epoch's training is complete, but not its validation and records."""
        return self.step == 0 and bool(self.losses.names)  # the losses are emptied once the epoch is recorded

    @property
    def next_recorded(self) -> int:
        """The first iteration for which records are still to be written; an epoch's are those of its last iteration."""
        if self.iteration > 0 and not self.losses.names:  # the epoch that ends here has been recorded
            return self.iteration + 1
        return self.iteration

    @property
    def trained(self) -> ICNet:
        """The network to validate and save as the best."""
        return self.network if self.ema is None else self.ema.module

    def save_best(self, name: str) -> None:
        """Save the weights as `{name}_{epoch}_{mIoU}_best_model.pth`, replacing the previous best."""
        previous, self.best_miou = self.best_path, self.metrics["miou"]
        self.best_path = self.folder / best_name(name, epoch=self.epoch, miou=self.best_miou)
        if distributed.rank() == 0:
            save_checkpoint(self.best_path, self._checkpoint())
            if previous is not None and previous != self.best_path:
                previous.unlink(missing_ok=True)

    def save_last(self) -> None:
        """Save everything that `restore` needs, as `last.pth`; a collective operation."""
        losses = self.losses.state_dict()
        if distributed.rank() > 0:
            return
        training = {
            "network": None if self.ema is None else self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "losses": losses,
            "rates": self.rates,
            "epoch_length": self.epoch_length,
            "seconds": time.perf_counter() - self.begun,
            "best_miou": self.best_miou,
            "best_name": self.best_path.name if self.best_path else None,
            "random": runtime.random_state(),
        }
        save_checkpoint(self.folder / LAST, replace(self._checkpoint(), training=training))

    def _checkpoint(self) -> Checkpoint:
        checkpoint = replace(self.template, epoch=self.epoch, iteration=self.iteration, metrics=self.metrics)
        return replace(checkpoint, state_dict=self.trained.state_dict())

    def restore(self, checkpoint: Checkpoint, device: torch.device) -> None:
        """Continue where `save_last` was called, from a checkpoint that `check_resumable` accepts."""
        state = checkpoint.training
        assert state is not None
        if state["epoch_length"] != self.epoch_length:
            raise ValueError(
                f"cannot resume: an epoch had {state['epoch_length']} iterations and now has {self.epoch_length}, as "
                "the number of training images has changed; restore the images, or start a new run from these weights: "
                f"train.ckpt_dir=OTHER model.weights={checkpoint.source}"
            )
        load_state(self.trained, checkpoint.state_dict)
        if self.ema is not None:
            load_state(self.network, state["network"])
            self.ema.updates = checkpoint.iteration
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if state["scaler"]:  # empty if train.amp was not fp16
            self.scaler.load_state_dict(state["scaler"])
        self.losses.load_state_dict(state["losses"], device)
        self.iteration, self.metrics, self.rates = checkpoint.iteration, checkpoint.metrics, state["rates"]
        best = self.folder / state["best_name"] if state["best_name"] else None
        now, then = self.template.config.get("test", {}), checkpoint.config.get("test", {})
        if best is not None and best.exists():  # else the run continues in another folder, with its own best checkpoint
            self.best_path = best
            # if validation has changed, mIoUs are not comparable, and the next one is the best
            if all((now.get(key) or None) == (then.get(key) or None) for key in _VALIDATION):
                self.best_miou = state["best_miou"]
        self.begun = time.perf_counter() - state["seconds"]
        runtime.set_random_state(state["random"])
