"""A training run: epochs, validations, checkpoints, records; and how it goes on after an interruption."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from tqdm import tqdm

from utils.checkpoint import Checkpoint, save_checkpoint
from utils.engine import evaluate, train_one_epoch
from utils.logger import append_json_line, open_log, progress
from utils.metrics import ConfusionMatrix, format_table
from utils.runtime import Interruption, catching_signals, random_state, set_random_state
from utils.segmenter import Segmenter
from utils.weights import load_state


@dataclass(kw_only=True)
class Trainer:
    """Train a network, validate it, and keep its best and its last weights.

    In `folder` it writes `train.log`, `train.jsonl` (one object per epoch), `last.pth` after every epoch and when it is
    interrupted, and `{name}_{epoch}_{mIoU}_best_model.pth` when a validation is the best so far (the run's former best
    goes).

    Attributes:
        network: on `device`; returns a dict of logits with "out".
        scheduler: stepped at every iteration.
        description: what of each checkpoint stays the same; the run fills in weights and progress.
        name: how the best checkpoint's name begins.
        log_iter: iterations between updates of the figures beside the progress bar.
        save_iter: iterations between saves within an epoch; None: none.
        iteration: how many are done.
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
    save_iter: int | None = None

    def __post_init__(self) -> None:
        self.log = open_log(self.folder / "train.log")
        self.started = time.strftime("%Y-%m-%d %H:%M:%S")
        self.iteration = 0
        self.losses: list[Tensor] = []  # of the epoch's iterations so far
        self.rates: dict[str, float] = {}  # learning rates at the epoch's beginning
        self.metrics: dict[str, Any] = {}
        self.best_miou = -1.0
        self.best_path: Path | None = None

    @property
    def epoch(self) -> int:
        """How many epochs are complete."""
        return self.iteration // len(self.train_batches)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Take up everything where `last.pth` left it.

        Raises:
            ValueError: the checkpoint is not one to go on from, or does not fit.
        """
        state = checkpoint.training
        if state is None:
            raise ValueError(f"{checkpoint.source} holds weights only; training goes on from a last.pth")
        load_state(self.network, checkpoint.state_dict)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.iteration, self.metrics = checkpoint.iteration, checkpoint.metrics
        self.losses, self.rates = list(state["losses"].to(self.device)), state["rates"]
        self.best_miou = state["best_miou"]
        self.best_path = self.folder / state["best_name"] if state["best_name"] else None
        set_random_state(state["random"])

    def fit(self, *, epochs: int, val_epoch: int) -> None:
        """Train until `epochs` are complete, validating every `val_epoch` of them and after the last.

        Raises:
            Interruption: a signal came; the iteration under way was finished, and everything saved.
        """
        with catching_signals() as stopping:
            while self.epoch < epochs:
                self._fit_epoch(epochs, val_epoch, stopping)
                if stopping() and self.epoch < epochs:
                    self._interrupt()
        self.log.info(format_table(self.metrics))

    def _fit_epoch(self, epochs: int, val_epoch: int, stopping: Callable[[], bool]) -> None:
        start, number = time.perf_counter(), self.epoch + 1
        if not self.losses:
            self.rates = {f"lr_{group['name']}": group["lr"] for group in self.optimizer.param_groups}
        loss = self._train_epoch(f"epoch {number}/{epochs}", stopping)
        record = {"run": self.started, "epoch": number, "iteration": self.iteration, **self.rates, "loss": loss}
        try:
            if number % val_epoch == 0 or number == epochs:
                self._validate()
                record |= {key: self.metrics[key] for key in ("miou", "pixel_accuracy", "class_iou")}
        finally:  # an epoch's training is not lost to a fault in validation
            self._save_last()
        record["seconds"] = round(time.perf_counter() - start, 2)
        append_json_line(self.folder / "train.jsonl", record)
        self.log.info(self._line(record, epochs))

    def _train_epoch(self, title: str, stopping: Callable[[], bool]) -> float:
        """Train the rest of the current epoch; return the mean loss of all of its iterations."""
        sampler, length = self.train_batches.sampler, len(self.train_batches)
        sampler.epoch, done = self.epoch + 1, self.iteration % length
        sampler.skip = done * self.train_batches.batch_size
        with progress(self.train_batches, title, total=length, initial=done) as bar:
            train_one_epoch(
                self.network,
                bar,
                criterion=self.criterion,
                normalize=self.normalize,
                optimizer=self.optimizer,
                scheduler=self.scheduler,
                device=self.device,
                on_step=lambda loss: self._after_step(loss, bar, stopping),
            )
        loss = self._check(torch.stack(self.losses).mean().item())
        self.losses = []
        return loss

    def _after_step(self, loss: Tensor, bar: tqdm, stopping: Callable[[], bool]) -> None:
        self.iteration += 1
        self.losses.append(loss)
        if self.iteration % self.log_iter == 0:  # reading the loss waits for the device
            self._check(loss.item())
            bar.set_postfix(loss=f"{loss.item():.3f}", lr=f"{self.scheduler.get_last_lr()[0]:.5f}")
        if self.iteration % len(self.train_batches) == 0:
            return  # the epoch's end saves, after validation
        if stopping() or (self.save_iter is not None and self.iteration % self.save_iter == 0):
            self._save_last()
        if stopping():
            self._interrupt()

    def _interrupt(self) -> NoReturn:
        last = self.folder / "last.pth"
        raise Interruption(f"stopped after iteration {self.iteration}, saved in {last}; train.resume=auto goes on")

    def _check(self, loss: float) -> float:
        if not math.isfinite(loss):
            rates = ", ".join(f"{group['name']} {group['lr']:g}" for group in self.optimizer.param_groups)
            raise ValueError(
                f"the loss became {loss} by iteration {self.iteration} (learning rates: {rates}); lower "
                f"optimizer.init_lr; what {self.folder} holds is from before"
            )
        return loss

    def _validate(self) -> None:
        names = self.description.classes.names
        confusion = ConfusionMatrix(len(names), self.device)
        self.network.eval()
        with progress(self.val_batches, "validation") as bar:
            evaluate(Segmenter(self.network, device=self.device), bar, confusion=confusion)
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
            "losses": torch.stack(self.losses).cpu() if self.losses else torch.zeros(0),
            "rates": self.rates,
            "best_miou": self.best_miou,
            "best_name": self.best_path.name if self.best_path else None,
            "random": random_state(),
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
        left = (epochs - record["epoch"]) * record["seconds"]
        return (
            f"epoch {record['epoch']:3}/{epochs}  loss {record['loss']:.4f}{quality}  "
            f"{record['seconds']:.1f} s, {tqdm.format_interval(left)} left"
        )
