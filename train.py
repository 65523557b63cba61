"""Train ICNet as a YAML file says: python train.py --config configs/quickstart.yaml"""

from pathlib import Path

import torch

from dataset.transforms import Normalize
from models import ICNet
from utils import runtime
from utils.checkpoint import Checkpoint, find_last, load_backbone, read_checkpoint
from utils.cli import DEFAULT_CONFIG, parse_arguments
from utils.config import check_resumable, load_config, run_name
from utils.data import build_dataset, build_transform, eval_loader, train_loader
from utils.files import check_folder
from utils.loss import build_loss
from utils.optim import build_optimizer, build_scheduler
from utils.trainer import Trainer


def main() -> None:
    """Build all parts from the configuration, train, and say where the results are."""
    args = parse_arguments(__doc__)
    config_file = args.config or DEFAULT_CONFIG
    config = load_config(config_file, args.overrides)
    train, model = config.train, config.model
    device = runtime.select_device(train.specific_gpu_num, one_size=True)
    workers = runtime.loader_workers(train.num_workers, device)
    runtime.seed_everything(train.seed)

    check_folder(Path(train.ckpt_dir), "train.ckpt_dir")

    transform = build_transform(model, config.augment)
    root = train.cityscapes_root
    train_set = build_dataset(config.dataset, train.split, cityscapes_root=root, transform=transform, seed=train.seed)
    val_set = build_dataset(config.dataset, config.test.split, cityscapes_root=root)
    train_batches = train_loader(train_set, batch_size=train.train_batch_size, workers=workers, seed=train.seed)
    val_batches = eval_loader(val_set, batch_size=train.valid_batch_size, workers=workers)

    network = ICNet(num_classes=len(train_set.classes), backbone=model.backbone)
    if model.backbone_weights is not None:
        load_backbone(network.backbone, model.backbone, model.backbone_weights)
    network.to(device, memory_format=torch.channels_last)
    optimizer = build_optimizer(network, config.optimizer)
    scheduler = build_scheduler(optimizer, config.optimizer, iterations=train.epochs * len(train_batches))

    trainer = Trainer(
        network=network,
        criterion=build_loss(config.loss, train_set).to(device),
        optimizer=optimizer,
        scheduler=scheduler,
        normalize=Normalize(),
        train_batches=train_batches,
        val_batches=val_batches,
        device=device,
        description=Checkpoint(
            state_dict={}, backbone=model.backbone, classes=train_set.classes, config=config.as_dict()
        ),
        folder=Path(train.ckpt_dir),
        name=run_name(model),
        log_iter=train.log_iter,
        save_iter=train.save_iter,
    )
    if (last := find_last(train.resume, train.ckpt_dir)) is not None:
        checkpoint = read_checkpoint(last)
        check_resumable(config, checkpoint.config)
        trainer.resume(checkpoint)
    log = trainer.log
    log.info(f"configuration {' '.join([str(config_file), *args.overrides])}")
    log.info(f"device: {runtime.describe(device)}, {workers} loader processes")
    log.info(f"data: {len(train_set)} images to train on, {len(val_set)} to validate, {len(train_set.classes)} classes")
    log.info(f"network: {model.backbone}, {model.backbone_weights or 'random'} weights in the backbone")
    if trainer.iteration:
        log.info(f"resumed from {last}, after {trainer.epoch} epochs, iteration {trainer.iteration}")
    trainer.fit(epochs=train.epochs, val_epoch=train.val_epoch)
    log.info(f"best checkpoint: {trainer.best_path}")
    log.info(f"log: {trainer.folder / 'train.log'}, figures of each epoch: {trainer.folder / 'train.jsonl'}")
    log.info(f"next: python inference.py --input IMAGE_OR_VIDEO test.ckpt_path={trainer.best_path}")


if __name__ == "__main__":
    runtime.run(main)
