"""Train ICNet as configured by a YAML file: python train.py --config configs/quickstart.yaml"""

import shlex
from collections.abc import Callable
from logging import Logger
from pathlib import Path

from utils.cli import DEFAULT_CONFIG, parse_arguments

if __name__ == "__main__":  # --help and wrong options are answered before the slow import of torch
    parse_arguments(__doc__)

import torch
from torch import Tensor

from dataset.labels import ClassTable
from dataset.segmentation import SegmentationDataset
from dataset.transforms import IMAGENET, Normalization
from models import ICNet, TimmBackbone
from models.layers import resize
from utils import cli, distributed, runtime
from utils.config import Config, load_config
from utils.data import EvalLoader, TrainLoader, build_dataset, build_transform, check_classes, eval_loader, train_loader
from utils.inference.segmenter import build_segmenter
from utils.io.files import changed_at, check_folder
from utils.loss import build_loss
from utils.settings import setting
from utils.training.records import Records
from utils.training.state import check_resumable
from utils.training.trainer import Trainer
from utils.weights.checkpoint import Checkpoint, read_checkpoint
from utils.weights.pretrained import freeze, load_backbone, load_pretrained
from utils.weights.run_folder import LAST, find_last, run_name
from utils.weights.timm_weights import load_timm_weights
from utils.weights.zoo import find_weights


def main() -> None:
    """Build everything from the configuration, train, and print where the results are."""
    args = parse_arguments(__doc__)
    config_file = args.config or DEFAULT_CONFIG
    config = load_config(config_file, args.overrides)
    check_folder(Path(config.train.ckpt_dir), "train.ckpt_dir")
    state_file = Path(config.train.ckpt_dir) / LAST
    written = changed_at(state_file)
    last = find_last(config.train.resume, config.train.ckpt_dir)
    if last is not None:
        check_resumable(config, last)
    distributed.start_process_per_gpu(config.train.specific_gpu_num)
    device = runtime.select_device(config.train.specific_gpu_num)
    with distributed.process_group(device):
        if len(set(distributed.gather(None if last is None else last.iteration))) > 1:
            raise ValueError(f"train.ckpt_dir={config.train.ckpt_dir} differs between machines; use a shared folder")
        runtime.seed_torch(config.train.seed)
        records = Records(Path(config.train.ckpt_dir))
        log = records.log
        log.info(f"configuration {' '.join([str(config_file), *args.overrides])}")
        trainer = build_trainer(config, device, records, last=last)
        state = trainer.state
        if last is not None:
            state.restore(last, device)
            log.info(f"resumed from {last.source}, after epoch {state.epoch}, iteration {state.iteration}")
            remaining = state.epoch < config.train.epochs or state.unrecorded
            if remaining and state.best_path is not None and state.best_miou < 0:
                log.info(f"validation settings have changed: the next validation replaces {state.best_path}")
        with records.writing(first=state.next_recorded, config=config.as_yaml()):
            if distributed.rank() == 0 and changed_at(state_file) != written:
                raise ValueError(f"another run has written {state_file} in the meantime; start again")
            try:
                trainer.fit()
                records.finish()
            except (Exception, KeyboardInterrupt, cli.Interruption) as error:
                log.debug(cli.one_line(error))  # only into train.log, as it is printed at the end
                raise
        if state.best_path is not None:  # else a finished run was resumed in another folder
            log.info(f"best checkpoint: {state.best_path}")
            log.info(f"in {records.folder}: train.log, train.jsonl (metrics of each epoch), curves.png")
            chosen = shlex.quote(setting("test.ckpt_path", state.best_path.as_posix()))
            output = shlex.quote((records.folder / "inference_output").as_posix())
            log.info(f"next: python inference.py --input IMAGE_OR_VIDEO --output {output} {chosen}")


def build_trainer(config: Config, device: torch.device, records: Records, *, last: Checkpoint | None = None) -> Trainer:
    """Build loaders, network and loss, and the trainer from them; `last` is the checkpoint to resume from."""
    train_batches, val_batches = build_loaders(config, device)
    log, train_set, classes = records.log, train_batches.dataset, train_batches.dataset.classes
    log.info(f"device: {runtime.describe(device)}, {train_batches.num_workers} loader workers")
    log.info(f"data: {len(train_set)} training, {len(val_batches.dataset)} validation images, {len(classes)} classes")
    for dataset in (train_set, val_batches.dataset):  # a broken file is reported now, rather than when its turn comes
        dataset.check_headers(part=slice(distributed.rank(), None, distributed.world_size()))
    network, normalization = build_network(config, classes=classes, log=log, last=last)
    network.to(device).to(memory_format=torch.channels_last)
    template = Checkpoint(
        state_dict={},
        backbone=config.model.backbone,
        structure=network.structure,
        classes=classes,
        config=config.as_dict(),
        normalization=normalization,
    )
    return Trainer(
        config=config.train,
        optimizer_config=config.optimizer,
        test_config=config.test,
        network=network,
        criterion=build_loss(config.loss, train_set, align_corners=network.align_corners).to(device),
        train_loader=train_batches,
        val_loader=val_batches,
        device=device,
        template=template,
        records=records,
        name=run_name(config.model),
        teacher=build_teacher(config, train_set, device, log, align_corners=network.align_corners),
    )


def build_loaders(config: Config, device: torch.device) -> tuple[TrainLoader, EvalLoader]:
    """Build the training and validation loaders."""
    train, root = config.train, config.train.cityscapes_root
    transform = build_transform(config.model, config.augment)
    train_set = build_dataset(config.dataset, train.split, cityscapes_root=root, transform=transform, seed=train.seed)
    val_set = build_dataset(config.dataset, config.test.split, cityscapes_root=root)
    workers, val_workers = (runtime.loader_workers(train.num_workers, device, training=mode) for mode in (True, False))
    return (
        train_loader(
            train_set,
            batch_size=train.train_batch_size,
            workers=workers,
            seed=train.seed,
            oversample=train.oversample,
        ),
        eval_loader(val_set, batch_size=train.valid_batch_size, workers=val_workers),
    )


def build_network(
    config: Config, *, classes: ClassTable, log: Logger, last: Checkpoint | None = None
) -> tuple[ICNet, Normalization]:
    """Build the network, load its initial weights unless `last` is restored later, and freeze the configured parts.

    Returns:
        the network, and the input normalisation that its weights were trained with.
    """
    model, freezing = config.model, config.train.freeze
    initial = last
    if last is None and model.weights is not None:
        with distributed.main_process_first():  # the others find what it has downloaded
            initial = read_checkpoint(find_weights(model.weights, config.train.ckpt_dir))
    network = ICNet(
        num_classes=len(classes),
        backbone=model.backbone,
        variant=model.variant,
        ppm=model.ppm,
        sub4_input=model.sub4_input,
        dropout=model.dropout,
        width=initial.structure["width"] if initial is not None and model.width is None else model.width,
    )
    if last is not None:
        normalization = last.normalization
        log.info(f"network: {model.backbone}")
    else:
        normalization = load_weights(network, initial, config, classes=classes, log=log)
    if freezing:
        log.info(f"frozen: {', '.join(freezing)}, {freeze(network, freezing)} parameters")
    return network, normalization


def load_weights(
    network: ICNet, checkpoint: Checkpoint | None, config: Config, *, classes: ClassTable, log: Logger
) -> Normalization:
    """Load a checkpoint, or else the configured weights of the backbone; return the normalisation to use with them."""
    model, folder = config.model, config.train.ckpt_dir
    if checkpoint is not None:
        left_out = load_pretrained(network, checkpoint)
        log.info(f"network: weights of {checkpoint.describe()}")
        if left_out:
            log.info(f"not loaded, as the data has {len(classes)} classes: {', '.join(left_out)}")
        elif checkpoint.named and checkpoint.classes.names != classes.names:
            log.info(
                "classifiers kept, although the weights were trained for other class names or another order: "
                f"{', '.join(checkpoint.classes.names)}"
            )
        return checkpoint.normalization
    if model.backbone_weights is None:
        log.info(f"network: {model.backbone}, random weights")
        return IMAGENET
    with distributed.main_process_first():
        if isinstance(network.backbone, TimmBackbone):
            normalization = load_timm_weights(network.backbone, model.backbone_weights)
        else:
            load_backbone(network.backbone, find_weights(model.backbone_weights, folder, backbone=model.backbone))
            normalization = IMAGENET
    log.info(f"network: {model.backbone}, {model.backbone_weights} weights in the backbone")
    return normalization


def build_teacher(
    config: Config, dataset: SegmentationDataset, device: torch.device, log: Logger, *, align_corners: bool
) -> Callable[[Tensor], Tensor] | None:
    """Build the network that `loss.distill` names; it maps images (B, 3, H, W) uint8 to logits, without gradients.

    The logits are to be resized with `align_corners`; if the teacher's own alignment differs, they come at the images'
    full size, where both alignments agree.
    """
    if config.loss.distill is None:
        return None
    with distributed.main_process_first():
        path = find_weights(config.loss.distill, config.train.ckpt_dir)
    if not path.is_file():
        raise FileNotFoundError(
            f"no teacher {path}; set loss.distill to the path of its checkpoint, also when resuming"
        )
    checkpoint = read_checkpoint(path)
    check_classes(dataset, checkpoint, "loss.distill")
    log.info(f"teacher: {checkpoint.describe()}")
    teacher = build_segmenter(checkpoint, device, precision=runtime.choose_precision(config.train.amp, device))
    if teacher.align_corners == align_corners:
        return teacher.scores
    return lambda images: resize(teacher.scores(images), images.shape[-2:], align_corners=teacher.align_corners)


if __name__ == "__main__":
    cli.run(main)
