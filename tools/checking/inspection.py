"""What the files of a dataset hold, and what is wrong with them."""

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from dataset.images import open_rgb, read_mask
from dataset.labels import IGNORE_INDEX, UNKNOWN
from dataset.pairs import Pairs, check_sizes
from dataset.segmentation import SegmentationDataset
from utils.cli import progress


@dataclass
class Inspection:
    """What was found, in a sample or in all of a split.

    Attributes:
        sizes: how many images there are of each (width, height).
        pixels: of each class index (256,), 255 = ignored, 254 = of a value that is none.
        unknown: pixels of each such value.
        faults: what is wrong, a line for each file.
        sound: indices of the samples without fault.
    """

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    unknown: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    sound: list[int] = field(default_factory=list)

    def add(self, other: "Inspection") -> None:
        """Take in what was found elsewhere."""
        self.sizes += other.sizes
        self.pixels = self.pixels + other.pixels
        self.unknown += other.unknown
        self.faults += other.faults
        self.sound += other.sound

    @property
    def ignored(self) -> float:
        """Share of the pixels that are ignored; 0 where there are none."""
        return self.pixels[IGNORE_INDEX] / max(1, self.pixels.sum())

    def shares(self, classes: int) -> np.ndarray:
        """Shares (classes,) of the labelled pixels; 0 where there are none."""
        counts = self.pixels[:classes]
        return counts / max(1, counts.sum())


def inspect(dataset: SegmentationDataset, pairs: Pairs, *, name: str) -> Inspection:
    """Read every file of a split.

    Args:
        dataset: of the pairs' samples.
        name: of the split, for the progress bar.
    """
    found = Inspection()
    found.faults += [f"{path}: this image has no mask" for path in pairs.images]
    found.faults += [f"{path}: this mask has no image" for path in pairs.masks]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding leaves the interpreter to other threads
        results = pool.map(partial(_inspect_sample, dataset), range(len(dataset)))
        for result in progress(results, name, total=len(dataset)):
            found.add(result)
    if not found.pixels[: len(dataset.classes)].any():
        found.faults.append(f"{name}: not one pixel is labelled")
    return found


def _inspect_sample(dataset: SegmentationDataset, index: int) -> Inspection:
    sample, found = dataset.samples[index], Inspection()
    assert sample.mask is not None, sample
    sizes = []
    with _noting(found.faults):
        sizes.append(open_rgb(sample.image).size)
        found.sizes[sizes[0]] += 1
    with _noting(found.faults):
        values = read_mask(sample.mask)
        sizes.append(values.shape[::-1])
        _count(values, dataset.train_ids, found)
    if found.unknown:
        words = ", ".join(f"{value} ({count} pixels)" for value, count in sorted(found.unknown.items()))
        found.faults.append(f"{sample.mask}: values that are no label: {words}")
    if len(sizes) == 2:
        with _noting(found.faults):
            check_sizes(sample, *sizes)
    found.sound = [] if found.faults else [index]
    return found


@contextmanager
def _noting(faults: list[str]) -> Iterator[None]:
    """Go on after an error about a file, which is put into the list."""
    try:
        yield
    except (OSError, ValueError) as error:
        faults.append(str(error))


def _count(values: np.ndarray, train_ids: np.ndarray, found: Inspection) -> None:
    """Count the pixels of a mask's classes, and of its values that are none."""
    counts = np.bincount(values.ravel(), minlength=256)
    np.add.at(found.pixels, train_ids, counts)
    unknown = np.flatnonzero((counts > 0) & (train_ids == UNKNOWN)).tolist()
    found.unknown += Counter({value: int(counts[value]) for value in unknown})
