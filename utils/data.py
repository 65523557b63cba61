"""Datasets and loaders, as the configuration describes them."""

import signal
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader

from dataset.cityscapes import find_cityscapes
from dataset.folder import find_folder
from dataset.labels import (
    IGNORE_INDEX,
    ClassTable,
    cityscapes_classes,
    cityscapes_train_ids,
    class_table,
    lookup_table,
)
from dataset.pairs import Pairs
from dataset.segmentation import EpochSampler, SegmentationDataset
from dataset.transforms import Compose, train_transform
from demo.streets import generate
from utils import runtime
from utils.config import AugmentConfig, DatasetConfig, ModelConfig
from utils.io.pipeline import in_rounds, prefetch
from utils.weights.checkpoint import Checkpoint

MOST_THREADS = 8  # that read side by side; what each has read is in memory


class Loader(DataLoader):
    """Batches of a `SegmentationDataset`."""

    dataset: SegmentationDataset


class TrainLoader(Loader):
    """Batches in the order of an `EpochSampler`."""

    sampler: EpochSampler


class EvalLoader(Loader):
    """Lists of samples; `batch_sampler` has their indices."""

    batch_sampler: list[list[int]]  # what PyTorch was given, as it is


def build_dataset(
    config: DatasetConfig,
    split: str,
    *,
    cityscapes_root: str,
    transform: Compose | None = None,
    seed: int = 0,
    labelled: bool = True,
) -> SegmentationDataset:
    """Find the files of a split (generating the streets first, if they are not there yet).

    Args:
        labelled: refuse a split that has no labels.

    Raises:
        ValueError, FileNotFoundError: data that is missing or does not fit together, with what to do about it.
    """
    pairs, classes, train_ids = find_pairs(config, split, cityscapes_root=cityscapes_root)
    samples = pairs.complete()
    if labelled and any(sample.mask is None for sample in samples):
        raise ValueError(
            f"the split {split!r} has no labels; choose another train.split or test.split, or set dataset.{split}.masks"
        )
    return SegmentationDataset(samples, classes, train_ids, transform=transform, seed=seed, cache=config.cache)


def find_pairs(config: DatasetConfig, split: str, *, cityscapes_root: str) -> tuple[Pairs, ClassTable, np.ndarray]:
    """Find the files of a split, its classes and the table from its masks' values to class indices."""
    if config.name == "folder":
        return _find_folder(config, split)
    root = _generated(config) if config.name == "streets" else cityscapes_root
    return find_cityscapes(root, split), cityscapes_classes(), cityscapes_train_ids()


def _generated(config: DatasetConfig) -> str:
    """Generate the streets if they are not there yet, in one process while the others wait; return their folder."""
    root, streets = _root(config), config.streets
    size = {"height": streets.height, "width": streets.width}
    if runtime.rank() == 0:
        generate(root, train=streets.train, val=streets.val, **size, seed=streets.seed)
    runtime.gather(None)
    return root


def _find_folder(config: DatasetConfig, split: str) -> tuple[Pairs, ClassTable, np.ndarray]:
    splits = {"train": config.train, "val": config.val, "test": config.test}
    if split not in splits:
        raise ValueError(f"folder data has no split {split!r}; there are: {', '.join(splits)}")
    patterns = splits[split]
    if patterns.images is None:
        raise ValueError(f"the split {split!r} is not described: set dataset.{split}.images and dataset.{split}.masks")
    if not config.classes:
        raise ValueError("dataset.classes is empty: list the classes' names in the order of the masks' values")
    classes = class_table(config.classes, config.colors)
    pairs = find_folder(_root(config), images=patterns.images, masks=patterns.masks)
    if config.ignore_index < len(classes):
        raise ValueError(
            f"dataset.ignore_index is {config.ignore_index}, which is class {classes.names[config.ignore_index]!r}; "
            "give the ignored value another number"
        )
    mapping = {index: index for index in range(len(classes))} | {config.ignore_index: IGNORE_INDEX}
    return pairs, classes, lookup_table(mapping)


def _root(config: DatasetConfig) -> str:
    if config.root is None:
        raise ValueError(f"dataset.root is not set: name the folder of the {config.name!r} data, dataset.root=FOLDER")
    return config.root


def build_transform(model: ModelConfig, augment: AugmentConfig) -> Compose:
    """The augmentation of training images."""
    return train_transform(
        base_size=model.base_size,
        crop_size=model.crop_size,
        scale=(augment.scale_min, augment.scale_max),
        mirror=augment.mirror,
        blur=augment.blur,
        max_class_share=augment.max_class_share,
        photometric=augment.photometric,
    )


def train_loader(dataset: SegmentationDataset, *, batch_size: int, workers: int, seed: int) -> TrainLoader:
    """Batches of `image` and `target` in random order; set `loader.sampler.epoch` before each pass.

    Args:
        batch_size: of all processes together; this one's loader gives its part.

    Raises:
        ValueError: fewer samples than one batch needs, or a batch that the processes cannot share evenly.
    """
    if len(dataset) < batch_size:
        raise ValueError(
            f"the training set has {len(dataset)} images, fewer than train.train_batch_size ({batch_size}); lower that"
        )
    rank, processes = runtime.rank(), runtime.processes()
    if batch_size % processes:
        raise ValueError(f"train.train_batch_size ({batch_size}) must be a multiple of the {processes} processes")
    return TrainLoader(
        dataset,
        batch_size=batch_size // processes,
        sampler=EpochSampler(len(dataset), batch_size=batch_size, seed=seed, rank=rank, processes=processes),
        **_worker_options(workers),
    )


def eval_loader(dataset: SegmentationDataset, *, batch_size: int, workers: int) -> EvalLoader:
    """Lists of samples, in order; as lists, since images may differ in size. Of several processes each has its own.

    They share whole batches, which are those of one process: what a network makes of an image may differ in the last
    bit with the others in its batch.
    """
    indices = list(range(len(dataset)))
    batches = [indices[start : start + batch_size] for start in range(0, len(dataset), batch_size)]
    own = batches[runtime.rank() :: runtime.processes()]
    return EvalLoader(dataset, batch_sampler=own, collate_fn=list, **_worker_options(workers))


def read_batches(batches: EvalLoader, device: torch.device) -> Iterator[list[dict]]:
    """Read the batches in the way that costs the network least.

    That is ahead of it, by loader processes or a thread; on a CPU without such processes by threads between its calls.
    """
    if batches.num_workers or device.type != "cpu":
        return prefetch(batches)

    def read(indices: list[int]) -> list[dict]:
        return [batches.dataset[index] for index in indices]

    return in_rounds(read, batches.batch_sampler, threads=min(torch.get_num_threads(), MOST_THREADS))


def _worker_options(workers: int) -> dict:
    return {
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "pin_memory": torch.cuda.is_available(),
        "generator": torch.Generator(),  # else each pass draws from the global one, on which a resumed run depends
        "worker_init_fn": _leave_signals_to_the_main_process,
    }


def _leave_signals_to_the_main_process(worker: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C, and some who end a job, reach every process of it
        signal.signal(number, signal.SIG_IGN)


def check_classes(dataset: SegmentationDataset, checkpoint: Checkpoint) -> None:
    """Make sure that a checkpoint and a dataset mean the same by their class indices.

    Raises:
        ValueError: another number of classes, or other names.
    """
    ours, theirs = dataset.classes, checkpoint.classes
    if len(ours) != len(theirs):
        raise ValueError(
            f"{checkpoint.source} has {len(theirs)} classes, the dataset has {len(ours)}; "
            "give the --config that it was trained with, or another test.ckpt_path"
        )
    differing = [f"{a} / {b}" for a, b in zip(theirs.names, ours.names, strict=True) if a != b]
    if differing and checkpoint.named:
        raise ValueError(f"{checkpoint.source} and the dataset name classes differently: {', '.join(differing[:3])}")
