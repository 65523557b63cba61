"""Augmentations of an image together with its label map, and the normalisation of a batch.

Each transform is called with (image, target, rng): a Pillow RGB image, a Pillow "L" image of the same size that holds
class indices, and the generator that all of its random choices come from. It returns the new pair.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from dataset.labels import IGNORE_INDEX

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
Pair = tuple[Image.Image, Image.Image]


class Compose:
    """Apply transforms one after the other."""

    def __init__(self, transforms: Sequence) -> None:
        self.transforms = transforms

    def __call__(self, image: Image.Image, target: Image.Image, rng: np.random.Generator) -> Pair:
        for transform in self.transforms:
            image, target = transform(image, target, rng)
        return image, target


class RandomScaleCrop:
    """Scale the short side to a random size, then cut out a random square, padded where the image is too small.

    Scaling and cutting are one step, so only the pixels of the crop are computed.

    Args:
        base_size: short side in pixels that scale 1 stands for.
        scale: smallest and largest scale.
        crop_size: side of the square in pixels.
    """

    def __init__(self, *, base_size: int, scale: tuple[float, float], crop_size: int) -> None:
        self.short_sides = round(base_size * scale[0]), round(base_size * scale[1])
        self.crop_size = crop_size

    def __call__(self, image: Image.Image, target: Image.Image, rng: np.random.Generator) -> Pair:
        short = rng.integers(self.short_sides[0], self.short_sides[1], endpoint=True)
        zoom = short / min(image.size)
        scaled = [max(1, round(side * zoom)) for side in image.size]
        crop = [min(self.crop_size, side) for side in scaled]
        left, top = (int(rng.integers(0, side - cut, endpoint=True)) for side, cut in zip(scaled, crop, strict=True))
        fx, fy = image.width / scaled[0], image.height / scaled[1]
        box = left * fx, top * fy, (left + crop[0]) * fx, (top + crop[1]) * fy
        image = image.resize(crop, Image.Resampling.BILINEAR, box=box)
        target = target.resize(crop, Image.Resampling.NEAREST, box=box)
        return self._pad(image, target)

    def _pad(self, image: Image.Image, target: Image.Image) -> Pair:
        border = (0, 0, self.crop_size - image.width, self.crop_size - image.height)
        if not any(border):
            return image, target
        return ImageOps.expand(image, border, fill=0), ImageOps.expand(target, border, fill=IGNORE_INDEX)


class RandomMirror:
    """Mirror left and right with probability `p`."""

    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, image: Image.Image, target: Image.Image, rng: np.random.Generator) -> Pair:
        if rng.random() < self.p:
            return ImageOps.mirror(image), ImageOps.mirror(target)
        return image, target


class RandomBlur:
    """Blur the image with probability `p` by a Gaussian whose standard deviation is drawn from 0 to 1 pixel."""

    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, image: Image.Image, target: Image.Image, rng: np.random.Generator) -> Pair:
        if rng.random() < self.p:
            sigma = 1 - rng.random()  # OpenCV takes no 0
            image = Image.fromarray(cv2.GaussianBlur(np.asarray(image), (7, 7), sigma))  # 10 times as fast as Pillow
        return image, target


def train_transform(
    *, base_size: int, crop_size: int, scale: tuple[float, float], mirror: float, blur: float
) -> Compose:
    """The published recipe's augmentation; `mirror` and `blur` are probabilities."""
    return Compose(
        [
            RandomScaleCrop(base_size=base_size, scale=scale, crop_size=crop_size),
            RandomMirror(mirror),
            RandomBlur(blur),
        ]
    )


class Normalize:
    """Turn uint8 RGB images into what the network takes, on the device they are on.

    Args:
        mean, std: of each channel, on the scale from 0 to 1.
    """

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        self.mean = torch.tensor(mean).view(3, 1, 1) * 255
        self.std = torch.tensor(std).view(3, 1, 1) * 255

    def __call__(self, image: Tensor) -> Tensor:
        """(..., 3, H, W) uint8 -> the same shape, float32."""
        return (image - self.mean.to(image.device)) / self.std.to(image.device)
