from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.transforms import (
    Compose,
    Normalization,
    Normalize,
    RandomBlur,
    RandomMirror,
    RandomScaleCrop,
    largest_share,
    pixel_of_any_class,
)


def pair(width: int = 64, height: int = 48) -> tuple[Image.Image, Image.Image]:
    """A random image and label map."""
    generator = rng(0)
    image = generator.integers(0, 256, (height, width, 3)).astype(np.uint8)
    target = generator.choice([0, 3, 7, 255], (height, width)).astype(np.uint8)
    return Image.fromarray(image), Image.fromarray(target)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def fixed(short: int, crop: int) -> RandomScaleCrop:
    """A random crop of an image resized to a short side of `short` pixels."""
    return RandomScaleCrop(base_size=short, scale=(1, 1), crop_size=crop)


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert np.array_equal(np.asarray(a), np.asarray(b))


def test_compose_applies_all_in_order_with_one_generator():
    calls = []

    def step(name):
        return lambda image, target, rng: (calls.append((name, rng.integers(10**9))) or image, target)

    Compose([step("a"), step("b")])(*pair(), rng(5))
    first, second = rng(5).integers(10**9, size=2)
    assert calls == [("a", first), ("b", second)]


def test_image_and_target_stay_aligned():
    target = np.zeros((48, 64), np.uint8)
    target[16:, :32] = 1  # where the image is bright
    image, target = Image.fromarray(np.repeat(200 * target[..., None], 3, axis=2)), Image.fromarray(target)
    transform = Compose([RandomScaleCrop(base_size=48, crop_size=40, scale=(0.5, 2)), RandomMirror(0.5)])
    seen = set()
    for seed in range(40):
        crop, crop_target = (np.asarray(part) for part in transform(image, target, rng(seed)))
        around = np.lib.stride_tricks.sliding_window_view(crop_target, (3, 3))
        inner = (around == around[..., 1:2, 1:2]).all((2, 3)) & (crop_target[1:-1, 1:-1] != 255)
        bright, label = crop[1:-1, 1:-1, 0] > 100, crop_target[1:-1, 1:-1] == 1
        assert np.array_equal(bright[inner], label[inner])
        seen |= set(label[inner].tolist())
    assert seen == {False, True}


# --- random scale and crop


@pytest.mark.parametrize("short", [35, 48, 61, 96])
def test_crop_equals_a_crop_of_the_resized_image(short):
    image, target = pair()
    size = round(64 * short / 48), short
    whole = np.asarray(image.resize(size, Image.Resampling.BILINEAR), dtype=int)
    whole_target = np.asarray(target.resize(size, Image.Resampling.NEAREST))
    unambiguous = np.logical_and.outer(~between_two(48, size[1]), ~between_two(64, size[0]))
    places = set()
    for seed in range(8):
        crop, crop_target = (np.asarray(part, dtype=int) for part in fixed(short, 32)(image, target, rng(seed)))
        corners = np.argwhere(np.abs(whole[: size[1] - 31, : size[0] - 31] - crop[0, 0]).max(-1) <= 1)
        windows = [(slice(top, top + 32), slice(left, left + 32)) for top, left in corners]
        (window,) = [window for window in windows if np.abs(whole[window] - crop).max() <= 1]
        mask = unambiguous[window]
        assert np.array_equal(whole_target[window][mask], crop_target[mask])
        places.add((window[0].start, window[1].start))
    assert len(places) > 1


def between_two(old: int, new: int) -> np.ndarray:
    """Return which of `new` pixels have two nearest neighbours among the `old` ones."""
    return (2 * np.arange(new) + 1) * old % (2 * new) == 0


def test_crop_at_scale_one_copies_pixels():
    image, target = pair()
    crop, crop_target = fixed(48, 32)(image, target, rng(3))
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(target), (32, 32))
    ((top, left),) = np.argwhere((windows == np.asarray(crop_target)).all((2, 3)))
    assert np.array_equal(np.asarray(image)[top : top + 32, left : left + 32], np.asarray(crop))


def test_crop_reaches_every_position():
    image, target = pair(36, 34)
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(target), (32, 32))
    places = set()
    for seed in range(150):
        crop = np.asarray(fixed(34, 32)(image, target, rng(seed))[1])
        places.add(tuple(np.argwhere((windows == crop).all((2, 3)))[0]))
    assert places == {(top, left) for top in range(3) for left in range(5)}


def test_small_image_is_padded_with_black_and_ignored_pixels():
    image, target = pair()
    padded, padded_target = (np.asarray(part) for part in fixed(48, 100)(image, target, rng(0)))
    assert padded.shape == (100, 100, 3) and padded_target.shape == (100, 100)
    assert np.array_equal(padded[:48, :64], np.asarray(image))
    assert np.array_equal(padded_target[:48, :64], np.asarray(target))
    inside = np.zeros((100, 100), bool)
    inside[:48, :64] = True
    assert (padded[~inside] == 0).all()
    assert (padded_target[~inside] == 255).all()


def test_short_side_is_uniform_from_half_to_twice_the_base_size():
    """As published: any integer from base / 2 to base * 2, both included."""
    image, _ = pair(64, 48)
    target = Image.new("L", image.size, 1)
    crop = RandomScaleCrop(base_size=32, scale=(0.5, 2), crop_size=100)
    shorts = []
    for seed in range(500):
        inside = np.asarray(crop(image, target, rng(seed))[1]) == 1
        height, width = inside[:, 0].sum(), inside[0].sum()
        assert abs(width - height * 64 / 48) <= 0.5  # the aspect ratio is kept
        shorts.append(height)
    assert min(shorts) == 16 and max(shorts) == 64
    assert len(set(shorts)) == 49
    assert abs(np.mean(shorts) - 40) < 2


def test_short_side_of_a_portrait_is_its_width():
    image, target = pair(48, 64)
    inside = np.asarray(fixed(24, 100)(image, target.point(lambda value: 1), rng(0))[1]) == 1
    assert inside[0].sum() == 24 and inside[:, 0].sum() == 32


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (3, 7), (33, 32)])
def test_crop_of_tiny_images(size):
    image, target = pair(*size)
    crop = RandomScaleCrop(base_size=32, scale=(0.5, 2), crop_size=32)
    for seed in range(20):
        small, small_target = crop(image, target, rng(seed))
        assert small.size == small_target.size == (32, 32)


def test_labels_are_never_interpolated():
    image, target = pair()
    crop = RandomScaleCrop(base_size=48, crop_size=32, scale=(0.3, 3))
    seen = set()
    for seed in range(30):
        seen |= set(np.unique(np.asarray(crop(image, target, rng(seed))[1])).tolist())
    assert seen == {0, 3, 7, 255}


def test_largest_share_is_of_the_labelled_pixels():
    assert largest_share(Image.fromarray(np.array([[1, 1, 1, 2], [255] * 4], np.uint8))) == 0.75
    assert largest_share(Image.fromarray(np.full((2, 2), 255, np.uint8))) == 1.0


def test_max_class_share_avoids_crops_of_one_class():
    target = np.zeros((48, 96), np.uint8)
    target[:, 48:] = 1
    image, target = Image.fromarray(np.zeros((48, 96, 3), np.uint8)), Image.fromarray(target)
    limited = RandomScaleCrop(base_size=48, scale=(1, 1), crop_size=32, max_class_share=0.75)
    free = [largest_share(fixed(48, 32)(image, target, rng(seed))[1]) for seed in range(100)]
    chosen = [largest_share(limited(image, target, rng(seed))[1]) for seed in range(100)]
    assert np.mean(np.array(free) > 0.75) > 0.6  # 17 of 65 positions are below it
    assert np.mean(np.array(chosen) > 0.75) < 0.15  # after eleven tries: (48 / 65) ** 11 is 0.04
    only_one_class = Image.fromarray(np.zeros((48, 96), np.uint8))
    assert limited(image, only_one_class, rng(0))[1].size == (32, 32)


@pytest.mark.parametrize(("limit", "tries"), [(None, 1), (0.75, 11)])
def test_crop_is_drawn_again_up_to_ten_times(limit, tries):
    drawn = []
    generator = SimpleNamespace(integers=lambda low, high, endpoint: drawn.append((low, high, endpoint)) or low)
    crop = RandomScaleCrop(base_size=48, scale=(1, 1), crop_size=32, max_class_share=limit)
    crop(Image.new("RGB", (96, 48)), Image.new("L", (96, 48)), generator)
    assert drawn == [(48, 48, True), *[(0, 64, True), (0, 16, True)] * tries]


def test_the_share_of_class_uniform_crops():
    target = np.full((64, 640), 255, np.uint8)
    target[0, 0] = 3
    crop = RandomScaleCrop(base_size=64, scale=(1, 1), crop_size=32, class_uniform=0.25)
    image, label, generator = Image.new("RGB", (640, 64)), Image.fromarray(target), rng(0)
    with_it = [3 in np.asarray(crop(image, label, generator)[1]) for _ in range(400)]
    assert 0.2 < np.mean(with_it) < 0.3  # 0.25 and the few others that are at the corner by chance


def test_first_crop_below_the_limit_is_kept():
    image, target = pair()
    limited = RandomScaleCrop(base_size=48, scale=(0.7, 1.5), crop_size=32, max_class_share=0.9)
    unlimited = RandomScaleCrop(base_size=48, scale=(0.7, 1.5), crop_size=32)
    assert_same(limited(image, target, rng(5)), unlimited(image, target, rng(5)))


@pytest.mark.parametrize("short", [32, 64, 150])
@pytest.mark.parametrize("place", [(0, 0), (40, 100), (63, 127)])
def test_a_class_uniform_crop_contains_the_class_however_small(short, place):
    target = np.full((64, 128), 255, np.uint8)
    target[place] = 3
    crop = RandomScaleCrop(base_size=short, scale=(1, 1), crop_size=32, class_uniform=1)
    image, target = Image.new("RGB", (128, 64)), Image.fromarray(target)
    places = {crop._corner(target, (short * 2, short), (32, 32), rng(seed))[0] for seed in range(30)}
    x = int((place[1] + 0.5) * short / 64)
    assert all(left <= x < left + 32 <= 2 * short for left in places) and (len(places) > 1 or x in (0, 2 * short - 1))
    if short >= 64:  # nothing is left out on shrinking
        assert all((np.asarray(crop(image, target, rng(seed))[1]) == 3).any() for seed in range(10))


def test_classes_are_as_likely_as_one_another():
    target = np.zeros((40, 50), np.uint8)
    target[7, 9], target[:2] = 5, 255
    drawn = [pixel_of_any_class(Image.fromarray(target), generator) for generator in [rng(0)] for _ in range(400)]
    assert 0.4 < np.mean([pixel == (9, 7) for pixel in drawn]) < 0.6
    assert all(y >= 2 for _, y in drawn)
    assert pixel_of_any_class(Image.new("L", (4, 4), 255), rng(0)) is None


# --- mirror and blur


@pytest.mark.parametrize("transform", [RandomMirror, RandomBlur])
def test_mirror_and_blur_have_their_probability(transform):
    image, target = pair(8, 8)

    def changed(p: float) -> int:
        results = [transform(p)(image, target, rng(seed))[0] for seed in range(200)]
        return sum(not np.array_equal(np.asarray(result), np.asarray(image)) for result in results)

    assert changed(0) == 0
    always = changed(1)
    assert always > 130  # a very small sigma changes nothing
    assert 0.35 * always < changed(0.5) < 0.65 * always


def test_mirroring_twice_is_the_identity():
    image, target = pair()
    mirror = RandomMirror(1)
    once = mirror(image, target, rng(0))
    assert np.array_equal(np.asarray(once[0]), np.asarray(image)[:, ::-1])
    assert np.array_equal(np.asarray(once[1]), np.asarray(target)[:, ::-1])
    assert_same(mirror(*once, rng(1)), (image, target))


def test_blur_smooths_the_image_and_keeps_the_target():
    image, target = pair()
    blurred, same = RandomBlur(1)(image, target, rng(0))
    assert same is target
    assert blurred.size == image.size
    assert np.asarray(blurred, dtype=float).std() < np.asarray(image, dtype=float).std()


def test_blur_sigma_is_at_most_one_pixel():
    point = np.zeros((15, 15, 3), np.uint8)
    point[7, 7] = 255
    _, target = pair(15, 15)
    images = [np.asarray(RandomBlur(1)(Image.fromarray(point), target, rng(seed))[0], float) for seed in range(50)]
    profiles = [image[:, 7, 0] / image[:, 7, 0].sum() for image in images]
    variances = [float(((np.arange(15) - 7) ** 2 * profile).sum()) for profile in profiles]
    assert max(variances) == pytest.approx(1, abs=0.15) and min(variances) < 0.1


# --- normalisation


def test_normalize_by_hand():
    image = torch.tensor([[0, 255], [51, 102]], dtype=torch.uint8).expand(2, 3, 2, 2)
    normal = Normalize()(image)
    assert normal.dtype == torch.float32 and normal.shape == (2, 3, 2, 2)
    for channel, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        expected = torch.tensor([[(0.0 - mean) / std, (1 - mean) / std], [(0.2 - mean) / std, (0.4 - mean) / std]])
        torch.testing.assert_close(normal[1, channel], expected)


def test_normalize_with_other_statistics_and_without_a_batch_dimension():
    image = torch.full((3, 1, 1), 51, dtype=torch.uint8)
    normal = Normalize(Normalization((0, 0.1, 0.2), (1, 0.5, 0.2)))(image)
    torch.testing.assert_close(normal.flatten(), torch.tensor([0.2, 0.2, 0.0]))


def test_normalize_copies_its_statistics_to_a_device_once():
    normalize = Normalize()
    normalize(torch.zeros(3, 1, 1, dtype=torch.uint8, device="meta"))
    mean, std = normalize.mean, normalize.std
    normalize(torch.zeros(3, 1, 1, dtype=torch.uint8, device="meta"))
    assert mean.is_meta and normalize.mean is mean and normalize.std is std
