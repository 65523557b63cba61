import pytest
import torch
from torch.nn import functional as F

from models import ICNet
from models.layers import resize
from models.pyramid import LearnedPyramidPooling, PyramidPooling, pool
from tests.networks import with_statistics


def test_pooling_of_a_constant_is_five_times_the_constant():
    x = torch.full((1, 2, 7, 9), 3.0)
    torch.testing.assert_close(PyramidPooling()(x), torch.full_like(x, 15.0))


@pytest.mark.parametrize("size", [(7, 10), (6, 6), (1, 3)])
def test_pooling_is_adaptive_average_pooling(size):
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(pool(x), [F.adaptive_avg_pool2d(x, n) for n in (1, 2, 3, 6)])


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(7, 10), (1, 4), (64, 128)])
def test_pooling_adds_the_resized_means_of_all_bins(align_corners, size):
    x = torch.randn(2, 3, *size)
    means = [F.adaptive_avg_pool2d(x, n) for n in (1, 2, 3, 6)]
    added = [F.interpolate(mean, size, mode="bilinear", align_corners=align_corners) for mean in means]
    torch.testing.assert_close(PyramidPooling(align_corners=align_corners)(x), x + sum(added))


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 5), (12, 20)])
def test_learned_pooling_equals_the_conv_of_the_concatenation(align_corners, size):
    module = with_statistics(LearnedPyramidPooling(8, align_corners=align_corners))
    x = torch.randn(2, 8, *size)
    branches = zip(pool(x), module.branches, strict=True)
    parts = [resize(branch(means), size, align_corners=align_corners) for means, branch in branches]
    torch.testing.assert_close(module(x), module.bottleneck(torch.cat([*parts, x], 1)), rtol=1e-4, atol=1e-5)


def test_learned_pooling_trains_on_a_single_image():
    """Its single bin has one value per channel, see `models.layers.BatchNorm2d`."""
    network = ICNet(4, "resnet18", variant="psp").train()
    network(torch.randn(1, 3, 64, 64))["out"].sum().backward()
    assert all(p.grad.isfinite().all() for p in network.pyramid_pooling.branches.parameters())
