"""Images with label maps: from the files on the disk to the tensors of one sample."""

from collections.abc import Callable, Iterator
from pathlib import Path
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
    """Decode a sample, map its mask to class indices, check it, augment it.

    Every random choice about a sample is a function of (seed, epoch, index) alone, so neither the number of workers
    nor an interruption changes what is seen.

    Args:
        samples: the files.
        classes: names and colours of the classes.
        train_ids: (256,) uint8 table from the masks' values to class indices, see `dataset.labels.lookup_table`.
        transform: called with (image, target, rng), see `dataset.transforms`; None leaves the pair as it is.
        seed: of the random choices.
        cache: keep what was decoded in memory, in every loader process: 5 bytes a pixel of the whole set.
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
        self.decoded: dict[int, tuple[Image.Image, Image.Image | None]] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """Load sample `index`, or `(epoch, index)`.

        Returns:
            `index`, `image` (3, H, W) uint8 and, where there are labels, `target` (H, W) uint8 class indices, 255 =
            ignored.

        Raises:
            ValueError: a file that cannot be read, a mask of another size or with a value that is no class.
        """
        epoch, index = key if isinstance(key, tuple) else (0, key)
        image, target = self.load(index)
        if self.transform is not None:
            image, target = self.transform(image, target, np.random.default_rng((self.seed, epoch, index)))
        sample: dict[str, Any] = {"index": index, "image": torch.from_numpy(np.array(image)).permute(2, 0, 1)}
        if target is not None:
            sample["target"] = torch.from_numpy(np.array(target))
        return sample

    def load(self, index: int) -> tuple[Image.Image, Image.Image | None]:
        """Decode sample `index`: an RGB image and an "L" image of class indices."""
        if self.decoded is None:
            return self._decode(index)
        if index not in self.decoded:
            self.decoded[index] = self._decode(index)
        return self.decoded[index]

    def _decode(self, index: int) -> tuple[Image.Image, Image.Image | None]:
        sample = self.samples[index]
        image, target = open_rgb(sample.image), self.load_target(index)
        if target is not None:
            check_sizes(sample, image.size, target.size)
        return image, target

    def check_headers(self) -> None:
        """Read the headers of all files, and the checksums of the masks, before something long begins.

        Raises:
            FileNotFoundError: a file that is missing.
            ValueError: one that is broken, a mask of another size or kind. Values that are no class show on loading.
        """
        for sample in self.samples:
            size, _ = read_header(sample.image)
            if sample.mask is not None:
                mask_size, mode = read_header(sample.mask, checksums=True)
                check_mask_mode(sample.mask, mode)
                check_sizes(sample, size, mask_size)

    def load_target(self, index: int) -> Image.Image | None:
        """Decode the mask of sample `index` alone: an "L" image of class indices."""
        path = self.samples[index].mask
        return None if path is None else Image.fromarray(self._class_indices(read_mask(path), path))

    def count_pixels(self) -> np.ndarray:
        """Count the labelled pixels of each class over all samples, (C,) int64; reads every mask."""
        masks = (self.load_target(index) for index in range(len(self)))
        counts = (np.bincount(np.asarray(mask).ravel(), minlength=256) for mask in masks if mask is not None)
        return sum(counts, np.zeros(256, np.int64))[: len(self.classes)]

    def _class_indices(self, values: np.ndarray, path: Path) -> np.ndarray:
        target = cv2.LUT(values, self.train_ids)
        if (unknown := target == UNKNOWN).any():
            raise ValueError(
                f"{path} holds the value {values[unknown][0]}, which is none of the dataset's label values "
                f"({self.label_values}); mend the mask (or, for folder data, dataset.classes and dataset.ignore_index)"
            )
        return target

    @property
    def label_values(self) -> str:
        """The values that masks may hold, for a message."""
        return _ranges(np.flatnonzero(self.train_ids != UNKNOWN))


class EpochSampler(Sampler):
    """Yield `(epoch, index)` keys in an order that is a function of (seed, epoch) alone.

    The order is cut into whole batches, and what is left over is not seen in that epoch; of several processes each
    takes its part of every batch, so their number changes nothing.

    Args:
        length: number of samples.
        batch_size: samples in a batch, of all processes together.
        rank, processes: which part of each batch is this process's.

    Attributes:
        epoch: set it before each pass; it travels with the keys, so workers that live on see it too.
        skip: how many batches to leave out at the beginning, to go on within an epoch.
    """

    def __init__(self, length: int, *, batch_size: int, seed: int, rank: int = 0, processes: int = 1) -> None:
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.rank, self.processes = rank, processes
        self.epoch = 0
        self.skip = 0

    def __len__(self) -> int:
        return self.length // self.batch_size * (self.batch_size // self.processes)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        own = self.batches(self.epoch)[self.skip :].reshape(-1, self.processes, self.batch_size // self.processes)
        return ((self.epoch, int(index)) for index in own[:, self.rank].ravel())

    def batches(self, epoch: int) -> np.ndarray:
        """Return the indices of the samples in each whole batch of an epoch (batches, batch_size)."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.length)
        return order[: self.length // self.batch_size * self.batch_size].reshape(-1, self.batch_size)


def _ranges(values: np.ndarray) -> str:
    """Write sorted integers briefly: 0-10, 255."""
    runs = np.split(values, np.flatnonzero(np.diff(values) > 1) + 1)
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
