"""A training run: epochs, validations, checkpoints, records."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from tqdm import tqdm

from utils.checkpoint import Checkpoint, save_checkpoint
from utils.engine import evaluate, train_one_epoch
from utils.logger import append_json_line, open_log, progress
from utils.metrics import format_table


@dataclass(kw_only=True)
class Trainer:
    """Train a network, validate it, and keep its best and its last weights.

    In `folder` it writes `train.log`, `train.jsonl` (one object per epoch), `last.pth` after every epoch, and
    `{name}_{epoch}_{mIoU}_best_model.pth` when a validation is the best so far (the run's former best goes).

    Attributes:
        network: on `device`; returns a dict of logits with "out".
        scheduler: stepped at every iteration.
        description: what of each checkpoint stays the same; the run fills in weights and progress.
        name: how the best checkpoint's name begins.
        log_iter: iterations between updates of the figures beside the progress bar.
    """

    network: nn.Module
    criterion: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler
    normalize: Callable[[Tensor], Tensor]
    train_batches: DataLoader
    val_batches: DataLoader
    device: torch.device
    description: Checkpoint
    folder: Path
    name: str
    log_iter: int = 10

    def __post_init__(self) -> None:
        self.log = open_log(self.folder / "train.log")
        self.started = time.strftime("%Y-%m-%d %H:%M:%S")
        self.epoch = 0
        self.metrics: dict[str, Any] = {}
        self.best_miou = -1.0
        self.best_path: Path | None = None

    def fit(self, *, epochs: int, val_epoch: int) -> None:
        """Train for `epochs`, validating every `val_epoch` of them and after the last."""
        while self.epoch < epochs:
            start = time.perf_counter()
            self.epoch += 1
            record: dict[str, Any] = {"run": self.started, "epoch": self.epoch, "iteration": self.iteration}
            record |= {f"lr_{group['name']}": group["lr"] for group in self.optimizer.param_groups}  # at the beginning
            record["loss"] = self._train_epoch(epochs)
            try:
                if self.epoch % val_epoch == 0 or self.epoch == epochs:
                    self._validate()
                    record |= {key: self.metrics[key] for key in ("miou", "pixel_accuracy", "class_iou")}
            finally:  # an epoch's training is not lost to a fault in validation
                self._save_last()
            record["seconds"] = round(time.perf_counter() - start, 2)
            append_json_line(self.folder / "train.jsonl", record)
            self.log.info(self._line(record, epochs))
        self.log.info(format_table(self.metrics))

    @property
    def iteration(self) -> int:
        """How many iterations the epochs up to this one have."""
        return self.epoch * len(self.train_batches)

    def _train_epoch(self, epochs: int) -> float:
        self.train_batches.sampler.epoch = self.epoch
        steps = count(1)
        with progress(self.train_batches, f"epoch {self.epoch}/{epochs}") as bar:

            def on_step(loss: Tensor) -> None:
                if next(steps) % self.log_iter == 0:  # reading the loss waits for the device
                    self._check(loss.item())
                    bar.set_postfix(loss=f"{loss.item():.3f}", lr=f"{self.scheduler.get_last_lr()[0]:.5f}")

            loss = train_one_epoch(
                self.network,
                bar,
                criterion=self.criterion,
                normalize=self.normalize,
                optimizer=self.optimizer,
                scheduler=self.scheduler,
                device=self.device,
                on_step=on_step,
            )
        return self._check(loss.item())

    def _check(self, loss: float) -> float:
        if not math.isfinite(loss):
            rates = ", ".join(f"{group['name']} {group['lr']:g}" for group in self.optimizer.param_groups)
            raise ValueError(
                f"the loss became {loss} in epoch {self.epoch} (learning rates: {rates}); lower optimizer.init_lr; "
                f"what {self.folder} holds is from before"
            )
        return loss

    def _validate(self) -> None:
        names = self.description.classes.names
        with progress(self.val_batches, "validation") as bar:
            confusion = evaluate(
                self.network, bar, num_classes=len(names), normalize=self.normalize, device=self.device
            )
        self.metrics = confusion.summary(names)
        if self.metrics["miou"] > self.best_miou:
            former, self.best_miou = self.best_path, self.metrics["miou"]
            self.best_path = self.folder / f"{self.name}_{self.epoch}_{self.best_miou:.3f}_best_model.pth"
            save_checkpoint(self.best_path, self._checkpoint())
            if former is not None and former != self.best_path:
                former.unlink(missing_ok=True)

    def _save_last(self) -> None:
        training = {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "best_miou": self.best_miou,
        }
        save_checkpoint(self.folder / "last.pth", replace(self._checkpoint(), training=training))

    def _checkpoint(self) -> Checkpoint:
        return replace(
            self.description,
            state_dict=self.network.state_dict(),
            epoch=self.epoch,
            iteration=self.iteration,
            metrics=self.metrics,
        )

    def _line(self, record: dict[str, Any], epochs: int) -> str:
        quality = ""
        if "miou" in record:
            best = " (best)" if record["miou"] == self.best_miou else ""
            quality = f"  mIoU {record['miou']:.4f}{best}  pixel accuracy {record['pixel_accuracy']:.4f}"
        left = (epochs - self.epoch) * record["seconds"]
        return (
            f"epoch {self.epoch:3}/{epochs}  loss {record['loss']:.4f}{quality}  "
            f"{record['seconds']:.1f} s, {tqdm.format_interval(left)} left"
        )
