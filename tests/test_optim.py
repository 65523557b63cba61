from itertools import pairwise

import pytest
import torch
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from models import ICNet
from tests import published
from utils.config import OptimizerConfig
from utils.optim import WeightEMA, build_optimizer, build_scheduler


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


def test_torchvision_networks_have_a_backbone_and_a_head():
    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=2)
    assert rates(build_optimizer(network, OptimizerConfig())) == {"backbone": 0.01, "head": 0.1}


def test_frozen_parameters_are_in_no_group():
    network = torch.nn.ModuleDict({name: torch.nn.Linear(2, 3) for name in ("a", "backbone", "c")})
    network["a"].bias.requires_grad_(False)
    backbone, head = build_optimizer(network, OptimizerConfig()).param_groups
    assert list(map(id, backbone["params"])) == [id(network["backbone"].weight), id(network["backbone"].bias)]
    expected = [id(network["a"].weight), id(network["c"].weight), id(network["c"].bias)]
    assert list(map(id, head["params"])) == expected


def test_without_decay_all_norms_and_biases_have_no_weight_decay():
    network = ICNet(2, "resnet18", variant="psp")
    optimizer = build_optimizer(network, OptimizerConfig(decay_all=False, weight_decay=0.01))
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert list(groups) == ["backbone", "backbone_1d", "sub1", "sub1_1d", "head", "head_1d"]
    for name, group in groups.items():
        assert {parameter.ndim for parameter in group["params"]} == ({1} if name.endswith("_1d") else {4})
        assert group["weight_decay"] == (0 if name.endswith("_1d") else 0.01)
        assert group["lr"] == (0.01 if name.startswith("backbone") else 0.1)
    assert sum(len(group["params"]) for group in groups.values()) == len(list(network.parameters()))


def test_poly_decay_equals_the_published_one():
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


def test_poly_decay_ends_at_min_lr():
    config = OptimizerConfig(
        init_lr=0.01, backbone_lr_factor=0.0, sub1_lr_factor=0.005, head_lr_factor=2.0, min_lr=1e-4
    )
    network = torch.nn.ModuleDict({name: torch.nn.Linear(1, 1) for name in ("backbone", "sub1", "classifier")})
    optimizer = build_optimizer(network, config)
    scheduler = build_scheduler(optimizer, config, iterations=4)
    middle = 1e-4 + (0.02 - 1e-4) * 0.5**0.9
    for head in (middle, 1e-4):
        for _ in range(2):
            optimizer.step()
            scheduler.step()
        assert rates(optimizer) == pytest.approx({"backbone": 0, "sub1": 5e-5, "head": head})  # none increases


def test_linear_warmup_precedes_the_decay():
    config = OptimizerConfig(warmup_iters=3, power=2, min_lr=0.001)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    scheduler = build_scheduler(optimizer, config, iterations=5)
    seen = []
    for _ in range(7):
        seen += scheduler.get_last_lr()
        optimizer.step()
        scheduler.step()
    poly = [0.001 + 0.009 * share**2 for share in (1, 0.8, 0.6, 0.4, 0.2, 0, 0)]  # constant after the end
    warmup = (1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 1)
    assert seen == pytest.approx([rate * factor for rate, factor in zip(poly, warmup, strict=True)])


def test_ema_decay_warms_up():
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    ema = WeightEMA(model, 0.5)
    values = []
    for value in (8.0, 4.0, *[0.0] * 10):
        model.weight.data.fill_(value)
        ema.update(model)
        values.append(ema.module.weight.item())
    assert values[:2] == pytest.approx([8, 8 * 2 / 11 + 4 * 9 / 11])  # copied; decay (1 + 1) / (10 + 1)
    decays = [b / a for a, b in pairwise(values[1:])]
    assert decays == pytest.approx([min(0.5, (1 + n) / (10 + n)) for n in range(2, 12)])
    assert decays[-1] == pytest.approx(0.5)


def test_ema_equals_torch_averaged_model():
    def average(means, values, updates):
        torch._foreach_lerp_(means, values, (1 - ((1 + updates) / (10 + updates)).clamp(max=0.3)).item())

    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.Linear(5, 7))
    ema, reference = WeightEMA(model, 0.3), torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=average)
    for _ in range(9):
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)
        ema.update(model)
        reference.update_parameters(model)
    for ours, theirs in zip(ema.module.parameters(), reference.module.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_ema_includes_batch_norm_statistics():
    model = torch.nn.BatchNorm2d(1)
    ema = WeightEMA(model, 0.5)
    assert ema.module is not model and ema.module.weight is not model.weight
    for step, value in enumerate((8.0, 4.0), start=1):
        model.weight.data.fill_(value)
        model.running_var.fill_(10 * value)
        model.num_batches_tracked.fill_(step)
        ema.update(model)
    expected = 4 + (8 - 4) * 2 / 11
    assert ema.module.weight.item() == pytest.approx(expected)
    assert ema.module.running_var.item() == pytest.approx(10 * expected)
    assert ema.module.num_batches_tracked.item() == 2  # counters are copied


def test_a_step_that_the_scaler_skips_leaves_no_trace_in_the_momentum():
    network = torch.nn.ModuleDict({"head": torch.nn.Linear(40, 50)})
    optimizer = build_optimizer(network, OptimizerConfig(weight_decay=0.0, momentum=0.5))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.zeros(1))
    before = network["head"].weight.detach().clone()
    for gradient in (torch.inf, 1.0, 1.0):
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, gradient * scaler.get_scale())
        scaler.step(optimizer)
        scaler.update()
    lr = optimizer.param_groups[0]["lr"]
    torch.testing.assert_close(network["head"].weight.detach(), before - lr * (1 + 1.5))


@pytest.mark.parametrize("iterations", [1, 5])
def test_a_warm_up_as_long_as_the_run_is_refused(iterations):
    optimizer, config = torch.optim.SGD([torch.zeros(1)], lr=0.1), OptimizerConfig(warmup_iters=5)
    with pytest.raises(ValueError, match=rf"warmup_iters=5 is not below the {iterations} iterations"):
        build_scheduler(optimizer, config, iterations=iterations)
    build_scheduler(optimizer, config, iterations=6)
