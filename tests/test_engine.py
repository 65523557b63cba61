"""Training steps, and the options of `train_one_epoch`."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from dataset.labels import IGNORE_INDEX
from dataset.transforms import Normalize
from models import ICNet
from tests.conftest import CPU
from utils import distributed, runtime
from utils.config import OptimizerConfig
from utils.engine import micro_batch_weights, train_mode, train_one_epoch
from utils.loss import CascadeLoss
from utils.optim import build_optimizer, build_scheduler
from utils.weights.pretrained import freeze

PLAIN = OptimizerConfig(weight_decay=0)


@pytest.fixture
def network():
    return ICNet(3, "resnet18", width=0.25)


def batch(size=2):
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (size, 3, 64, 64), dtype=torch.uint8, generator=generator)
    return {"image": image, "target": torch.randint(0, 3, (size, 64, 64), dtype=torch.uint8, generator=generator)}


def step(network, *batches, config=PLAIN, precision="fp32", **options):
    """Train a copy on the batches; return it and the losses of each iteration."""
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
    """Norm of the difference between the weights."""
    pairs = zip(trained.parameters(), network.parameters(), strict=True)
    return torch.stack([(a - b).detach().norm() for a, b in pairs]).norm().item()


@pytest.mark.parametrize(("size", "accumulate"), [(4, 2), (3, 2), (2, 4)])  # micro-batches of 2 and 2, 2 and 1, 1 and 1
def test_gradient_accumulation_takes_the_step_of_the_whole_batch(network, size, accumulate):
    whole, losses = step(network, batch(size), freeze_bn=True)
    parts, part_losses = step(network, batch(size), freeze_bn=True, accumulate=accumulate)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert part_losses[0]["loss"].item() == pytest.approx(losses[0]["loss"].item(), rel=1e-5)


def test_micro_batches_are_as_many_and_as_equal_as_possible(network):
    sizes = []
    network.sub1.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    for size, accumulate in ((7, 3), (6, 4), (2, 4)):
        step(network, batch(size), accumulate=accumulate)
    assert sizes == [3, 2, 2, 2, 2, 1, 1, 1, 1]


@pytest.mark.parametrize("labelled", [3, 0])
def test_micro_batches_are_weighted_by_their_labelled_pixels(labelled):
    network, uneven = nn.Conv2d(3, 3, 1), batch()
    uneven["target"][1].view(-1)[labelled:] = IGNORE_INDEX
    optimizer = torch.optim.SGD(network.parameters(), lr=0)
    gradients, losses = {}, {}
    for accumulate in (1, 2):
        train_one_epoch(
            network,
            [uneven],
            criterion=lambda logits, target: CascadeLoss()({"out": logits}, target),
            normalize=Normalize(),
            optimizer=optimizer,
            scheduler=build_scheduler(optimizer, PLAIN, iterations=1),
            device=CPU,
            scaler=runtime.gradient_scaler(CPU, "fp32"),
            accumulate=accumulate,
            on_step=lambda step_losses, key=accumulate: losses.update({key: step_losses["loss"].item()}),
        )
        gradients[accumulate] = network.weight.grad
    assert torch.allclose(gradients[1], gradients[2], rtol=1e-5, atol=1e-7)
    assert losses[1] == pytest.approx(losses[2], rel=1e-6)


def test_the_weights_of_micro_batches_count_the_pixels_of_all_processes(monkeypatch):
    monkeypatch.setattr(distributed, "sum_over_processes", lambda labelled: labelled.add_(torch.tensor([10, 2])))
    targets = [torch.tensor([0, 1, 255]), torch.tensor([255, 255, 0])]
    assert micro_batch_weights(targets).tolist() == pytest.approx([12 / 15, 3 / 15])
    assert micro_batch_weights(targets[:1]).tolist() == [1]


def test_clipping_limits_the_gradient_norm(network):
    config = OptimizerConfig(weight_decay=0, sub1_lr_factor=1, head_lr_factor=1)
    clipped, _ = step(network, batch(), config=config, clip=0.01)
    assert change(clipped, network) == pytest.approx(0.01 * config.init_lr, rel=1e-3)
    plain, _ = step(network, batch(), config=config)
    assert change(plain, network) > 2 * change(clipped, network)


def test_gradients_are_unscaled_before_they_are_clipped():
    network = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.zeros_(network.weight)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    train_one_epoch(
        network,
        [batch(1)],
        criterion=lambda out, target: {"loss": 4 * out.mean()},
        normalize=lambda images: torch.ones(1, 1, 2, 2),
        optimizer=optimizer,
        scheduler=build_scheduler(optimizer, PLAIN, iterations=10),
        device=CPU,
        scaler=torch.amp.GradScaler("cpu", init_scale=8.0),
        clip=1.0,
    )
    assert network.weight.item() == pytest.approx(-0.5)  # the gradient, 4, is clipped to 1


def test_the_teacher_sees_the_images_as_they_are(network):
    seen = []
    step(network, batch(), teacher=lambda images: seen.append(images) or torch.zeros(2, 3, 16, 16))
    assert seen[0].dtype == torch.uint8 and torch.equal(seen[0], batch()["image"])


def test_bf16_autocast_keeps_the_weights_in_fp32(network):
    seen = []
    hook = network.sub1[0].conv.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    trained, losses = step(network, batch(), precision="bf16")
    _, plain_losses = step(network, batch())
    hook.remove()
    assert seen == [torch.bfloat16, torch.float32]
    assert {p.dtype for p in trained.parameters()} == {torch.float32}
    assert losses[0]["loss"].dtype == torch.float32
    assert losses[0]["loss"].item() == pytest.approx(plain_losses[0]["loss"].item(), rel=0.02)


SKIPPED = "ignore:Detected call of .lr_scheduler.step"  # torch's warning


@pytest.mark.filterwarnings(SKIPPED)
def test_fp16_skips_steps_with_non_finite_gradients(network):
    network.classifier.weight.data[0, 0] = torch.inf
    trained, _ = step(network, batch(), precision="fp16")
    assert torch.equal(trained.sub1[0].conv.weight, network.sub1[0].conv.weight)
    assert all(p.isfinite().all() for name, p in trained.named_parameters() if name != "classifier.weight")


@pytest.mark.filterwarnings(SKIPPED)
def test_the_schedule_includes_skipped_steps():
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


def test_frozen_parts_keep_weights_and_statistics(network):
    freeze(network, ["backbone"])
    trained, _ = step(network, batch())
    before, after = network.state_dict(), trained.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("backbone."))
    assert not torch.equal(after["sub1.0.conv.weight"], before["sub1.0.conv.weight"])


def test_a_fully_ignored_batch_changes_nothing(network):
    ignored = batch() | {"target": torch.full((2, 64, 64), 255, dtype=torch.uint8)}
    trained, losses = step(network, ignored)
    assert losses[0]["loss"].item() == 0
    assert change(trained, network) == 0


def test_gradients_are_shared_with_the_last_micro_batch_alone(monkeypatch):
    shared = []

    def sharing(network, *, now):
        shared.append(now)
        return nullcontext()

    monkeypatch.setattr(distributed, "sharing_gradients", sharing)
    step(ICNet(3, "resnet18", width=0.25), batch(4), accumulate=2)
    assert shared == [False, True]


def test_synchronised_batch_norms_are_frozen_too():
    norm = nn.SyncBatchNorm(2)
    train_mode(norm, freeze_bn=True)
    assert not norm.training


def test_losses_are_handed_on_without_their_graph(network):
    _, (losses,) = step(network, batch())
    assert not any(loss.requires_grad for loss in losses.values())
