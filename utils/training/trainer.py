"""The training loop: epochs, validation, checkpoints, and a clean stop on SIGINT, SIGTERM or SIGHUP."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from tqdm import tqdm

from dataset.transforms import Normalize
from models import ICNet
from utils import distributed, runtime
from utils.cli import Interruption, catching_signals, progress
from utils.config import OptimizerConfig, TestConfig, TrainConfig, TtaConfig
from utils.data import EvalLoader, TrainLoader, read_batches
from utils.engine import evaluate, train_one_epoch
from utils.inference.segmenter import PyTorchSegmenter
from utils.inference.views import with_options
from utils.metrics import ConfusionMatrix, format_table
from utils.optim import WeightEMA, build_optimizer, build_scheduler
from utils.training.records import Records
from utils.training.state import LossMeter, RunState
from utils.weights.checkpoint import Checkpoint
from utils.weights.run_folder import LAST
from utils.weights.tensors import write_tensors


@dataclass(kw_only=True)
class Trainer:
    """Train and validate a network; save its best weights and, to resume from, its latest state."""

    config: TrainConfig
    optimizer_config: OptimizerConfig
    test_config: TestConfig  # says how validation images and their logits are resized
    network: ICNet  # on `device`
    criterion: nn.Module  # returns the losses by name, see `utils.loss.CascadeLoss`
    train_loader: TrainLoader
    val_loader: EvalLoader
    device: torch.device
    template: Checkpoint  # the content of every checkpoint but weights and progress
    records: Records
    name: str  # prefix of the best checkpoint's name
    teacher: Callable[[Tensor], Tensor] | None = None  # see `train_one_epoch`

    def __post_init__(self) -> None:
        chosen = distributed.gather(runtime.choose_precision(self.config.amp, self.device))
        # unlike GPUs must agree: gradients that only some processes scale cannot be averaged
        self.precision = next(precision for precision in ("fp32", "fp16", "bf16") if precision in chosen)
        runtime.warn_of_emulation(self.precision, self.device)
        optimizer, epoch_length = build_optimizer(self.network, self.optimizer_config), len(self.train_loader)
        self.parallel = distributed.parallel(self.network, self.device)
        self.state = RunState(
            network=self.network,
            optimizer=optimizer,
            scheduler=build_scheduler(optimizer, self.optimizer_config, iterations=self.config.epochs * epoch_length),
            scaler=runtime.gradient_scaler(self.device, self.precision),
            ema=None if self.config.ema is None else WeightEMA(self.network, self.config.ema),
            template=self.template,
            folder=self.records.folder,
            epoch_length=epoch_length,
        )

    def fit(self) -> None:
        """Train the remaining epochs, validating every `val_epoch` epochs and after the last one.

        Raises:
            Interruption: a signal arrived; the state was saved after the current iteration or, with several processes,
                after the next multiple of `log_iter` or at the end of the epoch.
            ValueError: the loss is not finite.
        """
        state = self.state
        with catching_signals() as stopping:
            while state.epoch < self.config.epochs or state.unrecorded:
                if not state.unrecorded:  # else the run was stopped during validation
                    self._train_epoch(stopping)
                self._finish_epoch()
                if any(distributed.gather(stopping())) and state.epoch < self.config.epochs:
                    self._interrupt()
        self.records.log.info(format_table(state.metrics))

    def _train_epoch(self, stopping: Callable[[], bool]) -> None:
        """Train the remaining iterations of the current epoch."""
        state, sampler = self.state, self.train_loader.sampler
        if state.step == 0:
            state.rates = {f"lr_{group['name']}": group["lr"] for group in state.optimizer.param_groups}
        sampler.epoch, sampler.skip = state.epoch + 1, state.step
        title = f"epoch {state.epoch + 1}/{self.config.epochs}"
        bar = progress(self.train_loader, title, total=state.epoch_length, initial=state.step)
        with bar, runtime.fastest_convolutions():
            train_one_epoch(
                self.parallel,
                bar,
                criterion=self.criterion,
                normalize=Normalize(self.template.normalization),
                optimizer=state.optimizer,
                scheduler=state.scheduler,
                device=self.device,
                scaler=state.scaler,
                precision=self.precision,
                accumulate=self.config.accumulate,
                clip=self.optimizer_config.clip_norm,
                freeze_bn=self.config.freeze_bn,
                teacher=self.teacher,
                on_step=lambda losses: self._after_step(losses, bar, stopping),
            )
        self._check_losses()

    def _after_step(self, losses: dict[str, Tensor], bar: tqdm, stopping: Callable[[], bool]) -> None:
        state, config = self.state, self.config
        state.iteration += 1
        state.losses.update(losses)
        if state.ema is not None:
            state.ema.update(self.network)
        if logging := state.iteration % config.log_iter == 0:  # only now and then: reading losses waits for the device
            self._check_losses()
            bar.set_postfix(loss=f"{losses['loss'].item():.3f}", lr=f"{state.scheduler.get_last_lr()[0]:.5f}")
        if state.step == 0:
            return  # `_finish_epoch` saves
        # Processes must stop at the same iteration, and agreeing on it waits for the device, too.
        stop = (logging or distributed.world_size() == 1) and any(distributed.gather(stopping()))
        if stop or (config.save_iter is not None and state.iteration % config.save_iter == 0):
            self._check_losses()
            state.save_last()
        if stop:
            self._interrupt()

    def _check_losses(self) -> None:
        """Save the batch and raise ValueError if the loss was not finite."""
        # an overflow in one process reaches the others an iteration later
        back = max(distributed.gather(self.state.losses.find_divergence()))
        if back == 0:
            return
        dataset, path = self.train_loader.dataset, self.records.folder / "diverged.pth"
        iteration = self.state.iteration - back  # counted from 0
        epoch, step = divmod(iteration, self.state.epoch_length)
        keys = [tuple(key) for key in self.train_loader.sampler.batches(epoch + 1)[step].tolist()]
        images = [str(dataset.samples[index].image) for _, index, _ in keys]
        rates = {group["name"]: group["lr"] for group in self.state.optimizer.param_groups}
        if distributed.rank() == 0:
            batch = [dataset[key] for key in keys]  # with the same augmentation as in training
            content = {"iteration": iteration + 1, "learning_rates": rates, "images": images, "batch": batch}
            write_tensors(path, content)
        raise ValueError(
            f"the loss is not finite at iteration {iteration + 1} (learning rates: "
            f"{', '.join(f'{name} {rate:g}' for name, rate in rates.items())}; images: {', '.join(images)}); "
            f"batch saved to {path}; lower optimizer.init_lr, or set optimizer.clip_norm"
        )

    def _finish_epoch(self) -> None:
        """Validate if due, save, and record the metrics."""
        state, config = self.state, self.config
        record: dict[str, Any] = {"epoch": state.epoch, "iteration": state.iteration}
        record |= state.rates | state.losses.means()
        best = False
        if state.epoch % config.val_epoch == 0 or state.epoch == config.epochs:
            state.save_last()  # a run killed during validation resumes with that validation
            best = self._validate()
            record |= {key: state.metrics[key] for key in ("miou", "pixel_accuracy", "class_iou")}
        record["seconds"] = round(time.perf_counter() - state.begun, 2)
        # recorded before it is saved: a run killed in between records the epoch again, rather than never
        self.records.log_epoch(record, epochs=config.epochs, best=best)
        state.losses, state.begun = LossMeter(), time.perf_counter()
        state.save_last()

    def _validate(self) -> bool:
        """Validate, save the weights if they are the best so far, and return whether they are."""
        state, dataset = self.state, self.val_loader.dataset
        names = dataset.classes.names
        distributed.broadcast_buffers(state.trained)  # each process has its own, unless batch norm is synchronised
        normalization = self.template.normalization
        segmenter = PyTorchSegmenter(state.trained.eval(), device=self.device, normalization=normalization)
        single_view = self.test_config.model_copy(update={"tta": TtaConfig(), "window": None, "stride": None})
        segment = with_options(segmenter, single_view)
        show = partial(self.records.show_prediction, dataset, state.iteration)
        confusion = ConfusionMatrix(len(names), self.device)
        with progress(read_batches(self.val_loader, self.device), "validation", total=len(self.val_loader)) as bar:
            evaluate(segment, bar, confusion=confusion, on_image=show)
        confusion.merge()
        state.metrics = confusion.summary(names)
        unlabelled = [name for name, share in state.metrics["class_share"].items() if not share]
        if unlabelled and state.best_path is None:  # the first validation
            which = " or ".join(unlabelled)
            self.records.log.info(f"no pixel of the validation set is labelled {which}; once predicted, their IoU is 0")
        best = state.metrics["miou"] > state.best_miou
        if best:
            state.save_best(self.name)
        return best

    def _interrupt(self) -> NoReturn:
        saved = f"iteration {self.state.iteration}, saved to {self.records.folder / LAST}"
        raise Interruption(f"stopped after {saved}; continue with train.resume=auto")
