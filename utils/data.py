"""Datasets and data loaders as configured."""

import atexit
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, get_worker_info

from dataset.cityscapes import find_cityscapes
from dataset.folder import find_folder, folder_classes
from dataset.labels import ClassTable, cityscapes_classes, cityscapes_train_ids
from dataset.pairs import Pairs
from dataset.segmentation import EpochSampler, SegmentationDataset, repeat_factors
from dataset.transforms import Compose, PhotometricDistortion, RandomBlur, RandomMirror, RandomScaleCrop
from demo.streets import generate
from utils import distributed
from utils.config import AugmentConfig, DatasetConfig, ModelConfig
from utils.io.pipeline import in_rounds, prefetch
from utils.weights.checkpoint import Checkpoint


def build_dataset(
    config: DatasetConfig,
    split: str,
    *,
    cityscapes_root: str,
    transform: Compose | None = None,
    seed: int = 0,
    labelled: bool = True,
) -> SegmentationDataset:
    """Build the dataset of a split.

    Args:
        transform, seed: augmentation, see `SegmentationDataset`.
        labelled: require labels.

    Raises:
        ValueError, FileNotFoundError: missing or inconsistent data.
    """
    pairs, classes, train_ids = find_pairs(config, split, cityscapes_root=cityscapes_root)
    samples = pairs.complete()
    if labelled and any(sample.mask is None for sample in samples):
        raise unlabelled_error(config, split)
    return SegmentationDataset(samples, classes, train_ids, transform=transform, seed=seed, cache=config.cache)


def unlabelled_error(config: DatasetConfig, split: str) -> ValueError:
    """Return the error for a split without labels, with its remedy."""
    remedy = f"set dataset.{split}.masks" if config.name == "folder" else "evaluate with test.submission=FOLDER"
    return ValueError(f"the split {split!r} has no labels; choose another train.split or test.split, or {remedy}")


def find_pairs(config: DatasetConfig, split: str, *, cityscapes_root: str) -> tuple[Pairs, ClassTable, np.ndarray]:
    """Return the files of a split, its classes, and the lookup table (256,) from mask values to class indices."""
    if config.name == "folder":
        splits = {"train": config.train, "val": config.val, "test": config.test}
        if split not in splits:
            raise ValueError(f"folder data has no split {split!r}; use {', '.join(splits)}")
        patterns = splits[split]
        if patterns.images is None:
            raise ValueError(
                f"the split {split!r} has no images; set dataset.{split}.images and, if labelled, dataset.{split}.masks"
            )
        classes, train_ids = folder_classes(config.classes, config.colors, ignore_index=config.ignore_index)
        return find_folder(_root(config), images=patterns.images, masks=patterns.masks), classes, train_ids
    if "name" not in config.model_fields_set and (config.classes or config.train.images or config.val.images):
        raise ValueError("dataset.name is not set, so dataset's other keys would be ignored; set dataset.name=folder")
    root = cityscapes_root
    if config.name == "cityscapes" and config.root is not None:
        raise ValueError(
            f"dataset.root={config.root} is not used for Cityscapes; set dataset.root=null, and train.cityscapes_root "
            "to the folder that contains leftImg8bit and gtFine"
        )
    if config.name == "streets":
        if split == "test":
            raise ValueError("generated streets have no split 'test'; set train.split or test.split to train or val")
        root = _root(config)
        with distributed.main_process_first():  # the others find what it has generated
            generate(root, **vars(config.streets))
    return find_cityscapes(root, split), cityscapes_classes(), cityscapes_train_ids()


def _root(config: DatasetConfig) -> str:
    if config.root is None:
        raise ValueError(f"dataset.root is not set; {config.name!r} data needs it: dataset.root=FOLDER")
    return config.root


def build_transform(model: ModelConfig, augment: AugmentConfig) -> Compose:
    """Build the augmentation of training images."""
    crop = RandomScaleCrop(
        base_size=model.base_size,
        scale=(augment.scale_min, augment.scale_max),
        crop_size=model.crop_size,
        max_class_share=augment.max_class_share,
        class_uniform=augment.class_uniform,
    )
    distortion = PhotometricDistortion(augment.photometric, augment.photometric_strength)
    return Compose([crop, RandomMirror(augment.mirror), RandomBlur(augment.blur), distortion])


class _Loader(DataLoader):
    """Starts its workers with those signals blocked that the main process handles, which would end them meanwhile."""

    def __iter__(self) -> Any:
        if not self.num_workers or os.name == "nt":  # Windows cannot block signals
            return super().__iter__()
        resource_tracker.ensure_running()  # it starts with the first worker otherwise, and unblocks them
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)


class TrainLoader(_Loader):
    """Batches in the order of an `EpochSampler`, as dicts of tensors."""

    dataset: SegmentationDataset
    sampler: EpochSampler


class EvalLoader(_Loader):
    """Batches in order, as lists of samples, since images may differ in size."""

    dataset: SegmentationDataset
    batch_sampler: list[list[int]]


def train_loader(
    dataset: SegmentationDataset, *, batch_size: int, workers: int, seed: int, oversample: float | None = None
) -> TrainLoader:
    """Build the training loader; set `loader.sampler.epoch` before each pass.

    Args:
        batch_size: total over all processes, of which the loader yields this one's share.
        oversample: threshold of `repeat_factors`; None: each image once per epoch.

    Raises:
        ValueError: fewer images than one batch, or a batch size that the processes cannot share evenly.
    """
    if len(dataset) < batch_size:
        raise ValueError(
            f"the training set has {len(dataset)} images, fewer than train.train_batch_size ({batch_size}); lower it"
        )
    rank, processes = distributed.rank(), distributed.world_size()
    if batch_size % processes:
        raise ValueError(f"train.train_batch_size ({batch_size}) must be a multiple of the {processes} processes")
    return TrainLoader(
        dataset,
        batch_size=batch_size // processes,
        sampler=EpochSampler(
            len(dataset),
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            processes=processes,
            factors=None if oversample is None else repeat_factors(dataset.pixel_counts, oversample),
        ),
        **_worker_options(workers),
    )


def eval_loader(dataset: SegmentationDataset, *, batch_size: int, workers: int) -> EvalLoader:
    """Build the evaluation loader of this process.

    The batches are those of a single-process run, divided among the processes, since the last bit of an image's logits
    may depend on the other images in its batch.
    """
    indices = list(range(len(dataset)))
    batches = [indices[start : start + batch_size] for start in range(0, len(dataset), batch_size)]
    share = batches[distributed.rank() :: distributed.world_size()]
    return EvalLoader(dataset, batch_sampler=share, collate_fn=_as_list, **_worker_options(workers))


def _as_list(samples: list[dict]) -> list[dict]:
    """Return a batch as it is; in a worker, move its tensors into shared memory, where the main process takes them.

    PyTorch would do that in another thread, from which a lack of shared memory is not reported: the batch is lost, and
    the main process waits for it forever.
    """
    if get_worker_info() is not None:
        for tensor in (value for sample in samples for value in sample.values() if isinstance(value, torch.Tensor)):
            tensor.share_memory_()
    return samples


def _worker_options(workers: int) -> dict:
    """Return the arguments that all loaders share, and have the workers killed at exit."""
    if workers:
        atexit.unregister(_kill_workers)  # so that it runs once, however many loaders there are
        atexit.register(_kill_workers)
    return {
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "pin_memory": torch.cuda.is_available(),
        "generator": torch.Generator(),  # otherwise each pass would draw from the global one, which resuming restores
        "worker_init_fn": _prepare_worker,
    }


def _prepare_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # otherwise each worker would start a thread per core
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # they may reach the workers too, but the main process handles them
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def _kill_workers() -> None:
    """Kill the remaining workers at exit: they ignore SIGTERM, so multiprocessing would wait for them forever."""
    if hasattr(signal, "SIGCHLD"):  # not on Windows
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler would report them
    for process in multiprocessing.active_children():
        if process.daemon:  # as workers are; multiprocessing would terminate those anyway
            process.kill()


def read_batches(batches: EvalLoader, device: torch.device) -> Iterator[list[dict]]:
    """Read batches in the way that delays the network least.

    They are read ahead by workers or a thread; on a CPU without workers, by threads between the calls of the network.
    """
    if batches.num_workers or device.type != "cpu":
        return prefetch(batches)
    dataset, threads = batches.dataset, min(torch.get_num_threads(), 8)  # 8: limits memory
    return in_rounds(lambda indices: [dataset[i] for i in indices], batches.batch_sampler, threads=threads)


def check_classes(dataset: SegmentationDataset, checkpoint: Checkpoint, key: str = "test.ckpt_path") -> None:
    """Raise a ValueError unless the dataset has the classes of the checkpoint, given by `key`, in number and names."""
    ours, theirs = dataset.classes, checkpoint.classes
    if len(ours) != len(theirs):
        raise ValueError(
            f"{checkpoint.source} has {len(theirs)} classes, the dataset has {len(ours)}; "
            f"use the --config of its training, or another {key}"
        )
    differing = [f"{a} / {b}" for a, b in zip(theirs.names, ours.names, strict=True) if a != b]
    if differing and checkpoint.named:
        raise ValueError(
            f"{checkpoint.source} and the dataset name classes differently: {', '.join(differing[:3])}; "
            f"use the --config of its training, or another {key}"
        )
