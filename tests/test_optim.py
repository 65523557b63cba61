import pytest
import torch
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from models import ICNet
from tests import published
from utils.config import OptimizerConfig
from utils.optim import build_optimizer, build_scheduler, parameter_groups, running_mean


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


def test_without_decay_of_all_norms_and_biases_have_none():
    network = ICNet(2, "resnet18", variant="psp")
    optimizer = build_optimizer(network, OptimizerConfig(decay_all=False, weight_decay=0.01))
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert list(groups) == ["backbone", "backbone_1d", "sub1", "sub1_1d", "head", "head_1d"]
    for name, group in groups.items():
        assert {parameter.ndim for parameter in group["params"]} == ({1} if name.endswith("_1d") else {4})
        assert group["weight_decay"] == (0 if name.endswith("_1d") else 0.01)
        assert group["lr"] == (0.01 if name.startswith("backbone") else 0.1)
    assert sum(len(group["params"]) for group in groups.values()) == len(list(network.parameters()))


def test_groups_by_hand():
    network = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 3), "b": torch.nn.Linear(2, 3), "c": torch.nn.Linear(2, 3)})
    network["a"].bias.requires_grad_(False)
    groups = parameter_groups(network, lr=2.0, factors={"b": 0.5, "unknown": 1.0, "head": 3.0}, weight_decay=0.1)
    assert [(group["name"], group["lr"], group["weight_decay"]) for group in groups] == [
        ("b", 1, 0.1),
        ("head", 6, 0.1),
    ]
    assert [list(map(id, group["params"])) for group in groups] == [
        [id(network["b"].weight), id(network["b"].bias)],
        [id(network["a"].weight), id(network["c"].weight), id(network["c"].bias)],  # what is frozen is in none
    ]
    apart = parameter_groups(network, lr=2.0, factors={"b": 0.5, "head": 3.0}, weight_decay=0.1, decay_all=False)
    assert [(group["name"], group["weight_decay"], {p.ndim for p in group["params"]}) for group in apart] == [
        ("b", 0.1, {2}),
        ("b_1d", 0, {1}),
        ("head", 0.1, {2}),
        ("head_1d", 0, {1}),
    ]


def test_the_rate_rises_before_it_falls():
    config = OptimizerConfig(warmup_iters=3, power=2, min_lr=0.001)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    scheduler = build_scheduler(optimizer, config, iterations=5)
    seen = []
    for _ in range(7):
        seen += scheduler.get_last_lr()
        optimizer.step()
        scheduler.step()
    poly = [0.001 + 0.009 * share**2 for share in (1, 0.8, 0.6, 0.4, 0.2, 0, 0)]  # and stays there after the end
    assert seen == pytest.approx(
        [rate * warm for rate, warm in zip(poly, (1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 1), strict=True)]
    )


def test_running_mean_of_weights_and_statistics():
    model = torch.nn.BatchNorm2d(1)
    mean = running_mean(model, 0.5)
    assert mean.module is not model and mean.module.weight is not model.weight
    for step, value in enumerate((8.0, 4.0), start=1):
        model.weight.data.fill_(value)
        model.running_var.fill_(10 * value)
        model.num_batches_tracked.fill_(step)
        mean.update_parameters(model)
    expected = 4 + (8 - 4) * 2 / 11
    assert mean.module.weight.item() == pytest.approx(expected)
    assert mean.module.running_var.item() == pytest.approx(10 * expected)
    assert mean.module.num_batches_tracked.item() == 2  # a number is taken over
