"""Random scale and crop: the pixels it takes, where it pads, and which places it avoids."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dataset.transforms import (
    RandomScaleCrop,
    largest_share,
    train_transform,
)
from tests.test_transforms import assert_same, pair, rng


def fixed(short: int, crop: int) -> RandomScaleCrop:
    """A crop that scales the short side to just `short` pixels."""
    return RandomScaleCrop(base_size=short, scale=(1, 1), crop_size=crop)


@pytest.mark.parametrize("short", [35, 48, 61, 96])
def test_crop_in_one_step_is_a_crop_of_the_scaled_picture(short):
    image, target = pair()
    size = round(64 * short / 48), short
    whole = np.asarray(image.resize(size, Image.Resampling.BILINEAR), dtype=int)
    whole_target = np.asarray(target.resize(size, Image.Resampling.NEAREST))
    clear = np.logical_and.outer(~between_two(48, size[1]), ~between_two(64, size[0]))
    places = set()
    for seed in range(8):
        crop, crop_target = (np.asarray(part, dtype=int) for part in fixed(short, 32)(image, target, rng(seed)))
        corners = np.argwhere(np.abs(whole[: size[1] - 31, : size[0] - 31] - crop[0, 0]).max(-1) <= 1)
        windows = [(slice(top, top + 32), slice(left, left + 32)) for top, left in corners]
        (window,) = [window for window in windows if np.abs(whole[window] - crop).max() <= 1]
        assert np.array_equal(whole_target[window][clear[window]], crop_target[clear[window]])
        places.add((window[0].start, window[1].start))
    assert len(places) > 1


def between_two(old: int, new: int) -> np.ndarray:
    """Tell of each of `new` pixels whether its centre lies just between two of the `old`: then either is nearest."""
    return (2 * np.arange(new) + 1) * old % (2 * new) == 0


def test_scale_one_crops_the_very_pixels():
    image, target = pair()
    crop, crop_target = fixed(48, 32)(image, target, rng(3))
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(target), (32, 32))
    (place,) = np.argwhere((windows == np.asarray(crop_target)).all((2, 3)))
    top, left = place
    assert np.array_equal(np.asarray(image)[top : top + 32, left : left + 32], np.asarray(crop))


def test_every_place_can_be_cropped():
    image, target = pair(36, 34)
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(target), (32, 32))
    places = set()
    for seed in range(150):
        crop = np.asarray(fixed(34, 32)(image, target, rng(seed))[1])
        places.add(tuple(np.argwhere((windows == crop).all((2, 3)))[0]))
    assert places == {(top, left) for top in range(3) for left in range(5)}


def test_small_picture_is_padded_with_black_and_ignored():
    image, target = pair()
    big, big_target = (np.asarray(part) for part in fixed(48, 100)(image, target, rng(0)))
    assert big.shape == (100, 100, 3) and big_target.shape == (100, 100)
    assert np.array_equal(big[:48, :64], np.asarray(image))
    assert np.array_equal(big_target[:48, :64], np.asarray(target))
    inside = np.zeros((100, 100), bool)
    inside[:48, :64] = True
    assert (big[~inside] == 0).all()
    assert (big_target[~inside] == 255).all()


def test_short_side_is_drawn_from_half_to_twice_the_base_size():
    """As published: any whole number from base / 2 to base * 2, both included."""
    image, _ = pair(64, 48)
    target = Image.new("L", image.size, 1)
    crop = RandomScaleCrop(base_size=32, scale=(0.5, 2), crop_size=100)
    shorts = []
    for seed in range(500):
        inside = np.asarray(crop(image, target, rng(seed))[1]) == 1
        height, width = inside[:, 0].sum(), inside[0].sum()
        assert abs(width - height * 64 / 48) <= 0.5  # the picture keeps its proportions
        shorts.append(height)
    assert min(shorts) == 16 and max(shorts) == 64
    assert len(set(shorts)) == 49
    assert abs(np.mean(shorts) - 40) < 2  # uniform


def test_portrait_is_scaled_by_its_width():
    image, target = pair(48, 64)
    inside = np.asarray(fixed(24, 100)(image, target.point(lambda value: 1), rng(0))[1]) == 1
    assert inside[0].sum() == 24 and inside[:, 0].sum() == 32


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (3, 7), (33, 32)])
def test_tiny_pictures(size):
    image, target = pair(*size)
    crop = RandomScaleCrop(base_size=32, scale=(0.5, 2), crop_size=32)
    for seed in range(20):
        small, small_target = crop(image, target, rng(seed))
        assert small.size == small_target.size == (32, 32)


def test_no_label_is_invented():
    image, target = pair()
    transform = train_transform(base_size=48, crop_size=32, scale=(0.3, 3), mirror=0.5, blur=1)
    seen = set()
    for seed in range(30):
        seen |= set(np.unique(np.asarray(transform(image, target, rng(seed))[1])).tolist())
    assert seen == {0, 3, 7, 255}


def test_largest_share_is_of_the_labelled_pixels():
    assert largest_share(Image.fromarray(np.array([[1, 1, 1, 2], [255] * 4], np.uint8))) == 0.75
    assert largest_share(Image.fromarray(np.full((2, 2), 255, np.uint8))) == 1.0


def test_crops_avoid_places_where_one_class_is_all():
    target = np.zeros((48, 96), np.uint8)
    target[:, 48:] = 1
    image, target = Image.fromarray(np.zeros((48, 96, 3), np.uint8)), Image.fromarray(target)
    limited = RandomScaleCrop(base_size=48, scale=(1, 1), crop_size=32, max_class_share=0.75)
    free = [largest_share(fixed(48, 32)(image, target, rng(seed))[1]) for seed in range(100)]
    chosen = [largest_share(limited(image, target, rng(seed))[1]) for seed in range(100)]
    assert np.mean(np.array(free) > 0.75) > 0.6  # 17 of the 65 places will do
    assert np.mean(np.array(chosen) > 0.75) < 0.15  # in ten tries: (48 / 65) ** 10 is 0.05
    hopeless = Image.fromarray(np.zeros((48, 96), np.uint8))
    assert limited(image, hopeless, rng(0))[1].size == (32, 32)  # and then takes it as it is


@pytest.mark.parametrize(("limit", "tries"), [(None, 1), (0.75, 10)])
def test_a_place_is_drawn_up_to_ten_times(limit, tries):
    drawn = []
    chosen = SimpleNamespace(integers=lambda low, high, endpoint: drawn.append((low, high, endpoint)) or low)
    crop = RandomScaleCrop(base_size=48, scale=(1, 1), crop_size=32, max_class_share=limit)
    crop(Image.new("RGB", (96, 48)), Image.new("L", (96, 48)), chosen)
    assert drawn == [(48, 48, True), *[(0, 64, True), (0, 16, True)] * tries]


def test_a_crop_that_passes_at_once_is_the_one_without_limit():
    image, target = pair()
    limited = RandomScaleCrop(base_size=48, scale=(0.7, 1.5), crop_size=32, max_class_share=0.9)
    unlimited = RandomScaleCrop(base_size=48, scale=(0.7, 1.5), crop_size=32)
    assert_same(limited(image, target, rng(5)), unlimited(image, target, rng(5)))
