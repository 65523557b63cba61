"""A training run: epochs, validations, checkpoints, and its end in good order when a signal comes."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from utils import runtime
from utils.cli import Interruption, catching_signals, progress
from utils.data import EvalLoader, TrainLoader, read_batches
from utils.engine import evaluate, train_one_epoch
from utils.inference.segmenter import Segmenter
from utils.inference.views import with_options
from utils.metrics import ConfusionMatrix, format_table
from utils.optim import running_mean
from utils.training.losses import LossMeter, explain_divergence
from utils.training.records import Records, epoch_line
from utils.training.state import RunState
from utils.weights.checkpoint import Checkpoint, save_checkpoint
from utils.weights.run_folder import LAST, best_name


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
        short_side: that images are resized to for validation; None: as they are.
        state: what changes as it trains, and is saved and resumed.
    """

    network: nn.Module
    criterion: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler
    normalize: Callable[[Tensor], Tensor]
    train_batches: TrainLoader
    val_batches: EvalLoader
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
    short_side: int | None = None

    def __post_init__(self) -> None:
        self.folder, self.log = self.records.folder, self.records.log
        self.parallel = runtime.parallel(self.network, self.device)
        self.state = RunState(
            network=self.network,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            scaler=runtime.gradient_scaler(self.device, self.precision),
            mean=None if self.ema is None else running_mean(self.network, self.ema),
        )

    @property
    def epoch(self) -> int:
        """How many epochs are complete."""
        return self.state.iteration // len(self.train_batches)

    def fit(self, *, epochs: int, val_epoch: int) -> None:
        """Train until `epochs` are complete, validating every `val_epoch` of them and after the last.

        Raises:
            Interruption: a signal came; the iteration under way was finished, and everything saved.
        """
        with catching_signals() as stopping:
            if self.state.losses.names and self.state.iteration % len(self.train_batches) == 0:
                self._finish_epoch(epochs, val_epoch, time.perf_counter())  # its validation failed
            while self.epoch < epochs:
                self._fit_epoch(epochs, val_epoch, stopping)
                if runtime.any_process(stopping(), self.device) and self.epoch < epochs:
                    self._interrupt()
        self.log.info(format_table(self.state.metrics))

    def _fit_epoch(self, epochs: int, val_epoch: int, stopping: Callable[[], bool]) -> None:
        start, number = time.perf_counter(), self.epoch + 1
        if self.state.iteration % len(self.train_batches) == 0:
            self.state.rates = {f"lr_{group['name']}": group["lr"] for group in self.optimizer.param_groups}
        self._train_epoch(f"epoch {number}/{epochs}", stopping)
        self._finish_epoch(epochs, val_epoch, start)

    def _finish_epoch(self, epochs: int, val_epoch: int, start: float) -> None:
        """Validate if it is time, save, and tell; `start` is when the epoch began."""
        losses = self.state.losses.means()
        record: dict[str, Any] = {"epoch": self.epoch, "iteration": self.state.iteration, **self.state.rates, **losses}
        try:
            if self.epoch % val_epoch == 0 or self.epoch == epochs:
                self._validate()
                record |= {key: self.state.metrics[key] for key in ("miou", "pixel_accuracy", "class_iou")}
            self.state.losses = LossMeter()  # until then the epoch is not finished
        finally:  # its training is not lost to a fault in validation
            self._save_last()
        record["seconds"] = round(time.perf_counter() - start, 2)
        self.records.epoch(record)
        self.log.info(epoch_line(record, epochs=epochs, best=self.state.best_miou))

    def _train_epoch(self, title: str, stopping: Callable[[], bool]) -> None:
        """Train the rest of the current epoch."""
        sampler, length = self.train_batches.sampler, len(self.train_batches)
        sampler.epoch, sampler.skip = self.epoch + 1, self.state.iteration % length
        with progress(self.train_batches, title, total=length, initial=sampler.skip) as bar:
            train_one_epoch(
                self.parallel,
                bar,
                criterion=self.criterion,
                normalize=self.normalize,
                optimizer=self.optimizer,
                scheduler=self.scheduler,
                device=self.device,
                scaler=self.state.scaler,
                precision=self.precision,
                accumulate=self.accumulate,
                clip=self.clip,
                freeze_bn=self.freeze_bn,
                on_step=lambda losses: self._after_step(losses, bar, stopping),
            )
        self._check_losses()

    def _after_step(self, losses: dict[str, Tensor], bar: tqdm, stopping: Callable[[], bool]) -> None:
        self.state.iteration += 1
        self.state.losses.update(losses)
        if self.state.mean is not None:
            self.state.mean.update_parameters(self.network)
        stop = False
        if self.state.iteration % self.log_iter == 0 or runtime.processes() == 1:
            stop = runtime.any_process(stopping(), self.device)  # all stop at one iteration
        if self.state.iteration % self.log_iter == 0:
            self._check_losses()
            bar.set_postfix(loss=f"{losses['loss'].item():.3f}", lr=f"{self.scheduler.get_last_lr()[0]:.5f}")
        if self.state.iteration % len(self.train_batches) == 0:
            return  # the epoch's end saves, after validation
        if stop or (self.save_iter is not None and self.state.iteration % self.save_iter == 0):
            self._check_losses()
            self._save_last()
        if stop:
            self._interrupt()

    def _interrupt(self) -> NoReturn:
        saved = f"iteration {self.state.iteration}, saved in {self.folder / LAST}"
        raise Interruption(f"stopped after {saved}; train.resume=auto goes on")

    def _check_losses(self) -> None:
        """End the run where a loss of this epoch is not finite; under fp16, which skips such steps, where none is."""
        back = self.state.losses.find_divergence(skipping=self.state.scaler.is_enabled())
        if runtime.any_process(back is not None, self.device):
            explanation = explain_divergence(
                self.state.iteration - (back or 1),  # or it was in another process's part
                network=self.network,
                batches=self.train_batches,
                optimizer=self.optimizer,
                path=self.folder / "diverged.pth",
            )
            raise ValueError(explanation)

    def _validate(self) -> None:
        names = self.description.classes.names
        confusion = ConfusionMatrix(len(names), self.device)
        self.state.trained.eval()
        segment = with_options(
            Segmenter(self.state.trained, device=self.device), short_side=self.short_side, device=self.device
        )
        with progress(read_batches(self.val_batches, self.device), "validation", total=len(self.val_batches)) as bar:
            evaluate(segment, bar, confusion=confusion, on_image=self._show_prediction)
        confusion.merge()
        self.state.metrics = confusion.summary(names)
        if self.state.metrics["miou"] > self.state.best_miou:
            self._keep_best()

    def _keep_best(self) -> None:
        state, former = self.state, self.state.best_path
        state.best_miou = state.metrics["miou"]
        state.best_path = self.folder / best_name(self.name, epoch=self.epoch, miou=state.best_miou)
        if runtime.rank() == 0:
            save_checkpoint(state.best_path, state.describe_weights(self.description, epoch=self.epoch))
            if former is not None and former != state.best_path:
                former.unlink(missing_ok=True)

    def _show_prediction(self, index: int, pred: Tensor) -> None:
        if index < 3 and runtime.rank() == 0:
            sample = self.val_batches.dataset[index]
            self.records.prediction(index, sample, pred.cpu(), self.description.classes, self.state.iteration)

    def _save_last(self) -> None:
        if runtime.rank() == 0:
            save_checkpoint(self.folder / LAST, self.state.describe_run(self.description, epoch=self.epoch))
