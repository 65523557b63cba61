import pytest
import torch
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from models import ICNet
from tests import published
from utils.config import OptimizerConfig
from utils.optim import build_optimizer, build_scheduler


def rates(optimizer):
    return {group["name"]: group["lr"] for group in optimizer.param_groups}


def test_every_parameter_is_in_the_group_of_its_branch():
    network = ICNet(19, "resnet18")
    optimizer = build_optimizer(network, OptimizerConfig())
    assert rates(optimizer) == {"backbone": 0.01, "sub1": 0.1, "head": 0.1}
    grouped = {g["name"]: {id(p) for p in g["params"]} for g in optimizer.param_groups}
    assert sum(map(len, grouped.values())) == len(list(network.parameters()))
    for name, parameter in network.named_parameters():
        branch = name.partition(".")[0]
        assert id(parameter) in grouped[branch if branch in ("backbone", "sub1") else "head"], name
    assert all(g["momentum"] == 0.9 and g["weight_decay"] == 1e-4 for g in optimizer.param_groups)


def test_each_branch_has_its_own_factor():
    config = OptimizerConfig(init_lr=0.02, backbone_lr_factor=0.5, sub1_lr_factor=3.0, head_lr_factor=4.0)
    assert rates(build_optimizer(ICNet(2, "resnet18"), config)) == {"backbone": 0.01, "sub1": 0.06, "head": 0.08}


def test_a_torchvision_network_has_a_backbone_and_a_head():
    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=2)
    assert rates(build_optimizer(network, OptimizerConfig())) == {"backbone": 0.01, "head": 0.1}


def test_poly_decay_is_the_published_one():
    network = torch.nn.ModuleDict({"backbone": torch.nn.Linear(1, 1), "classifier": torch.nn.Linear(1, 1)})
    optimizer = build_optimizer(network, OptimizerConfig())
    scheduler = build_scheduler(optimizer, OptimizerConfig(), iterations=1000)
    expected = {int(row[0]): row[1:] for row in published.numbers()["poly_lr"]}
    for iteration in range(1, 1001):
        optimizer.step()
        scheduler.step()
        if iteration in expected:
            assert list(rates(optimizer).values()) == pytest.approx(list(expected.pop(iteration)), rel=1e-9)
    assert not expected
    assert list(rates(optimizer).values()) == [0, 0]


def test_poly_decay_ends_at_the_lowest_rate():
    config = OptimizerConfig(
        init_lr=0.01, backbone_lr_factor=0.0, sub1_lr_factor=0.005, head_lr_factor=2.0, min_lr=1e-4
    )
    optimizer = build_optimizer(ICNet(2, "resnet18"), config)
    scheduler = build_scheduler(optimizer, config, iterations=4)
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    middle = 1e-4 + (0.02 - 1e-4) * 0.5**0.9
    assert rates(optimizer) == pytest.approx({"backbone": 0, "sub1": 5e-5, "head": middle})
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    assert rates(optimizer) == pytest.approx({"backbone": 0, "sub1": 5e-5, "head": 1e-4})  # none rises
