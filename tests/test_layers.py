import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models import ICNet
from models.layers import (
    BatchNorm2d,
    Classifier,
    conv_of_resized,
    resize,
    resize_target,
    shrink,
)


def norms(network):
    return [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


# --- batch norm


def test_single_value_per_channel_is_normalised_by_running_statistics():
    norm = BatchNorm2d(2, eps=0.0)
    norm.running_mean.copy_(torch.tensor([1.0, 2.0]))
    norm.running_var.copy_(torch.tensor([4.0, 9.0]))
    norm.weight.data.copy_(torch.tensor([1.0, 10.0]))
    before = copy.deepcopy(norm.state_dict())
    out = norm.train()(torch.tensor([5.0, 5.0]).view(1, 2, 1, 1))
    assert out.flatten().tolist() == pytest.approx([(5 - 1) / 2, 10 * (5 - 2) / 3])
    assert all(torch.equal(tensor, before[name]) for name, tensor in norm.state_dict().items())
    out.sum().backward()
    assert norm.weight.grad.tolist() == [2, 1] and norm.bias.grad.tolist() == [1, 1]


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (1, 3, 1, 2), (1, 3, 2, 1), (1, 1, 2, 2)])
@pytest.mark.parametrize("training", [True, False])
def test_otherwise_batch_norm_is_torchs(shape, training):
    ours, torchs = BatchNorm2d(shape[1]).train(training), nn.BatchNorm2d(shape[1]).train(training)
    x = torch.randn(shape)
    assert torch.equal(ours(x), torchs(x))
    assert all(torch.equal(a, b) for a, b in zip(ours.buffers(), torchs.buffers(), strict=True))


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50_v1s"])
def test_network_trains_on_one_image_of_the_smallest_size(backbone):
    """Of 32x32 pixels, sub4 is left with one."""
    network = ICNet(3, backbone).train()
    before = copy.deepcopy(network.backbone.layer4.state_dict())
    outputs = network(torch.randn(1, 3, 32, 32))
    sum(logits.square().mean() for logits in outputs.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.backbone.layer4.state_dict().items())
    assert network.backbone.layer2[0].bn2.num_batches_tracked == 1  # only in sub2, of 2x2 values


def test_all_norms_of_the_network_are_ours_with_torchs_names():
    with torch.device("meta"):
        assert all(type(norm) is BatchNorm2d for norm in norms(ICNet(3, "resnet50_v1s")))
    assert list(BatchNorm2d(2).state_dict()) == list(nn.BatchNorm2d(2).state_dict())


# --- resizing


def test_labels_are_resized_by_nearest_neighbour_only():
    target = torch.tensor([[[0, 0, 2, 2, 255]] * 5], dtype=torch.uint8)
    small = resize_target(target, (2, 3))
    assert small.dtype == torch.uint8
    assert small.tolist() == [[[0, 2, 255]] * 2]  # columns 0, 2 and 4
    target = torch.randint(0, 19, (2, 60, 90), dtype=torch.uint8)
    target[target == 7] = 255
    assert set(resize_target(target, (13, 17)).unique().tolist()) <= set(target.unique().tolist())
    assert torch.equal(resize_target(target, (60, 90)), target)


def test_labels_are_resized_in_the_alignment_of_logits():
    ramp = torch.arange(97, dtype=torch.uint8)[None, None].expand(1, 9, 97)
    assert resize_target(ramp, (3, 25))[0, 0].tolist() == list(range(0, 97, 4))
    row = torch.arange(6, dtype=torch.uint8).view(1, 1, 6)
    assert resize_target(row, (1, 2)).tolist() == [[[0, 5]]]
    assert resize_target(row, (1, 2), align_corners=False).tolist() == [[[1, 4]]]
    assert torch.equal(resize_target(row, (1, 6), align_corners=False), row)


def test_shrinking_without_aligned_corners_averages_blocks_and_drops_the_remainder():
    x = torch.arange(15.0).view(1, 1, 3, 5)
    assert shrink(x, 2, align_corners=False).tolist() == [[[[3, 5]]]]  # (0 + 1 + 5 + 6) / 4, (2 + 3 + 7 + 8) / 4
    assert torch.equal(shrink(x, 2), resize(x, (1, 2)))


# --- convolutions of resized maps


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("small", "large"),
    [((1, 1), (2, 3)), ((3, 5), (6, 10)), ((4, 4), (7, 9)), ((3, 2), (3, 5)), ((5, 3), (5, 3)), ((6, 6), (2, 1))],
)
@pytest.mark.parametrize("dilation", [1, 2])
def test_conv_of_a_resized_map_equals_resizing_before_the_conv(dilation, small, large, align_corners):
    x = torch.randn(2, 5, *small, dtype=torch.double, requires_grad=True)
    weight = torch.randn(4, 5, 3, 3, dtype=torch.double, requires_grad=True)
    ours = conv_of_resized(x, weight, large, dilation=dilation, align_corners=align_corners)
    resized = resize(x, large, align_corners=align_corners)
    plain = F.conv2d(resized, weight, padding=dilation, dilation=dilation)
    torch.testing.assert_close(ours, plain)
    gradients = [torch.autograd.grad(y.square().sum(), (x, weight), retain_graph=True) for y in (ours, plain)]
    torch.testing.assert_close(*gradients)


def test_dropout_drops_whole_channels():
    classifier = Classifier(8, 3, dropout=0.5).train()
    logits = classifier(torch.ones(1, 8, 5, 7))
    torch.testing.assert_close(logits, logits[..., :1, :1].expand_as(logits))
    assert not torch.equal(logits, classifier(torch.ones(1, 8, 5, 7)))
