"""A training run: epochs, validations, checkpoints; and how it goes on after an interruption."""

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

from utils import runtime
from utils.checkpoint import Checkpoint, save_checkpoint
from utils.divergence import explain_divergence
from utils.engine import evaluate, train_one_epoch
from utils.logger import progress
from utils.metrics import ConfusionMatrix
from utils.optim import running_mean
from utils.program import Interruption, catching_signals
from utils.records import Records, epoch_line
from utils.report import format_table
from utils.segmenter import Segmenter
from utils.weights import load_state


@dataclass(kw_only=True)
class Trainer:
    """Train a network, validate it, and keep its best and its last weights.

    In the folder of `records` it writes `last.pth` after every epoch and when it is interrupted, and
    `{name}_{epoch}_{mIoU}_best_model.pth` when a validation is the best so far (the run's former best goes).

    Attributes:
        network: on `device`; returns a dict of logits with "out".
        criterion: see `utils.loss.CascadeLoss`.
        scheduler: stepped at every iteration.
        description: what of each checkpoint stays the same; the run fills in weights and progress.
        name: how the best checkpoint's name begins.
        log_iter: iterations between readings of the loss, which wait for the device.
        save_iter: iterations between saves within an epoch; None: none.
        precision, accumulate, clip, freeze_bn: see `utils.engine.train_one_epoch`.
        ema: decay of the running mean of the weights, which then is what is validated and kept; None: none.
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
    records: Records
    name: str
    log_iter: int = 10
    save_iter: int | None = None
    precision: str = "fp32"
    accumulate: int = 1
    clip: float | None = None
    ema: float | None = None
    freeze_bn: bool = False

    def __post_init__(self) -> None:
        self.folder, self.log = self.records.folder, self.records.log
        self.scaler = runtime.gradient_scaler(self.device, self.precision)
        self.parallel = runtime.parallel(self.network, self.device)
        self.mean = None if self.ema is None else running_mean(self.network, self.ema)
        self.iteration = 0
        self.losses: list[dict[str, Tensor]] = []  # of the epoch's iterations so far
        self.rates: dict[str, float] = {}  # learning rates at the epoch's beginning
        self.metrics: dict[str, Any] = {}
        self.best_miou = -1.0
        self.best_path: Path | None = None

    @property
    def epoch(self) -> int:
        """How many epochs are complete."""
        return self.iteration // len(self.train_batches)

    @property
    def trained(self) -> nn.Module:
        """The network to be used: the running mean where there is one."""
        return self.network if self.mean is None else self.mean.module

    def resume(self, checkpoint: Checkpoint) -> None:
        """Take up everything where `last.pth` left it.

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
        columns = {name: values.to(self.device) for name, values in state["losses"].items()}
        self.losses = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        self.rates = state["rates"]
        self.best_miou = state["best_miou"]
        self.best_path = self.folder / state["best_name"] if state["best_name"] else None
        runtime.set_random_state(state["random"])

    def fit(self, *, epochs: int, val_epoch: int) -> None:
        """Train until `epochs` are complete, validating every `val_epoch` of them and after the last.

        Raises:
            Interruption: a signal came; the iteration under way was finished, and everything saved.
        """
        with catching_signals() as stopping:
            while self.epoch < epochs:
                self._fit_epoch(epochs, val_epoch, stopping)
                if runtime.any_process(stopping(), self.device) and self.epoch < epochs:
                    self._interrupt()
        self.log.info(format_table(self.metrics))

    def _fit_epoch(self, epochs: int, val_epoch: int, stopping: Callable[[], bool]) -> None:
        start, number = time.perf_counter(), self.epoch + 1
        if not self.losses:
            self.rates = {f"lr_{group['name']}": group["lr"] for group in self.optimizer.param_groups}
        losses = self._train_epoch(f"epoch {number}/{epochs}", stopping)
        record = {"epoch": number, "iteration": self.iteration, **self.rates, **losses}
        try:
            if number % val_epoch == 0 or number == epochs:
                self._validate()
                record |= {key: self.metrics[key] for key in ("miou", "pixel_accuracy", "class_iou")}
        finally:  # an epoch's training is not lost to a fault in validation
            self._save_last()
        record["seconds"] = round(time.perf_counter() - start, 2)
        self.records.epoch(record)
        self.log.info(epoch_line(record, epochs=epochs, best=self.best_miou))

    def _train_epoch(self, title: str, stopping: Callable[[], bool]) -> dict[str, float]:
        """Train the rest of the current epoch; return the mean losses of all of its iterations, by name."""
        sampler, length = self.train_batches.sampler, len(self.train_batches)
        sampler.epoch, sampler.skip = self.epoch + 1, self.iteration % length
        with progress(self.train_batches, title, total=length, initial=sampler.skip) as bar:
            train_one_epoch(
                self.parallel,
                bar,
                criterion=self.criterion,
                normalize=self.normalize,
                optimizer=self.optimizer,
                scheduler=self.scheduler,
                device=self.device,
                scaler=self.scaler,
                precision=self.precision,
                accumulate=self.accumulate,
                clip=self.clip,
                freeze_bn=self.freeze_bn,
                on_step=lambda losses: self._after_step(losses, bar, stopping),
            )
        self._check_losses()
        columns, self.losses = self._columns(), []
        finite = {name: column[column.isfinite()].mean() for name, column in columns.items()}
        means = {name: runtime.mean_over_processes(mean).item() for name, mean in finite.items()}
        return {name if name == "loss" else f"loss_{name}": mean for name, mean in means.items()}

    def _after_step(self, losses: dict[str, Tensor], bar: tqdm, stopping: Callable[[], bool]) -> None:
        self.iteration += 1
        self.losses.append(losses)
        if self.mean is not None:
            self.mean.update_parameters(self.network)
        stop = False
        if self.iteration % self.log_iter == 0 or runtime.processes() == 1:
            stop = runtime.any_process(stopping(), self.device)  # all stop at one iteration
        if self.iteration % self.log_iter == 0:
            self._check_losses()
            bar.set_postfix(loss=f"{losses['loss'].item():.3f}", lr=f"{self.scheduler.get_last_lr()[0]:.5f}")
        if self.iteration % len(self.train_batches) == 0:
            return  # the epoch's end saves, after validation
        if stop or (self.save_iter is not None and self.iteration % self.save_iter == 0):
            self._check_losses()
            self._save_last()
        if stop:
            self._interrupt()

    def _interrupt(self) -> NoReturn:
        last = self.folder / "last.pth"
        raise Interruption(f"stopped after iteration {self.iteration}, saved in {last}; train.resume=auto goes on")

    def _check_losses(self) -> None:
        """End the run where a loss of this epoch is not finite; under fp16, which skips such steps, where none is."""
        finite = torch.stack([losses["loss"] for losses in self.losses]).isfinite().tolist()
        if runtime.any_process(not (any(finite) if self.scaler.is_enabled() else all(finite)), self.device):
            first = finite.index(False) if False in finite else len(finite) - 1  # or it was another process's part
            explanation = explain_divergence(
                self.iteration - len(finite) + first,
                network=self.network,
                batches=self.train_batches,
                optimizer=self.optimizer,
                path=self.folder / "diverged.pth",
            )
            raise ValueError(explanation)

    def _validate(self) -> None:
        names = self.description.classes.names
        confusion = ConfusionMatrix(len(names), self.device)
        self.trained.eval()
        segment = Segmenter(self.trained, device=self.device)
        with progress(self.val_batches, "validation") as bar:
            evaluate(segment, bar, confusion=confusion, on_image=self._show_prediction)
        confusion.merge()
        self.metrics = confusion.summary(names)
        if self.metrics["miou"] > self.best_miou:
            former, self.best_miou = self.best_path, self.metrics["miou"]
            self.best_path = self.folder / f"{self.name}_{self.epoch}_{self.best_miou:.3f}_best_model.pth"
            if runtime.rank() == 0:
                save_checkpoint(self.best_path, self._checkpoint())
                if former is not None and former != self.best_path:
                    former.unlink(missing_ok=True)

    def _show_prediction(self, index: int, pred: Tensor) -> None:
        if index < 3 and runtime.rank() == 0:
            sample = self.val_batches.dataset[index]
            self.records.prediction(index, sample, pred.cpu(), self.description.classes, self.iteration)

    def _columns(self) -> dict[str, Tensor]:
        """Return the epoch's losses so far, by name."""
        names = self.losses[0] if self.losses else ()
        return {name: torch.stack([losses[name] for losses in self.losses]) for name in names}

    def _save_last(self) -> None:
        if runtime.rank() != 0:
            return
        training = {
            "network": None if self.mean is None else self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "losses": {name: column.cpu() for name, column in self._columns().items()},
            "rates": self.rates,
            "best_miou": self.best_miou,
            "best_name": self.best_path.name if self.best_path else None,
            "random": runtime.random_state(),
        }
        save_checkpoint(self.folder / "last.pth", replace(self._checkpoint(), training=training))

    def _checkpoint(self) -> Checkpoint:
        return replace(
            self.description,
            state_dict=self.trained.state_dict(),
            epoch=self.epoch,
            iteration=self.iteration,
            metrics=self.metrics,
        )
