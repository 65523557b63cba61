"""Train ICNet as a YAML file says: python train.py --config configs/quickstart.yaml"""

from pathlib import Path

import torch
from torch.utils.data import DataLoader

from dataset.transforms import Normalize
from models import ICNet
from utils import runtime
from utils.checkpoint import Checkpoint, find_last
from utils.cli import DEFAULT_CONFIG, parse_arguments
from utils.config import Config, check_resumable, load_config, run_name
from utils.data import build_dataset, build_transform, eval_loader, train_loader
from utils.files import check_folder
from utils.loss import build_loss
from utils.optim import build_optimizer, build_scheduler
from utils.trainer import Trainer
from utils.weights import load_backbone


def main() -> None:
    """Build all parts from the configuration, train, and say where the results are."""
    args = parse_arguments(__doc__)
    config_file = args.config or DEFAULT_CONFIG
    config = load_config(config_file, args.overrides)
    device = runtime.select_device(config.train.specific_gpu_num, one_size=True)
    runtime.seed_everything(config.train.seed)
    check_folder(Path(config.train.ckpt_dir), "train.ckpt_dir")
    last = find_last(config.train.resume, config.train.ckpt_dir)
    if last is not None:
        check_resumable(config, last.config)

    trainer = build_trainer(config, device)
    log = trainer.log
    log.info(f"configuration {' '.join([str(config_file), *args.overrides])}")
    log.info(f"device: {runtime.describe(device)}, {trainer.train_batches.num_workers} loader processes")
    images, classes = len(trainer.train_batches.dataset), len(trainer.description.classes)
    log.info(f"data: {images} images to train on, {len(trainer.val_batches.dataset)} to validate, {classes} classes")
    log.info(f"network: {config.model.backbone}, {config.model.backbone_weights or 'random'} weights in the backbone")
    if last is not None:
        trainer.resume(last)
        log.info(f"resumed from {last.source}, after {trainer.epoch} epochs, iteration {trainer.iteration}")
    trainer.fit(epochs=config.train.epochs, val_epoch=config.train.val_epoch)
    log.info(f"best checkpoint: {trainer.best_path}")
    log.info(f"log: {trainer.folder / 'train.log'}, figures of each epoch: {trainer.folder / 'train.jsonl'}")
    log.info(f"next: python inference.py --input IMAGE_OR_VIDEO test.ckpt_path={trainer.best_path}")


def build_trainer(config: Config, device: torch.device) -> Trainer:
    """Build data, network, loss, optimiser and schedule."""
    model, train = config.model, config.train
    train_batches, val_batches = build_loaders(config, device)
    classes = train_batches.dataset.classes
    network = ICNet(num_classes=len(classes), backbone=model.backbone)
    if model.backbone_weights is not None:
        load_backbone(network.backbone, model.backbone, model.backbone_weights)
    network.to(device, memory_format=torch.channels_last)
    optimizer = build_optimizer(network, config.optimizer)
    return Trainer(
        network=network,
        criterion=build_loss(config.loss, train_batches.dataset).to(device),
        optimizer=optimizer,
        scheduler=build_scheduler(optimizer, config.optimizer, iterations=train.epochs * len(train_batches)),
        normalize=Normalize(),
        train_batches=train_batches,
        val_batches=val_batches,
        device=device,
        description=Checkpoint(state_dict={}, backbone=model.backbone, classes=classes, config=config.as_dict()),
        folder=Path(train.ckpt_dir),
        name=run_name(model),
        log_iter=train.log_iter,
        save_iter=train.save_iter,
    )


def build_loaders(config: Config, device: torch.device) -> tuple[DataLoader, DataLoader]:
    """Build the batches to train on, and those to validate on."""
    train, root = config.train, config.train.cityscapes_root
    transform = build_transform(config.model, config.augment)
    train_set = build_dataset(config.dataset, train.split, cityscapes_root=root, transform=transform, seed=train.seed)
    val_set = build_dataset(config.dataset, config.test.split, cityscapes_root=root)
    workers = runtime.loader_workers(train.num_workers, device)
    return (
        train_loader(train_set, batch_size=train.train_batch_size, workers=workers, seed=train.seed),
        eval_loader(val_set, batch_size=train.valid_batch_size, workers=workers),
    )


if __name__ == "__main__":
    runtime.run(main)
