"""Joint augmentation of images and label maps, and input normalisation.

An augmentation is called with (image, target, rng): a Pillow RGB image, a Pillow "L" image of class indices of the same
size, and the generator of all random choices. It returns the new pair.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from dataset.labels import IGNORE_INDEX


class Normalization(NamedTuple):
    """Mean and standard deviation of a network's input, per channel, on a scale from 0 to 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

Pair = tuple[Image.Image, Image.Image]


class Compose:
    """Apply several augmentations in sequence."""

    def __init__(self, transforms: Sequence[Callable]) -> None:
        self.transforms = transforms

    def __call__(self, image: Image.Image, target: Image.Image, rng: np.random.Generator) -> Pair:
        for transform in self.transforms:
            image, target = transform(image, target, rng)
        return image, target


class RandomScaleCrop:
    """Resize to a random short side, then take a random square crop, padded where the image is smaller.

    Both happen in one step, so only the pixels of the crop are computed.

    Args:
        base_size: short side in pixels at scale 1.
        scale: smallest and largest scale.
        crop_size: side of the crop in pixels.
        max_class_share: redraw the crop, up to ten times, while one class covers more than this share of its labelled
            pixels; None: always keep the first.
        class_uniform: share of the crops placed to contain a random pixel of a class that is drawn uniformly from those
            in the image (class-uniform sampling, arXiv 1812.01593); the others are placed anywhere.
    """

    def __init__(
        self,
        *,
        base_size: int,
        scale: tuple[float, float],
        crop_size: int,
        max_class_share: float | None = None,
        class_uniform: float = 0.0,
    ) -> None:
        self.short_sides = round(base_size * scale[0]), round(base_size * scale[1])
        self.crop_size = crop_size
        self.max_class_share = max_class_share
        self.tries = 1 if max_class_share is None else 11
        self.class_uniform = class_uniform

    def __call__(self, image: Image.Image, target: Image.Image, rng: np.random.Generator) -> Pair:
        short = rng.integers(self.short_sides[0], self.short_sides[1], endpoint=True)
        zoom = short / min(image.size)
        scaled = [max(1, round(side * zoom)) for side in image.size]
        crop = [min(self.crop_size, side) for side in scaled]
        fx, fy = image.width / scaled[0], image.height / scaled[1]
        for _ in range(self.tries):
            left, top = self._corner(target, scaled, crop, rng)
            box = left * fx, top * fy, (left + crop[0]) * fx, (top + crop[1]) * fy
            labels = target.resize(crop, Image.Resampling.NEAREST, box=box)
            if self.max_class_share is None or largest_share(labels) <= self.max_class_share:
                break
        pixels = image.resize(crop, Image.Resampling.BILINEAR, box=box)
        border = (0, 0, self.crop_size - crop[0], self.crop_size - crop[1])
        return ImageOps.expand(pixels, border, fill=0), ImageOps.expand(labels, border, fill=IGNORE_INDEX)

    def _corner(
        self, target: Image.Image, scaled: Sequence[int], crop: Sequence[int], rng: np.random.Generator
    ) -> list[int]:
        """Draw where the crop begins in the scaled image, left and top."""
        pixel = None
        if self.class_uniform and rng.random() < self.class_uniform:
            pixel = pixel_of_any_class(target, rng)
        corner = []
        for axis in (0, 1):
            low, high = 0, scaled[axis] - crop[axis]
            if pixel is not None:
                place = (2 * pixel[axis] + 1) * scaled[axis] // (2 * target.size[axis])  # of its centre
                low, high = max(low, place - crop[axis] + 1), min(high, place)
            corner.append(int(rng.integers(low, high, endpoint=True)))
        return corner


def pixel_of_any_class(target: Image.Image, rng: np.random.Generator) -> tuple[int, int] | None:
    """Draw one of the classes in a label map, then one of its pixels (x, y); None if nothing is labelled."""
    labels = np.asarray(target)
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=256)[:IGNORE_INDEX])
    if not present.size:
        return None
    rows, columns = np.nonzero(labels == rng.choice(present))
    chosen = rng.integers(len(rows))
    return int(columns[chosen]), int(rows[chosen])


def largest_share(target: Image.Image) -> float:
    """Return the share of the labelled pixels that the most frequent class covers; 1 if none are labelled."""
    counts = np.array(target.histogram())
    counts[IGNORE_INDEX] = 0
    return float(counts.max() / counts.sum()) if counts.any() else 1.0


class RandomMirror:
    """Flip horizontally with probability `p`."""

    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, image: Image.Image, target: Image.Image, rng: np.random.Generator) -> Pair:
        if rng.random() < self.p:
            return ImageOps.mirror(image), ImageOps.mirror(target)
        return image, target


class RandomBlur:
    """Blur the image with probability `p` by a Gaussian with a standard deviation drawn from 0 to 1 pixel."""

    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, image: Image.Image, target: Image.Image, rng: np.random.Generator) -> Pair:
        if rng.random() < self.p:
            sigma = 1 - rng.random()  # OpenCV does not accept 0
            image = Image.fromarray(cv2.GaussianBlur(np.asarray(image), (7, 7), sigma))  # 10 times as fast as Pillow
        return image, target


class PhotometricDistortion:
    """Change brightness, contrast, saturation and hue, each with probability `p` (SSD, arXiv 1512.02325, section 2.2).

    At strength 1, brightness by up to 32 of 255, contrast and saturation by factors from 0.5 to 1.5, hue by up to 36
    degrees; contrast before or after the colours, with equal probability.

    Args:
        strength: multiplies all these ranges, up to 2, where factors go from 0 to 2.
    """

    def __init__(self, p: float, strength: float = 1.0) -> None:
        self.p = p
        self.brightness = 32 * strength
        self.factors = 1 - 0.5 * strength, 1 + 0.5 * strength
        self.hue = 36 * strength

    def __call__(self, image: Image.Image, target: Image.Image, rng: np.random.Generator) -> Pair:
        brightness, contrast, saturation, hue = rng.random(4) < self.p
        contrast_first = rng.random() < 0.5
        if brightness:
            image = image.point(3 * _levels(shift=rng.uniform(-self.brightness, self.brightness)))
        if contrast and contrast_first:
            image = image.point(3 * _levels(factor=rng.uniform(*self.factors)))
        if saturation or hue:
            h, s, v = image.convert("HSV").split()
            if saturation:
                s = s.point(_levels(factor=rng.uniform(*self.factors)))
            if hue:
                turn = round(rng.uniform(-self.hue, self.hue) / 360 * 256)
                h = h.point([(value + turn) % 256 for value in range(256)])
            image = Image.merge("HSV", (h, s, v)).convert("RGB")
        if contrast and not contrast_first:
            image = image.point(3 * _levels(factor=rng.uniform(*self.factors)))
        return image, target


def _levels(*, factor: float = 1.0, shift: float = 0.0) -> list[int]:
    """Return the new value of each of the levels 0 to 255."""
    return (np.arange(256) * factor + shift).round().clip(0, 255).astype(int).tolist()


class Normalize:
    """Convert uint8 RGB images to normalised network input, on the device of the images."""

    def __init__(self, normalization: Normalization = IMAGENET) -> None:
        self.mean, self.std = (torch.tensor(values).view(3, 1, 1) * 255 for values in normalization)

    def __call__(self, image: Tensor) -> Tensor:
        """(..., 3, H, W) uint8 -> the same shape, float32."""
        if self.mean.device != image.device:  # moved once: a copy in every call would synchronise the GPU
            self.mean, self.std = self.mean.to(image.device), self.std.to(image.device)
        x = image.to(torch.float32, copy=True)  # modified in place: allocating memory costs more than the arithmetic
        return x.sub_(self.mean).div_(self.std)
