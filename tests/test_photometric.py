"""Photometric distortion of training images."""

import numpy as np
import pytest
from PIL import Image

from dataset.transforms import PhotometricDistortion
from tests.test_transforms import assert_same, pair, rng


class Chosen:
    """A generator with given choices: which changes to make, whether contrast comes first, and the amounts."""

    def __init__(self, changes: str, *amounts: float, contrast_first: bool = False):
        self.changes = [name in changes.split() for name in ("brightness", "contrast", "saturation", "hue")]
        self.contrast_first, self.amounts, self.ranges = contrast_first, list(amounts), []

    def random(self, size: int | None = None) -> np.ndarray | float:
        return np.where(self.changes, 0.4, 0.5) if size else (0.4 if self.contrast_first else 0.5)

    def uniform(self, low: float, high: float) -> float:
        self.ranges.append((low, high))
        return self.amounts.pop(0)


def distorted(color: tuple[int, int, int], rng: Chosen) -> list[int]:
    image = Image.new("RGB", (1, 1), color)
    changed = PhotometricDistortion(0.5)(image, image, rng)[0].getpixel((0, 0))
    assert not rng.amounts
    return list(changed)


def test_distortion_changes_only_colours():
    image, target = pair()
    distort = PhotometricDistortion(1.0)
    changed, labels = distort(image, target, rng(0))
    assert labels is target and changed.size == image.size and changed.mode == "RGB"
    assert_same(distort(image, target, rng(0)), (changed, target))
    assert not np.array_equal(np.asarray(changed), np.asarray(image))
    assert PhotometricDistortion(0.0)(image, target, rng(0))[0] is image


def test_strength_widens_all_ranges():
    image, chosen = pair()[0], Chosen("brightness contrast saturation hue", 0, 1, 1, 0)
    PhotometricDistortion(0.5, 2)(image, image, chosen)
    assert chosen.ranges == [(-64, 64), (0, 2), (-72, 72), (0, 2)]


@pytest.mark.parametrize("first", [True, False])
def test_brightness_and_contrast_by_hand(first):
    assert distorted((100, 50, 200), Chosen("", contrast_first=first)) == [100, 50, 200]
    assert distorted((100, 50, 200), Chosen("brightness", 20.4, contrast_first=first)) == [120, 70, 220]
    assert distorted((10, 0, 250), Chosen("brightness", -20, contrast_first=first)) == [0, 0, 230]
    # 76.5 is rounded to even
    assert distorted((100, 51, 200), Chosen("contrast", 1.5, contrast_first=first)) == [150, 76, 255]
    assert distorted((100, 50, 200), Chosen("brightness contrast", 20, 0.5, contrast_first=first)) == [60, 35, 110]


def test_saturation_and_hue_by_hand():
    assert distorted((200, 100, 100), Chosen("saturation", 0.5)) == pytest.approx([200, 150, 150], abs=2)
    assert distorted((200, 100, 100), Chosen("saturation", 1.5)) == pytest.approx([200, 50, 50], abs=2)
    assert distorted((255, 0, 0), Chosen("hue", 30)) == pytest.approx([255, 128, 0], abs=10)  # red to orange
    assert distorted((255, 0, 0), Chosen("hue", -30)) == pytest.approx([255, 0, 128], abs=10)  # wraps around
    assert distorted((200, 100, 100), Chosen("saturation hue", 0.5, 30)) == pytest.approx([200, 175, 150], abs=4)


def test_contrast_is_changed_once_before_or_after_the_colours():
    before = distorted((255, 0, 0), Chosen("contrast saturation", 1.5, 0.5, contrast_first=True))
    assert before == pytest.approx([255, 128, 128], abs=1)
    assert distorted((255, 0, 0), Chosen("contrast saturation", 0.5, 1.5)) == pytest.approx([255, 192, 192], abs=2)


def test_ranges_of_the_distortions():
    first = Chosen("brightness contrast saturation hue", 0, 1, 1, 0, contrast_first=True)
    last = Chosen("brightness contrast saturation hue", 0, 1, 0, 1)
    for chosen in (first, last):
        distorted((1, 2, 3), chosen)
    assert first.ranges == [(-32, 32), (0.5, 1.5), (0.5, 1.5), (-36, 36)]
    assert last.ranges == [(-32, 32), (0.5, 1.5), (-36, 36), (0.5, 1.5)]
