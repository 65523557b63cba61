"""What the values of a label map mean: class names, colours, and the one official table of Cityscapes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torchvision.datasets import Cityscapes

IGNORE_INDEX = 255  # "no label here", in every label map of this project
UNKNOWN = 254  # where a stored mask has a value that its dataset does not list; never reaches the network
MAX_CLASSES = 254


@dataclass(frozen=True)
class ClassTable:
    """Names and colours of the classes, by index.

    Attributes:
        names: one per class.
        colors: (red, green, blue), 0 to 255, one per class.
        categories: what kind of thing each class is, one per class, or none at all; only figures are told apart by it.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    categories: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if len(self.names) != len(self.colors):
            raise ValueError(f"{len(self.names)} class names, but {len(self.colors)} colours")
        if not 2 <= len(self.names) <= MAX_CLASSES:
            raise ValueError(f"between 2 and {MAX_CLASSES} classes are possible, got {len(self.names)}")
        for color in self.colors:
            if len(color) != 3 or not all(0 <= value <= 255 for value in color):
                raise ValueError(f"a class colour is three values from 0 to 255, not {list(color)}")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"class names must differ from each other: {', '.join(self.names)}")

    def __len__(self) -> int:
        return len(self.names)


def cityscapes_classes() -> ClassTable:
    """The 19 classes of Cityscapes that are trained and evaluated, in the order of their train ids."""
    columns = zip(*((c.name, c.color, c.category) for c in _trained()), strict=True)
    return ClassTable(*columns)


def cityscapes_train_ids() -> np.ndarray:
    """Lookup table (256,) uint8 from what `*_gtFine_labelIds.png` stores to train ids."""
    return lookup_table(
        {c.id: IGNORE_INDEX if c.ignore_in_eval else c.train_id for c in Cityscapes.classes if c.id >= 0}
    )


def cityscapes_label_ids() -> np.ndarray:
    """Lookup table (256,) uint8 from train ids to what `*_gtFine_labelIds.png` stores; 0, unlabelled, for no class."""
    table = np.zeros(256, dtype=np.uint8)
    table[: len(_trained())] = [c.id for c in _trained()]
    return table


def _trained() -> list:
    """The classes of Cityscapes that are trained and evaluated, by train id."""
    return sorted((c for c in Cityscapes.classes if not c.ignore_in_eval), key=lambda c: c.train_id)


def lookup_table(mapping: Mapping[int, int]) -> np.ndarray:
    """Lookup table (256,) uint8 with `UNKNOWN` for every value that `mapping` does not list."""
    table = np.full(256, UNKNOWN, dtype=np.uint8)
    table[list(mapping)] = list(mapping.values())
    return table


def distinct_colors(count: int) -> tuple[tuple[int, int, int], ...]:
    """Choose `count` colours that differ clearly from their neighbours, for classes that come without."""
    bits = [
        [(index + 1) >> (3 * shift + channel) & 1 for shift in range(3)]
        for index in range(count)
        for channel in range(3)
    ]
    values = [192 * b[0] + 48 * b[1] + 15 * b[2] for b in bits]
    return tuple(zip(values[0::3], values[1::3], values[2::3], strict=True))


def class_table(names: Sequence[str], colors: Sequence[Sequence[Any]]) -> ClassTable:
    """Build a table from a configuration's lists; without colours, distinct ones are chosen."""
    return ClassTable(tuple(names), tuple(tuple(color) for color in colors) or distinct_colors(len(names)))
