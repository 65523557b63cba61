"""Train ICNet as a YAML file says: python train.py --config configs/quickstart.yaml"""

from logging import Logger
from pathlib import Path

from utils.cli import DEFAULT_CONFIG, parse_arguments

if __name__ == "__main__":  # --help, and a mistake in the command line, need not wait seconds for torch's import
    parse_arguments(__doc__)

import torch

from dataset.transforms import Normalize
from models import ICNet
from utils import cli, runtime
from utils.config import Config, load_config
from utils.data import EvalLoader, TrainLoader, build_dataset, build_transform, eval_loader, train_loader
from utils.io.files import check_folder
from utils.loss import build_loss
from utils.optim import build_optimizer, build_scheduler
from utils.training.records import Records
from utils.training.state import check_resumable
from utils.training.trainer import Trainer
from utils.weights.checkpoint import Checkpoint, read_checkpoint
from utils.weights.pretrained import freeze, load_backbone, load_pretrained
from utils.weights.run_folder import find_last, run_name
from utils.weights.zoo import find_weights


def main() -> None:
    """Build all parts from the configuration, train, and say where the results are."""
    args = parse_arguments(__doc__)
    config_file = args.config or DEFAULT_CONFIG
    config = load_config(config_file, args.overrides)
    check_folder(Path(config.train.ckpt_dir), "train.ckpt_dir")
    last = find_last(config.train.resume, config.train.ckpt_dir)
    if last is not None:
        check_resumable(config, last.config)
    runtime.start_process_per_gpu(config.train.specific_gpu_num)
    device = runtime.select_device(config.train.specific_gpu_num, one_size=True)
    with runtime.process_group(device):
        runtime.seed_everything(config.train.seed)
        records = Records(Path(config.train.ckpt_dir))
        log = records.log
        log.info(f"configuration {' '.join([str(config_file), *args.overrides])}")
        trainer = build_trainer(config, device, records)
        log.info(f"device: {runtime.describe(device)}, {trainer.train_batches.num_workers} loader processes")
        images, classes = len(trainer.train_batches.dataset), len(trainer.description.classes)
        log.info(
            f"data: {images} images to train on, {len(trainer.val_batches.dataset)} to validate, {classes} classes"
        )
        if last is not None:
            trainer.state.restore(last, device=device, folder=records.folder)
            log.info(f"resumed from {last.source}, after {trainer.epoch} epochs, iteration {trainer.state.iteration}")
        records.begin(iteration=trainer.state.iteration, config=config.as_yaml())
        trainer.fit(epochs=config.train.epochs, val_epoch=config.train.val_epoch)
        records.finish()
        log.info(f"best checkpoint: {trainer.state.best_path}")
        log.info(f"in {records.folder}: train.log, train.jsonl (figures of each epoch), curves.png")
        log.info(f"next: python inference.py --input IMAGE_OR_VIDEO test.ckpt_path={trainer.state.best_path}")


def build_trainer(config: Config, device: torch.device, records: Records) -> Trainer:
    """Build data, network, loss, optimiser and schedule."""
    model, train = config.model, config.train
    train_batches, val_batches = build_loaders(config, device)
    classes = train_batches.dataset.classes
    network = build_network(config, num_classes=len(classes), log=records.log)
    network.to(device).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(network, config.optimizer)
    return Trainer(
        network=network,
        criterion=build_loss(config.loss, train_batches.dataset, align_corners=network.align_corners).to(device),
        optimizer=optimizer,
        scheduler=build_scheduler(optimizer, config.optimizer, iterations=train.epochs * len(train_batches)),
        normalize=Normalize(),
        train_batches=train_batches,
        val_batches=val_batches,
        device=device,
        description=Checkpoint(
            state_dict={},
            backbone=model.backbone,
            structure=network.structure,
            classes=classes,
            config=config.as_dict(),
        ),
        records=records,
        name=run_name(model),
        log_iter=train.log_iter,
        save_iter=train.save_iter,
        precision=runtime.choose_precision(train.amp, device),
        accumulate=train.accumulate,
        clip=config.optimizer.clip_norm,
        ema=train.ema,
        freeze_bn=train.freeze_bn,
        short_side=config.test.short_side,
    )


def build_network(config: Config, *, num_classes: int, log: Logger) -> ICNet:
    """Build the network with the weights that training starts from, and freeze what is to stay as it is."""
    model = config.model
    network = ICNet(
        num_classes=num_classes,
        backbone=model.backbone,
        variant=model.variant,
        ppm=model.ppm,
        sub4_input=model.sub4_input,
        dropout=model.dropout,
    )
    if model.weights is not None:
        checkpoint = read_checkpoint(find_weights(model.weights, config.train.ckpt_dir))
        left_out = load_pretrained(network, checkpoint)
        log.info(f"network: weights of {checkpoint.describe()}")
        if left_out:
            log.info(f"left out, since {num_classes} classes are to be learnt: {', '.join(left_out)}")
    elif model.backbone_weights is not None:
        weights = find_weights(model.backbone_weights, config.train.ckpt_dir)
        load_backbone(network.backbone, model.backbone, str(weights))
        log.info(f"network: {model.backbone}, {model.backbone_weights} weights in the backbone")
    else:
        log.info(f"network: {model.backbone}, random weights")
    if config.train.freeze:
        log.info(f"frozen: {', '.join(config.train.freeze)}, {freeze(network, config.train.freeze)} parameters")
    return network


def build_loaders(config: Config, device: torch.device) -> tuple[TrainLoader, EvalLoader]:
    """Build the batches to train on, and those to validate on."""
    train, root = config.train, config.train.cityscapes_root
    transform = build_transform(config.model, config.augment)
    train_set = build_dataset(config.dataset, train.split, cityscapes_root=root, transform=transform, seed=train.seed)
    val_set = build_dataset(config.dataset, config.test.split, cityscapes_root=root)
    workers, val_workers = (runtime.loader_workers(train.num_workers, device, training=mode) for mode in (True, False))
    return (
        train_loader(train_set, batch_size=train.train_batch_size, workers=workers, seed=train.seed),
        eval_loader(val_set, batch_size=train.valid_batch_size, workers=val_workers),
    )


if __name__ == "__main__":
    cli.run(main)
