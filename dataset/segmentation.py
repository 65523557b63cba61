"""Semantic segmentation dataset: from image and mask files to the tensors of a sample."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, Sampler

from dataset.images import check_mask_mode, open_rgb, read_header, read_mask
from dataset.labels import UNKNOWN, ClassTable
from dataset.pairs import Sample, check_sizes


class SegmentationDataset(Dataset):
    """Images with label maps, decoded, validated and augmented on access.

    All random choices for a sample are a function of the seed and its key alone, so results depend neither on the
    number of workers nor on interruptions.

    Args:
        samples: image and mask files.
        classes: names and colours of the classes.
        train_ids: lookup table (256,) uint8 from mask values to class indices, see `dataset.labels.lookup_table`.
        transform: augmentation, called with (image, target, rng), see `dataset.transforms`.
        seed: of the augmentation.
        cache: keep decoded samples in memory, in every loader process: 5 bytes per pixel of the whole dataset.
    """

    def __init__(
        self,
        samples: list[Sample],
        classes: ClassTable,
        train_ids: np.ndarray,
        *,
        transform: Callable | None = None,
        seed: int = 0,
        cache: bool = False,
    ) -> None:
        self.samples = samples
        self.classes = classes
        self.train_ids = train_ids
        self.transform = transform
        self.seed = seed
        self._cache: dict[int, tuple[Image.Image, Image.Image | None]] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | tuple[int, int, int]) -> dict[str, Any]:
        """Load sample `index`, or `(epoch, index, repetition)`, see `EpochSampler`.

        The key determines the augmentation, so an index alone always gives the same crop.

        Returns:
            `index`, `image` (3, H, W) uint8 RGB and, if labelled, `target` (H, W) uint8 class indices, 255 = ignored.

        Raises:
            ValueError: an unreadable file, a mask that differs from its image in size or has undefined values.
        """
        key = key if isinstance(key, tuple) else (0, key, 0)
        index = key[1]
        image, target = self._load(index)
        if self.transform is not None:
            image, target = self.transform(image, target, np.random.default_rng((self.seed, *key)))
        sample: dict[str, Any] = {"index": index, "image": torch.from_numpy(np.array(image)).permute(2, 0, 1)}
        if target is not None:
            sample["target"] = torch.from_numpy(np.array(target))
        return sample

    def _load(self, index: int) -> tuple[Image.Image, Image.Image | None]:
        if self._cache is not None and index in self._cache:
            return self._cache[index]
        sample = self.samples[index]
        image, target = open_rgb(sample.image), self.load_target(index)
        if target is not None:
            check_sizes(sample, image.size, target.size)
        if self._cache is not None:
            self._cache[index] = image, target
        return image, target

    def load_target(self, index: int) -> Image.Image | None:
        """Load only the label map of a sample: an "L" image of class indices, or None if unlabelled."""
        path = self.samples[index].mask
        if path is None:
            return None
        values = read_mask(path)
        target = cv2.LUT(values, self.train_ids)
        if (unknown := target == UNKNOWN).any():
            raise ValueError(
                f"{path} contains the value {values[unknown][0]}, which is not a label of the dataset "
                f"({_ranges(np.flatnonzero(self.train_ids != UNKNOWN))}); "
                "fix the mask (or, for folder data, dataset.classes and dataset.ignore_index)"
            )
        return Image.fromarray(target)

    def check_headers(self, *, part: slice = slice(None)) -> None:
        """Check all files, or those of a part of the samples, quickly: the headers, and the checksums of the masks.

        Raises:
            FileNotFoundError: a missing file.
            ValueError: a corrupt file, or a mask of the wrong size or mode. Undefined values only show on loading.
        """
        for sample in self.samples[part]:
            size, _ = read_header(sample.image)
            if sample.mask is not None:
                mask_size, mode = read_header(sample.mask, checksums=True)
                check_mask_mode(sample.mask, mode)
                check_sizes(sample, size, mask_size)

    @cached_property
    def pixel_counts(self) -> np.ndarray:
        """Labelled pixels of each class in each sample, (N, C) int64; reads every mask."""
        targets = (self.load_target(index) for index in range(len(self)))  # one at a time in memory
        counts = [np.zeros(256, np.int64) if target is None else np.array(target.histogram()) for target in targets]
        return np.stack(counts)[:, : len(self.classes)]


def repeat_factors(pixel_counts: np.ndarray, threshold: float) -> np.ndarray:
    """Return how often to draw each image so that rare classes are seen more often, (N,) float, at least 1.

    Repeat factor sampling (LVIS, arXiv 1908.03195, section 4): the factor of a class in a share f of the images is
    sqrt(threshold / f), and that of an image is the highest of its classes.

    Args:
        pixel_counts: see `SegmentationDataset.pixel_counts`.
        threshold: share of the images; classes in more than this share do not count as rare.
    """
    shown = pixel_counts > 0
    by_class = np.sqrt(threshold / shown.mean(0).clip(min=1 / len(shown))).clip(min=1)
    return np.where(shown, by_class, 1).max(1)


class EpochSampler(Sampler):
    """Yield shuffled `(epoch, index, repetition)` keys, in an order that is a function of (seed, epoch) alone.

    The incomplete last batch is dropped. In distributed training each process takes its share of every batch, so the
    number of processes does not change the batches.

    Args:
        length: number of samples.
        batch_size: total over all processes.
        rank, processes: which share of each batch to yield.
        factors: relative frequency of each sample, (length,); an epoch keeps its length, and draws some samples
            repeatedly (`repetition` counts from 0) and leaves out others. None: each sample once.

    Attributes:
        epoch: to be set before each pass; part of the keys, so that persistent workers see it too.
        skip: number of batches to skip, for resuming within an epoch.
    """

    def __init__(
        self,
        length: int,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        processes: int = 1,
        factors: np.ndarray | None = None,
    ) -> None:
        self.length = length
        self.probabilities = None if factors is None else factors / factors.sum()
        self.batch_size = batch_size
        self.seed = seed
        self.rank, self.processes = rank, processes
        self.epoch = 0
        self.skip = 0

    def __len__(self) -> int:
        return self.length // self.batch_size * (self.batch_size // self.processes)

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        share = self.batch_size // self.processes
        keys = self.batches(self.epoch)[self.skip :, self.rank * share : (self.rank + 1) * share]
        return (tuple(key) for key in keys.reshape(-1, 3).tolist())

    def batches(self, epoch: int) -> np.ndarray:
        """Return the keys of the batches of an epoch, (batches, batch_size, 3)."""
        rng = np.random.default_rng((self.seed, epoch))
        drawn = places = np.arange(self.length)
        if self.probabilities is not None:  # systematic sampling, so that the numbers of draws vary little
            bounds = self.probabilities.cumsum()[:-1]
            drawn = np.searchsorted(bounds, (places + rng.random()) / self.length, side="right")
        repetition = places - np.searchsorted(drawn, drawn)  # `drawn` is sorted
        keys = np.stack([np.full(self.length, epoch), drawn, repetition], 1)[rng.permutation(self.length)]
        return keys[: self.length // self.batch_size * self.batch_size].reshape(-1, self.batch_size, 3)


def _ranges(values: np.ndarray) -> str:
    """Format sorted integers as ranges: 0-10, 255."""
    runs = np.split(values, np.flatnonzero(np.diff(values) > 1) + 1)
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
