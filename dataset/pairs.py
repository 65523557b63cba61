"""Image and mask files of a dataset split."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

Key = TypeVar("Key")


@dataclass(frozen=True)
class Sample:
    """The files of one sample; `mask` is None in an unlabelled split."""

    image: Path
    mask: Path | None


@dataclass(frozen=True)
class Pairs:
    """The samples of a split, and the files without a counterpart.

    Attributes:
        samples: images with their masks (None in an unlabelled split).
        images: images without a mask.
        masks: masks without an image; harmless, but worth reporting.
        expected: the mask that each image needs, for the error message.
    """

    samples: list[Sample]
    images: list[Path] = field(default_factory=list)
    masks: list[Path] = field(default_factory=list)
    expected: str = "mask"

    def complete(self) -> list[Sample]:
        """Return the samples.

        Raises:
            ValueError: images without a mask.
        """
        if self.images:
            total = len(self.samples) + len(self.images)
            first = ", ".join(map(str, self.images[:3]))
            raise ValueError(f"{len(self.images)} of {total} images have no {self.expected}; the first: {first}")
        return self.samples


def match(images: Mapping[Key, Path], masks: Mapping[Key, Path], *, expected: str) -> Pairs:
    """Pair the images and masks of the same key, in the order of the images."""
    return Pairs(
        samples=[Sample(image, masks[key]) for key, image in images.items() if key in masks],
        images=[image for key, image in images.items() if key not in masks],
        masks=[mask for key, mask in masks.items() if key not in images],
        expected=expected,
    )


def check_sizes(sample: Sample, image: tuple[int, int], mask: tuple[int, int]) -> None:
    """Raise a ValueError if image and mask differ in size (width, height)."""
    if image != mask:
        raise ValueError(
            f"image and mask differ in size: {sample.image} is {image[0]}x{image[1]}, "
            f"{sample.mask} is {mask[0]}x{mask[1]}"
        )
