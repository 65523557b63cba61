"""One step of training, and what its options change."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from dataset.transforms import Normalize
from models import ICNet
from utils import runtime
from utils.config import OptimizerConfig
from utils.engine import train_one_epoch
from utils.loss import CascadeLoss
from utils.optim import build_optimizer, build_scheduler, running_mean
from utils.weights.pretrained import freeze

CPU = torch.device("cpu")
PLAIN = OptimizerConfig(weight_decay=0)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ICNet(3, "resnet18")


def batch(size=2):
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (size, 3, 64, 64), dtype=torch.uint8, generator=generator)
    return {"image": image, "target": torch.randint(0, 3, (size, 64, 64), dtype=torch.uint8, generator=generator)}


def step(network, *batches, config=PLAIN, precision="fp32", **options):
    """Train a copy on the batches; return it and the losses of each step."""
    network = copy.deepcopy(network)
    optimizer, losses = build_optimizer(network, config), []
    train_one_epoch(
        network,
        batches,
        criterion=CascadeLoss(),
        normalize=Normalize(),
        optimizer=optimizer,
        scheduler=build_scheduler(optimizer, config, iterations=100),
        device=CPU,
        scaler=runtime.gradient_scaler(CPU, precision),
        precision=precision,
        on_step=losses.append,
        **options,
    )
    return network, losses


def change(trained, network):
    """How far the weights moved, all together."""
    pairs = zip(trained.parameters(), network.parameters(), strict=True)
    return torch.stack([(a - b).detach().norm() for a, b in pairs]).norm().item()


@pytest.mark.parametrize(("size", "accumulate"), [(4, 2), (3, 2), (2, 4)])  # two and two, two and one, one and one
def test_accumulated_parts_make_the_step_of_the_whole_batch(network, size, accumulate):
    whole, losses = step(network, batch(size), freeze_bn=True)
    parts, part_losses = step(network, batch(size), freeze_bn=True, accumulate=accumulate)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert part_losses[0]["loss"].item() == pytest.approx(losses[0]["loss"].item(), rel=1e-5)


def test_clipping_limits_the_gradients_to_the_norm(network):
    config = OptimizerConfig(weight_decay=0, sub1_lr_factor=1, head_lr_factor=1)
    clipped, _ = step(network, batch(), config=config, clip=0.01)
    assert change(clipped, network) == pytest.approx(0.01 * config.init_lr, rel=1e-3)
    plain, _ = step(network, batch(), config=config)
    assert change(plain, network) > 2 * change(clipped, network)


def test_bf16_computes_in_bf16_and_keeps_the_weights_in_fp32(network):
    seen = []
    hook = network.sub1[0].conv.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    trained, losses = step(network, batch(), precision="bf16")
    _, plain_losses = step(network, batch())
    hook.remove()
    assert seen == [torch.bfloat16, torch.float32]
    assert {p.dtype for p in trained.parameters()} == {torch.float32}
    assert losses[0]["loss"].dtype == torch.float32
    assert losses[0]["loss"].item() == pytest.approx(plain_losses[0]["loss"].item(), rel=0.02)


SKIPPED = "ignore:Detected call of .lr_scheduler.step"  # torch's concern, which a fused optimiser (CUDA) does not raise


@pytest.mark.filterwarnings(SKIPPED)
def test_fp16_skips_a_step_whose_gradients_are_not_finite(network):
    network.classifier.weight.data[0, 0] = torch.inf
    trained, _ = step(network, batch(), precision="fp16")
    assert torch.equal(trained.sub1[0].conv.weight, network.sub1[0].conv.weight)
    assert all(p.isfinite().all() for name, p in trained.named_parameters() if name != "classifier.weight")


@pytest.mark.filterwarnings(SKIPPED)
def test_the_schedule_counts_skipped_steps_too():
    network = nn.Conv2d(3, 2, 1)
    before, optimizer = copy.deepcopy(network), torch.optim.SGD(network.parameters(), lr=0.8)
    scheduler = build_scheduler(optimizer, OptimizerConfig(power=1), iterations=4)
    train_one_epoch(
        network,
        [batch()] * 3,
        criterion=lambda logits, target: {"loss": logits.float().sum() * torch.inf},
        normalize=Normalize(),
        optimizer=optimizer,
        scheduler=scheduler,
        device=CPU,
        scaler=runtime.gradient_scaler(CPU, "fp16"),
        precision="fp16",
    )
    assert change(network, before) == 0
    assert scheduler.get_last_lr() == pytest.approx([0.8 * (1 - 3 / 4)])


def test_frozen_batch_norms_keep_their_statistics(network):
    trained, _ = step(network, batch(), freeze_bn=True)
    assert torch.equal(trained.backbone.bn1.running_mean, network.backbone.bn1.running_mean)
    moving, _ = step(network, batch())
    assert not torch.equal(moving.backbone.bn1.running_mean, network.backbone.bn1.running_mean)


def test_frozen_parts_stay_as_they_are_statistics_too(network):
    freeze(network, ["backbone"])
    trained, _ = step(network, batch())
    before, after = network.state_dict(), trained.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("backbone."))
    assert not torch.equal(after["sub1.0.conv.weight"], before["sub1.0.conv.weight"])


def test_freezing_names_what_there_is(network):
    with pytest.raises(ValueError, match=r"no part 'backbon'; there are backbone, backbone\.conv1, .*sub1"):
        freeze(network, ["backbon"])
    with pytest.raises(ValueError, match="leaves nothing to train"):
        freeze(network, ["backbone", "sub1", "cff_24", "cff_12", "classifier"])


def test_a_batch_that_is_all_ignored_changes_nothing(network):
    ignored = batch() | {"target": torch.full((2, 64, 64), 255, dtype=torch.uint8)}
    trained, losses = step(network, ignored)
    assert losses[0]["loss"].item() == 0
    assert change(trained, network) == 0


def test_running_mean_by_hand():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    mean = running_mean(model, 0.5)
    values = []
    for value in (8.0, 4.0, 0.0, 0.0, 0.0):
        model.weight.data.fill_(value)
        mean.update_parameters(model)
        values.append(mean.module.weight.item())
    assert values[:2] == pytest.approx([8, 8 * 2 / 11 + 4 * 9 / 11])  # taken over; decay (1 + 1) / (10 + 1)
    assert [b / a for a, b in pairwise(values[1:])] == pytest.approx([3 / 12, 4 / 13, 5 / 14])  # until 0.5 is reached
