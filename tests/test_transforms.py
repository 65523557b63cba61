import numpy as np
import pytest
import torch
from PIL import Image

from dataset.transforms import (
    Compose,
    Normalize,
    PhotometricDistortion,
    RandomBlur,
    RandomMirror,
    train_transform,
)


def pair(width: int = 64, height: int = 48, seed: int = 0) -> tuple[Image.Image, Image.Image]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    target = rng.choice([0, 3, 7, 255], (height, width)).astype(np.uint8)
    return Image.fromarray(image), Image.fromarray(target)


def halves(width: int = 64, height: int = 48) -> tuple[Image.Image, Image.Image]:
    """A pair in which the image is bright just where the target is 1: in the left half of its lower part."""
    target = np.zeros((height, width), np.uint8)
    target[height // 3 :, : width // 2] = 1
    return Image.fromarray(np.repeat(200 * target[..., None], 3, axis=2)), Image.fromarray(target)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_image_and_target_stay_aligned():
    image, target = halves()
    transform = train_transform(base_size=48, crop_size=40, scale=(0.5, 2), mirror=0.5, blur=0)
    met = set()
    for seed in range(40):
        crop, crop_target = (np.asarray(part) for part in transform(image, target, rng(seed)))
        around = np.lib.stride_tricks.sliding_window_view(crop_target, (3, 3))
        inner = (around == around[..., 1:2, 1:2]).all((2, 3)) & (crop_target[1:-1, 1:-1] != 255)
        bright, label = crop[1:-1, 1:-1, 0] > 100, crop_target[1:-1, 1:-1] == 1
        assert np.array_equal(bright[inner], label[inner])
        met |= set(label[inner].tolist())
    assert met == {False, True}


def test_mirrored_twice_is_identity():
    image, target = pair()
    mirror = RandomMirror(1)
    once = mirror(image, target, rng(0))
    assert np.array_equal(np.asarray(once[0]), np.asarray(image)[:, ::-1])
    assert np.array_equal(np.asarray(once[1]), np.asarray(target)[:, ::-1])
    for twice, before in zip(mirror(*once, rng(1)), (image, target), strict=True):
        assert np.array_equal(np.asarray(twice), np.asarray(before))


@pytest.mark.parametrize("transform", [RandomMirror, RandomBlur])
def test_probability(transform):
    image, target = pair(8, 8)

    def changed(p: float) -> int:
        results = [transform(p)(image, target, rng(seed))[0] for seed in range(200)]
        return sum(not np.array_equal(np.asarray(result), np.asarray(image)) for result in results)

    assert changed(0) == 0
    always = changed(1)
    assert always > 130  # a blur of nearly no radius changes nothing
    assert 0.35 * always < changed(0.5) < 0.65 * always


def test_blur_leaves_the_target_alone_and_smooths_the_image():
    image, target = pair()
    blurred, same = RandomBlur(1)(image, target, rng(0))
    assert same is target
    assert blurred.size == image.size
    assert np.asarray(blurred, dtype=float).std() < np.asarray(image, dtype=float).std()


def test_blur_is_a_gaussian_of_at_most_one_pixel():
    point = np.zeros((15, 15, 3), np.uint8)
    point[7, 7] = 255
    _, target = pair(15, 15)
    rows = [RandomBlur(1)(Image.fromarray(point), target, rng(seed))[0] for seed in range(50)]
    spread = [values[:, 7, 0] / values[:, 7, 0].sum() for values in (np.asarray(row, float) for row in rows)]
    variances = [float(((np.arange(15) - 7) ** 2 * row).sum()) for row in spread]
    assert max(variances) == pytest.approx(1, abs=0.15) and min(variances) < 0.1


def test_compose_goes_in_order_with_one_generator():
    calls = []

    def step(name):
        return lambda image, target, rng: (calls.append((name, rng.integers(10**9))) or image, target)

    Compose([step("a"), step("b")])(*pair(), rng(5))
    first, second = rng(5).integers(10**9, size=2)
    assert calls == [("a", first), ("b", second)]


def test_transform_is_a_function_of_the_generator():
    transform = train_transform(base_size=48, crop_size=32, scale=(0.5, 2), mirror=0.5, blur=0.5)
    first, again, other = (transform(*pair(), rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(np.asarray(first[0]), np.asarray(again[0]))
    assert np.array_equal(np.asarray(first[1]), np.asarray(again[1]))
    assert not np.array_equal(np.asarray(first[0]), np.asarray(other[0]))


def test_normalize_by_hand():
    image = torch.tensor([[0, 255], [51, 102]], dtype=torch.uint8).expand(2, 3, 2, 2)
    normal = Normalize()(image)
    assert normal.dtype == torch.float32 and normal.shape == (2, 3, 2, 2)
    for channel, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        wanted = torch.tensor([[(0.0 - mean) / std, (1 - mean) / std], [(0.2 - mean) / std, (0.4 - mean) / std]])
        torch.testing.assert_close(normal[1, channel], wanted)


def test_normalize_with_other_figures_and_without_a_batch():
    image = torch.full((3, 1, 1), 51, dtype=torch.uint8)
    normal = Normalize(mean=(0, 0.1, 0.2), std=(1, 0.5, 0.2))(image)
    torch.testing.assert_close(normal.flatten(), torch.tensor([0.2, 0.2, 0.0]))


def test_photometric_distortion_changes_colours_and_nothing_else():
    image, target = pair()
    distort = PhotometricDistortion(1.0)
    changed, labels = distort(image, target, rng(0))
    assert labels is target and changed.size == image.size and changed.mode == "RGB"
    assert_same(distort(image, target, rng(0)), (changed, target))
    assert not np.array_equal(np.asarray(changed), np.asarray(image))
    assert PhotometricDistortion(0.0)(image, target, rng(0))[0] is image


def test_photometric_distortion_stays_within_its_limits():
    grey = Image.fromarray(np.full((2, 2, 3), 100, np.uint8))
    means = [np.asarray(PhotometricDistortion(1.0)(grey, grey, rng(seed))[0]).mean((0, 1)) for seed in range(300)]
    assert np.ptp(means, axis=1).max() <= 1  # grey has no colour to change
    assert 0.5 * 68 - 1 <= np.min(means) < 45 and 180 < np.max(means) <= 1.5 * 132 + 1
    red = Image.fromarray(np.full((2, 2, 3), (130, 80, 80), np.uint8))
    colours = [
        np.asarray(PhotometricDistortion(1.0)(red, red, rng(seed))[0].convert("HSV"))[0, 0] for seed in range(300)
    ]
    turns = (np.array(colours)[:, 0].astype(int) + 128) % 256 - 128
    assert -34 < turns.min() < -20 and 20 < turns.max() < 34  # 36 of 360 degrees are 25.6 of 256; pale hues are coarse


class Chosen:
    """A generator whose choices are given: which of the four changes, when contrast comes, and how much of each."""

    def __init__(self, changes: str, *amounts: float, early: bool = False):
        self.changes = [name in changes.split() for name in ("brightness", "contrast", "saturation", "hue")]
        self.early, self.amounts, self.asked = early, list(amounts), []

    def random(self, size: int | None = None) -> np.ndarray | float:
        return np.where(self.changes, 0.4, 0.5) if size else (0.4 if self.early else 0.5)

    def uniform(self, low: float, high: float) -> float:
        self.asked.append((low, high))
        return self.amounts.pop(0)


def distorted(color: tuple[int, int, int], rng: Chosen) -> list[int]:
    image = Image.new("RGB", (1, 1), color)
    changed = PhotometricDistortion(0.5)(image, image, rng)[0].getpixel((0, 0))
    assert not rng.amounts
    return list(changed)


@pytest.mark.parametrize("early", [True, False])
def test_brightness_and_contrast_by_hand(early):
    assert distorted((100, 50, 200), Chosen("", early=early)) == [100, 50, 200]
    assert distorted((100, 50, 200), Chosen("brightness", 20.4, early=early)) == [120, 70, 220]
    assert distorted((10, 0, 250), Chosen("brightness", -20, early=early)) == [0, 0, 230]
    assert distorted((100, 51, 200), Chosen("contrast", 1.5, early=early)) == [150, 76, 255]  # 76.5 to the even
    assert distorted((100, 50, 200), Chosen("brightness contrast", 20, 0.5, early=early)) == [60, 35, 110]


def test_colours_by_hand():
    assert distorted((200, 100, 100), Chosen("saturation", 0.5)) == pytest.approx([200, 150, 150], abs=2)
    assert distorted((200, 100, 100), Chosen("saturation", 1.5)) == pytest.approx([200, 50, 50], abs=2)
    assert distorted((255, 0, 0), Chosen("hue", 30)) == pytest.approx([255, 128, 0], abs=10)  # red to orange
    turned = distorted((255, 0, 0), Chosen("hue", -30))
    assert turned == pytest.approx([255, 0, 128], abs=10)  # below 0 it goes on at 360
    assert distorted((200, 100, 100), Chosen("saturation hue", 0.5, 30)) == pytest.approx([200, 175, 150], abs=4)


def test_contrast_comes_before_the_colours_or_after_them_but_once():
    assert distorted((255, 0, 0), Chosen("contrast saturation", 1.5, 0.5, early=True)) == pytest.approx(
        [255, 128, 128], abs=1
    )
    assert distorted((255, 0, 0), Chosen("contrast saturation", 0.5, 1.5)) == pytest.approx([255, 192, 192], abs=2)


def test_amounts_of_distortion_are_drawn_from_their_ranges():
    early = Chosen("brightness contrast saturation hue", 0, 1, 1, 0, early=True)
    late = Chosen("brightness contrast saturation hue", 0, 1, 0, 1)
    for chosen in (early, late):
        distorted((1, 2, 3), chosen)
    assert early.asked == [(-32, 32), (0.5, 1.5), (0.5, 1.5), (-36, 36)]
    assert late.asked == [(-32, 32), (0.5, 1.5), (-36, 36), (0.5, 1.5)]


def test_every_setting_reaches_its_transform():
    settings = {"base_size": 50, "crop_size": 32, "scale": (0.5, 3), "mirror": 0.1, "blur": 0.2}
    crop, mirror, blur = train_transform(**settings).transforms
    assert (crop.short_sides, crop.crop_size, crop.max_class_share, mirror.p, blur.p) == ((25, 150), 32, None, 0.1, 0.2)
    crop, *_, distortion = train_transform(**settings, max_class_share=0.7, photometric=0.4).transforms
    assert (crop.max_class_share, distortion.p) == (0.7, 0.4)


def test_both_are_parts_of_the_training_transform_and_off_by_default():
    image, target = pair()
    settings = {"base_size": 48, "crop_size": 32, "scale": (0.7, 1.5), "mirror": 0.5, "blur": 0.5}
    before = train_transform(**settings)(image, target, rng(1))
    off = train_transform(**settings, max_class_share=None, photometric=0.0)(image, target, rng(1))
    assert_same(before, off)
    on = train_transform(**settings, max_class_share=0.9, photometric=1.0)(image, target, rng(1))
    assert not np.array_equal(np.asarray(on[0]), np.asarray(before[0]))


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert np.array_equal(np.asarray(a), np.asarray(b))
