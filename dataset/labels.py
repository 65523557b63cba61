"""Class names, colours and label lookup tables, including the official ones of Cityscapes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torchvision.datasets import Cityscapes

IGNORE_INDEX = 255  # unlabelled pixels, in every label map of this project
UNKNOWN = 254  # mask values that the dataset does not define; an error, so never reaches the network
MAX_CLASSES = 254


@dataclass(frozen=True)
class ClassTable:
    """Names and colours of the classes, by class index.

    Attributes:
        names: unique names.
        colors: (red, green, blue), 0 to 255.
        categories: group of each class ("vehicle" for car and bus), or empty; only used to report IoU per category.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    categories: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if len(self.names) != len(self.colors):
            raise ValueError(f"{len(self.names)} class names, but {len(self.colors)} colours")
        if not 2 <= len(self.names) <= MAX_CLASSES:
            raise ValueError(f"the number of classes must be between 2 and {MAX_CLASSES}, got {len(self.names)}")
        for color in self.colors:
            if len(color) != 3 or not all(0 <= value <= 255 for value in color):
                raise ValueError(f"a class colour must be three values from 0 to 255, got {list(color)}")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"class names must differ, got {', '.join(self.names)}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def palette(self) -> np.ndarray:
        """Colours (256, 3) uint8 by class index; black for every index that is not a class."""
        palette = np.zeros((256, 3), dtype=np.uint8)
        palette[: len(self)] = self.colors
        return palette


def class_table(names: Sequence[str], colors: Sequence[Sequence[Any]]) -> ClassTable:
    """Build a class table from the lists of a configuration; without colours, distinct ones are chosen."""
    return ClassTable(tuple(names), tuple(tuple(color) for color in colors) or distinct_colors(len(names)))


def distinct_colors(count: int) -> tuple[tuple[int, int, int], ...]:
    """Generate `count` colours, each clearly different from its neighbours; none is black.

    As in the colour map of PASCAL VOC, a channel's level is made of every third bit of the class's number.
    """

    def level(number: int, channel: int) -> int:
        high, middle, low = (number >> (3 * shift + channel) & 1 for shift in range(3))
        return 192 * high + 48 * middle + 15 * low

    return tuple((level(number, 0), level(number, 1), level(number, 2)) for number in range(1, count + 1))


def lookup_table(mapping: Mapping[int, int]) -> np.ndarray:
    """Build a lookup table (256,) uint8; values not in `mapping` become `UNKNOWN`."""
    table = np.full(256, UNKNOWN, dtype=np.uint8)
    table[list(mapping)] = list(mapping.values())
    return table


def cityscapes_classes() -> ClassTable:
    """Return the 19 evaluated classes of Cityscapes, ordered by train id."""
    columns = zip(*((c.name, c.color, c.category) for c in _evaluated()), strict=True)
    return ClassTable(*columns)


def cityscapes_train_ids() -> np.ndarray:
    """Return the lookup table (256,) uint8 from label ids, as in `*_gtFine_labelIds.png`, to train ids."""
    return lookup_table(
        {c.id: IGNORE_INDEX if c.ignore_in_eval else c.train_id for c in Cityscapes.classes if c.id >= 0}
    )


def cityscapes_label_ids() -> np.ndarray:
    """Return the lookup table (256,) uint8 from train ids to label ids; others become 0 (unlabelled)."""
    table = np.zeros(256, dtype=np.uint8)
    table[: len(_evaluated())] = [c.id for c in _evaluated()]
    return table


def _evaluated() -> list:
    """Return torchvision's entries of the evaluated classes, ordered by train id."""
    return sorted((c for c in Cityscapes.classes if not c.ignore_in_eval), key=lambda c: c.train_id)
