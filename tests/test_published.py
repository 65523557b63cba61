"""Faithful to the published network: its layout loads, and gives its numbers."""

import numpy as np
import pytest
import torch

from tests import published
from utils.metrics import ConfusionMatrix
from utils.weights.checkpoint import read_checkpoint


@pytest.fixture(scope="module")
def weights():
    return published.make_weights(seed=0)


@pytest.fixture(scope="module")
def checkpoint_file(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "icnet_resnet50_197_0.710_best_model.pth"
    torch.save(weights, path)
    return path


def test_network_gives_the_published_numbers(checkpoint_file):
    golden = published.numbers()
    network = read_checkpoint(checkpoint_file).build()
    assert not network.training
    image = torch.from_numpy(golden["x"])
    with torch.inference_mode():
        published.assert_close(network(image)["out"][:, :, ::2, ::2], golden["full"])
        outputs = published.training_outputs(network, image)
    assert list(outputs) == ["out", "aux_8", "aux_16"]
    for ours, theirs in zip(outputs.values(), ("quarter", "eighth", "sixteenth"), strict=True):
        published.assert_close(ours, golden[theirs])


def test_every_tensor_of_the_layout_is_accounted_for(checkpoint_file, weights):
    checkpoint = read_checkpoint(checkpoint_file)
    assert len(weights) == 377
    assert checkpoint.unused == ("pretrained.fc.weight", "pretrained.fc.bias")
    assert len(checkpoint.state_dict) == 375
    assert set(checkpoint.state_dict) == set(checkpoint.build().state_dict())
    assert checkpoint.backbone == "resnet50_v1s"
    assert checkpoint.classes.names[0] == "road" and checkpoint.classes.names[18] == "bicycle"


def test_data_parallel_prefix_is_understood(weights, tmp_path):
    path = tmp_path / "parallel.pth"
    torch.save({f"module.{name}": tensor for name, tensor in weights.items()}, path)
    assert len(read_checkpoint(path).state_dict) == 375


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("head.conv_cls.weight"), r"missing: head\.conv_cls\.weight$"),
        (lambda s: s.pop("head.cff_24.conv_low.0.weight"), "1 missing: head.cff_24.conv_low.0.weight"),
        (lambda s: s.update({"head.extra": torch.zeros(1)}), "1 unknown: head.extra"),
        (lambda s: s.update({"sub1.0.conv.weight": torch.zeros(32, 3, 3, 3)}), "1 unknown: sub1.0.conv.weight"),
        (
            lambda s: s.update({"module.head.conv_cls.weight": torch.zeros(19, 128, 1, 1)}),
            "1 unknown: module.head",
        ),
        (lambda s: s.pop("pretrained.conv1.0.weight"), "1 missing: pretrained.conv1.0.weight$"),
        (
            lambda s: s.update({"conv_sub1.0.conv.weight": torch.zeros(32, 4, 3, 3)}),
            "1 of another shape: conv_sub1.0",
        ),
    ],
)
def test_a_tensor_too_few_too_many_or_misshapen_is_named(weights, tmp_path, change, words):
    state = {name: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape) for name, tensor in weights.items()}
    change(state)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=words), torch.device("meta"):
        read_checkpoint(tmp_path / "odd.pth").build()


def test_number_of_classes_is_read_off(weights, tmp_path):
    state = {name: t[:7] if "cls" in name else t for name, t in weights.items()}
    torch.save(state, tmp_path / "seven.pth")
    assert len(read_checkpoint(tmp_path / "seven.pth").classes) == 7


def test_running_metrics_are_the_published_ones():
    golden = published.numbers()
    confusion = ConfusionMatrix(19)
    for pred, label in zip(golden["metric_pred"], golden["metric_label"], strict=True):
        confusion.update(torch.from_numpy(pred), torch.from_numpy(label).to(torch.uint8))  # -1 becomes 255
    running = confusion.running.numpy()
    np.testing.assert_allclose(running[:, 0], golden["metric_running_miou"], rtol=1e-6)  # computed in single precision
    np.testing.assert_allclose(running[:, 1], golden["metric_running_acc"], rtol=1e-6)  # computed in single precision
    summary = confusion.summary(tuple(map(str, range(19))))
    assert summary["miou_running_mean"] == pytest.approx(golden["metric_running_miou"].mean(), rel=1e-6)
    assert summary["pixel_accuracy_running_mean"] == pytest.approx(golden["metric_running_acc"].mean(), rel=1e-6)
    assert summary["absent_classes"] == 0
    assert summary["miou"] == pytest.approx(golden["metric_running_miou"][-1], rel=1e-6)
