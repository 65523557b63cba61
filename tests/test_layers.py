"""Batch norm where a channel has one value only."""

import copy

import pytest
import torch
from torch import nn

from models import ICNet
from models.fold import fold_batch_norms
from models.layers import BatchNorm2d, ConvBNReLU


def norms(network):
    return [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def test_one_value_per_channel_is_normalised_by_the_running_statistics():
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
def test_otherwise_it_is_torchs(shape, training):
    ours, torchs = BatchNorm2d(shape[1]).train(training), nn.BatchNorm2d(shape[1]).train(training)
    x = torch.randn(shape)
    assert torch.equal(ours(x), torchs(x))
    assert all(torch.equal(a, b) for a, b in zip(ours.buffers(), torchs.buffers(), strict=True))


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50_v1s"])
def test_a_batch_of_one_at_the_smallest_crop_trains(backbone):
    """Of 32x32 pixels sub4 is left with one."""
    network = ICNet(3, backbone).train()
    before = copy.deepcopy(network.backbone.layer4.state_dict())
    outputs = network(torch.randn(1, 3, 32, 32))
    sum(logits.square().mean() for logits in outputs.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.backbone.layer4.state_dict().items())
    assert network.backbone.layer2[0].bn2.num_batches_tracked == 1  # sub2's, of 2x2 values; sub4's was one value


def test_the_networks_norms_are_all_of_that_kind_and_named_as_torchs():
    assert all(type(norm) is BatchNorm2d for norm in norms(ICNet(3, "resnet50_v1s")))
    assert list(BatchNorm2d(2).state_dict()) == list(nn.BatchNorm2d(2).state_dict())


def test_they_are_shared_between_processes_and_folded_as_torchs():
    network = ConvBNReLU(3, 4)
    assert isinstance(nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network)).bn, nn.SyncBatchNorm)
    assert not norms(fold_batch_norms(network))
