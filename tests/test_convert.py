"""tools/convert.py."""

import pytest
import torch

from dataset.labels import cityscapes_classes
from models import ICNet
from tests import published
from tests.conftest import CLASSES
from tools import convert
from utils.config import Config
from utils.weights.checkpoint import Checkpoint, read_checkpoint, save_checkpoint


def test_converted_weights_give_the_same_network_and_are_not_overwritten(tmp_path, run_script):
    source, target = tmp_path / "published.pth", tmp_path / "ours.pth"
    torch.save(published.make_weights(), source)
    printed = run_script("tools.convert", source, target).out
    assert "resnet50_v1s, 19 classes, 375 tensors" in printed and "pretrained.fc.weight, pretrained.fc.bias" in printed
    before, after = read_checkpoint(source).build().state_dict(), read_checkpoint(target).build().state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not read_checkpoint(target).named  # the published file does not name its classes

    for name, words in ((target, "exists already"), ("ours.onnx", "target ours.onnx must end in .pth")):
        refused = run_script("tools.convert", source, name)
        assert refused.code == 2 and words in refused.err


def test_weights_beyond_half_precision_are_refused():
    checkpoint = Checkpoint(state_dict={"a": torch.tensor([65504.0, 70000.0])}, backbone="resnet18", classes=CLASSES)
    with pytest.raises(ValueError, match=r"a has values beyond half precision"):
        convert.to_half_precision(checkpoint)


def test_a_partial_configuration_stays_partial():
    config = {"test": {"short_side": 64}}
    checkpoint = Checkpoint(state_dict={}, backbone="resnet18", classes=CLASSES, config=config)
    assert convert.to_half_precision(checkpoint).config == config


def test_a_checkpoint_to_pass_on_is_half_as_large_and_names_no_folder_of_its_run(tmp_path, run_script):
    source, target = tmp_path / "last.pth", tmp_path / "shared.pth"
    config = Config.model_validate(
        {
            "model": {
                **{"backbone": "resnet18", "base_size": 512},
                **{"weights": "/home/me/first.pth", "backbone_weights": "/home/me/imagenet.pth"},
            },
            "loss": {"distill": "/home/me/teacher.pth"},
            "dataset": {"root": "/home/me/data"},
            "train": {
                **{"cityscapes_root": "/home/me/cityscapes", "ckpt_dir": "/home/me/run"},
                **{"resume": "/home/me/last.pth", "epochs": 7},
            },
            "test": {"ckpt_path": "/home/me/best.pth", "submission": "/home/me/submission"},
        }
    )
    network, classes = ICNet(backbone="resnet18"), cityscapes_classes()
    checkpoint = Checkpoint(
        state_dict=network.state_dict(),
        backbone="resnet18",
        classes=classes,
        config=config.as_dict(),
        epoch=7,
        training={"optimizer": {}},
    )
    save_checkpoint(source, checkpoint)
    assert run_script("tools.convert", "--half", source, target).code == 0
    assert target.stat().st_size < 0.51 * source.stat().st_size and b"/home/me" not in target.read_bytes()
    shared = read_checkpoint(target)
    assert shared.training is None and shared.epoch == 7 and shared.config["train"]["epochs"] == 7
    assert shared.config["model"]["base_size"] == 512
    for name, weight in shared.build().state_dict().items():
        torch.testing.assert_close(weight, network.state_dict()[name], rtol=2**-10, atol=1e-7)


def test_counters_stay_whole_numbers():
    checkpoint = Checkpoint(state_dict={"n": torch.tensor(70001)}, backbone="resnet18", classes=CLASSES)
    assert convert.to_half_precision(checkpoint).state_dict["n"].item() == 70001


def test_incomplete_weights_are_not_converted(tmp_path, run_script):
    checkpoint = Checkpoint(state_dict={"a": torch.ones(1)}, backbone="resnet18", classes=CLASSES)
    save_checkpoint(tmp_path / "x.pth", checkpoint)
    refused = run_script("tools.convert", tmp_path / "x.pth", tmp_path / "y.pth")
    assert refused.code == 2 and "do not fit the network" in refused.err
    assert not (tmp_path / "y.pth").exists()
