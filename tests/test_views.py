"""Test-time augmentation and sliding windows."""

import pytest
import torch
from torch.nn import functional as F

from models import ICNet
from models.layers import resize
from utils import config
from utils.inference.segmenter import PyTorchSegmenter
from utils.inference.views import MultiView, SlidingWindow, with_options

H, W = 64, 96


def wrap(segmenter, *, scales=(1.0,), flip=False, **options):
    """Wrap a segmenter with these keys of `test`."""
    return with_options(segmenter, config.TestConfig(tta=config.TtaConfig(scales=scales, flip=flip), **options))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return PyTorchSegmenter(ICNet(4, "resnet18").eval())


@pytest.fixture
def image():
    return torch.randint(0, 256, (2, 3, H, W), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


class PerPixel:
    """Scores at full size that depend on each pixel alone, and on nothing around it; notes the sizes it is given."""

    gives_scores, align_corners, runtime, precision = True, True, "PyTorch", "fp32"
    device = torch.device("cpu")

    def __init__(self):
        self.seen = []

    def scores(self, image):
        self.seen.append(tuple(image.shape[-2:]))
        return image.float() / 25

    def __call__(self, image):
        return self.scores(image).argmax(1).to(torch.uint8)


def test_without_options_nothing_is_wrapped(network):
    assert wrap(network) is network


def test_wrapped_segmenters_report_their_device_and_runtime():
    segmenter = PerPixel()
    segmenter.device = torch.device("meta")
    wrapped = wrap(segmenter, flip=True, window=32)
    assert (wrapped.device, wrapped.runtime, wrapped.precision) == (torch.device("meta"), "PyTorch", "fp32")


def test_one_view_gives_the_labels_of_the_network(network, image):
    one = MultiView(network, scales=(1.0,), flip=False)
    assert torch.equal(one(image), network(image))
    assert torch.equal(one.scores(image), network.scores(image))


def test_views_are_the_mean_of_their_probabilities(network, image):
    both = MultiView(network, scales=(1.0,), flip=True).scores(image)
    parts = [network.scores(image).softmax(1), network.scores(image.flip(-1)).flip(-1).softmax(1)]
    torch.testing.assert_close(both.exp(), sum(parts) / 2)


def test_mirrored_image_gives_mirrored_labels(network, image):
    views = MultiView(network, scales=(1.0, 0.5), flip=True)
    torch.testing.assert_close(views.scores(image.flip(-1)), views.scores(image).flip(-1), atol=1e-4, rtol=1e-4)


class Coarse(PerPixel):
    """Scores of every fourth pixel, upsampled with or without aligned corners."""

    def __init__(self, align_corners):
        super().__init__()
        self.align_corners = align_corners

    def scores(self, image):
        return super().scores(image[..., ::4, ::4])

    def resized(self, x, size):
        return F.interpolate(x.float(), size, mode="bilinear", align_corners=self.align_corners)


@pytest.mark.parametrize("align_corners", [True, False])
def test_views_are_shrunk_with_antialiasing_and_enlarged_as_by_the_network(image, align_corners):
    segment = Coarse(align_corners)
    half = F.interpolate(image, (H // 2, W // 2), mode="bilinear", antialias=True)
    small = segment.scores(half)
    mean = (segment.scores(image).softmax(1) + segment.resized(small, (H // 4, W // 4)).softmax(1)) / 2
    views = MultiView(segment, scales=(0.5, 1.0), flip=False)
    torch.testing.assert_close(views.scores(image).exp(), mean)
    labels = segment.resized(mean.log(), (H, W)).argmax(1)
    assert (views(image) == labels).float().mean() > 0.999
    window = SlidingWindow(segment, window=W, stride=W).scores(image)
    torch.testing.assert_close(window.exp(), segment.resized(segment.scores(image), (H, W)).softmax(1))


@pytest.mark.parametrize("side", [40, 100])
@pytest.mark.parametrize("align_corners", [True, False])
def test_pixels_are_resized_to_within_one_level(image, side, align_corners):
    segment = LabelsOnly()
    segment.align_corners = align_corners
    wrap(segment, short_side=side)(image)
    how = {"antialias": True} if side < H else {"align_corners": align_corners}
    expected = F.interpolate(image.float(), (side, round(W * side / H)), mode="bilinear", **how)
    assert (segment.image.float() - expected.round()).abs().max() <= 1


def test_images_are_shrunk_with_antialiasing():
    stripes = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    stripes[..., ::4] = 255  # finer than the pixels of the small image
    segment = LabelsOnly()
    wrap(segment, short_side=16)(stripes)
    inner = segment.image[..., 2:-2].float()
    assert segment.image.shape[-2:] == (16, 16) and inner.std() < 1 and abs(inner.mean() - 255 / 4) < 2


def test_scales_are_what_the_network_sees():
    segment = PerPixel()
    scores = MultiView(segment, scales=(0.5, 1.5), flip=False).scores(torch.zeros(1, 3, H, W, dtype=torch.uint8))
    assert sorted(segment.seen) == [(32, 48), (96, 144)]
    assert scores.shape == (1, 3, 96, 144)


def test_resized_views_lie_on_each_other(image):
    smooth = resize(image[:, :, ::16, ::16].float(), (H, W)).to(torch.uint8)
    segment = PerPixel()
    plain, views = segment(smooth), MultiView(segment, scales=(0.5, 1.0, 2.0), flip=True)(smooth)
    assert (plain == views).float().mean() > 0.97


@pytest.mark.parametrize(("window", "stride"), [(32, 32), (40, 16), (50, 33), (64, 1), (200, 100), (32, 31)])
def test_sliding_windows_do_not_change_a_per_pixel_network(image, window, stride):
    segment = PerPixel()
    slid = SlidingWindow(segment, window=window, stride=stride)
    assert torch.equal(slid(image), segment(image))
    torch.testing.assert_close(slid.scores(image), segment.scores(image).log_softmax(1), atol=1e-4, rtol=1e-4)
    assert set(segment.seen) <= {(min(window, H), min(window, W)), (H, W)}


def test_overlapping_windows_are_averaged():
    class Counting(PerPixel):
        """Says class 0 in its first call, class 1 in the next ones."""

        def scores(self, image):
            scores = torch.zeros(1, 2, *image.shape[-2:])
            scores[:, min(1, len(self.seen))] = 2.0
            self.seen.append(image.shape)
            return scores

    slid = SlidingWindow(Counting(), window=4, stride=2).scores(torch.zeros(1, 3, 4, 6, dtype=torch.uint8)).exp()
    high = torch.tensor(2.0).sigmoid()
    torch.testing.assert_close(slid[0, 0, 0], torch.stack([high, high, *[torch.tensor(0.5)] * 2, 1 - high, 1 - high]))


def test_a_window_of_the_whole_image_is_the_network(network, image):
    assert (SlidingWindow(network, window=96, stride=64)(image) == network(image)).float().mean() > 0.999


def test_windows_and_views_together(image):
    smooth, segment = resize(image[:, :, ::16, ::16].float(), (H, W)).to(torch.uint8), PerPixel()
    plain, wrapped = segment(smooth), wrap(segment, scales=(1.0, 0.75), flip=True, window=48)
    segment.seen.clear()
    assert (wrapped(smooth) == plain).float().mean() > 0.97
    assert set(segment.seen) == {(48, 48), (36, 36)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stride": 5}, "without test.window"),
        ({"stride": 50, "window": 40}, r"\(50\) is above test.window \(40\)"),
    ],
)
def test_options_that_do_not_go_together(options, words):
    with pytest.raises(ValueError, match=words):
        wrap(PerPixel(), **options)


@pytest.mark.parametrize("size", [(20, 30), (40, 60), (60, 40)])
def test_the_short_side_is_what_the_network_sees(size):
    segment = PerPixel()
    image = torch.zeros(1, 3, *size, dtype=torch.uint8)
    labels = wrap(segment, short_side=40, scales=(0.5, 1.0))(image)
    upright = size[0] > size[1]
    assert segment.seen == ([(60, 40), (30, 20)] if upright else [(40, 60), (20, 30)])
    assert labels.shape == (1, *size)


class LabelsOnly:
    """A segmenter that gives label maps only, as some ONNX files; the labels are the red of its images."""

    gives_scores, align_corners, runtime, precision = False, True, "PyTorch", "fp32"
    device = torch.device("cpu")

    def __call__(self, image):
        self.image, self.size = image, image.shape[-2:]
        return image[:, 0]

    def scores(self, image):
        raise ValueError("label maps only")


def test_label_maps_are_resized_back_by_nearest_neighbour():
    segment = LabelsOnly()
    image = torch.zeros(1, 3, 40, 60, dtype=torch.uint8)
    image[..., :30] = 5
    resized = wrap(segment, short_side=80)
    labels = resized(image)
    assert segment.size == (80, 120) and not resized.gives_scores
    assert labels.shape == (1, 40, 60) and labels.dtype == torch.uint8
    assert (labels[..., :29] == 5).all() and (labels[..., 31:] == 0).all()


@pytest.mark.parametrize("options", [{"flip": True}, {"scales": (1.0, 2.0)}, {"window": 32}])
def test_label_maps_alone_cannot_be_averaged(options):
    with pytest.raises(ValueError, match="--output logits"):
        wrap(LabelsOnly(), **options)


def test_images_already_at_the_short_side_are_not_resized(network, image):
    assert torch.equal(wrap(network, short_side=H)(image), network(image))


def test_windows_refuse_resized_images(network):
    with pytest.raises(ValueError, match=r"test\.window is for images at their own size"):
        wrap(network, window=32, short_side=40)


# --- as the paper's release evaluates


def test_input_size_is_exact_and_not_aligned(image):
    network = PerPixel()
    labels = wrap(network, input_size=(65, 101))(image)
    assert network.seen == [(65, 101)] and labels.shape == (2, H, W)
    network.seen.clear()
    wrap(network, input_size=(65, 101), scales=(1.0, 0.5), flip=True)(image)
    assert network.seen == [(65, 101)] * 2 + [(32, 50)] * 2
    column = torch.tensor([0, 100], dtype=torch.uint8).view(1, 1, 2, 1).expand(1, 3, 2, 32)
    scores = MultiView(network, scales=(1.0,), flip=False, input_size=(4, 32)).scores(column)
    torch.testing.assert_close(scores, (torch.tensor([0.0, 25, 75, 100]) / 25).view(4, 1).expand(1, 3, 4, 32))


def test_probabilities_resized_are_not_logits_resized(network, image):
    wrapped = wrap(network, input_size=(65, 97), resize_probabilities=True)
    view = F.interpolate(image.float(), (65, 97), mode="bilinear").round().to(torch.uint8)
    probabilities = resize(network.scores(view), (65, 97)).softmax(1)
    expected = F.interpolate(probabilities, (H, W), mode="bilinear", antialias=True)
    torch.testing.assert_close(wrapped.scores(image).exp(), expected)
    assert (wrapped(image) == expected.argmax(1)).float().mean() > 0.999


def test_an_input_size_and_windows_exclude_each_other(network):
    with pytest.raises(ValueError, match=r"test\.input_size \(\[65, 97\], possibly .*; set test\.short_side=0"):
        wrap(network, input_size=(65, 97), window=32)


def test_stride_is_the_configured_one(network):
    assert wrap(network, window=48).stride == 32 and wrap(network, window=48, stride=20).stride == 20


def test_label_maps_are_resized_back_in_the_alignment_of_the_network():
    class Columns(LabelsOnly):
        align_corners = False

        def __call__(self, image):
            return torch.arange(image.shape[-1], dtype=torch.uint8).expand(1, *image.shape[-2:])

    labels = wrap(Columns(), short_side=80)(torch.zeros(1, 3, 40, 60, dtype=torch.uint8))
    assert labels[0, 0].tolist() == list(range(1, 120, 2))  # pixel 2 n + 1 of 120


@pytest.mark.parametrize("align_corners", [True, False])
def test_probabilities_come_from_logits_in_the_alignment_of_the_network(image, align_corners):
    segment = Coarse(align_corners)
    expected = segment.resized(segment.scores(image), (H, W)).softmax(1)
    torch.testing.assert_close(wrap(segment, resize_probabilities=True).scores(image).exp(), expected)


def test_a_probability_of_zero_has_a_finite_score(image):
    class Certain(PerPixel):
        def scores(self, image):
            return 25 * super().scores(image)  # up to 255 apart

    assert MultiView(Certain(), scales=(1.0,), flip=True).scores(image).isfinite().all()
    assert SlidingWindow(Certain(), window=32, stride=16).scores(image).isfinite().all()
