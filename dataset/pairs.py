"""The files of a split: images with their masks."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """The files of one sample; `mask` is None where a split has no labels."""

    image: Path
    mask: Path | None


def check_sizes(sample: Sample, image: tuple[int, int], mask: tuple[int, int]) -> None:
    """Make sure that image and mask have one size (width, height).

    Raises:
        ValueError: they do not.
    """
    if image != mask:
        raise ValueError(
            f"image and mask differ in size: {sample.image} is {image[0]}x{image[1]}, "
            f"{sample.mask} is {mask[0]}x{mask[1]}"
        )


@dataclass(frozen=True)
class Pairs:
    """The samples of a split, and the files that were left without a partner.

    Attributes:
        samples: images with their masks, or without where the split has none.
        images: images whose mask is missing.
        masks: masks whose image is missing; nothing needs them.
        fault: what is the matter with `images`, to follow "images in FOLDER".
    """

    samples: list[Sample]
    images: list[Path] = field(default_factory=list)
    masks: list[Path] = field(default_factory=list)
    fault: str = ""

    def complete(self) -> list[Sample]:
        """Return the samples.

        Raises:
            ValueError: images without a mask.
        """
        if self.images:
            total = len(self.samples) + len(self.images)
            first = ", ".join(map(str, self.images[:3]))
            raise ValueError(f"{len(self.images)} of {total} images {self.fault}; the first: {first}")
        return self.samples
