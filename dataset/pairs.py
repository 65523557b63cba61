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
        unpaired_images: images without a mask.
        unpaired_masks: masks without an image; harmless, but worth reporting.
        expected: the mask that each image needs, for the error message.
    """

    samples: list[Sample]
    unpaired_images: list[Path] = field(default_factory=list)
    unpaired_masks: list[Path] = field(default_factory=list)
    expected: str = "mask"

    def complete(self) -> list[Sample]:
        """Return the samples.

        Raises:
            ValueError: images without a mask.
        """
        if self.unpaired_images:
            missing, total = len(self.unpaired_images), len(self.samples) + len(self.unpaired_images)
            first = ", ".join(map(str, self.unpaired_images[:3]))
            raise ValueError(f"{missing} of {total} images have no {self.expected}; the first: {first}")
        return self.samples


def match(images: Mapping[Key, Path], masks: Mapping[Key, Path], *, expected: str) -> Pairs:
    """Pair the images and masks of the same key, in the order of the images."""
    return Pairs(
        samples=[Sample(image, masks[key]) for key, image in images.items() if key in masks],
        unpaired_images=[image for key, image in images.items() if key not in masks],
        unpaired_masks=[mask for key, mask in masks.items() if key not in images],
        expected=expected,
    )


def check_sizes(sample: Sample, image: tuple[int, int], mask: tuple[int, int]) -> None:
    """Raise a ValueError if image and mask differ in size (width, height)."""
    if image != mask:
        turned = "; if EXIF data turn the image, save it upright, or turn the mask" if image == mask[::-1] else ""
        raise ValueError(
            f"image and mask differ in size: {sample.image} is {image[0]}x{image[1]}, "
            f"{sample.mask} is {mask[0]}x{mask[1]}{turned}"
        )
