"""Training that begins with trained weights."""

import re

import pytest
import torch

from models import ICNet
from tests.conftest import CLASSES
from utils.weights.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from utils.weights.pretrained import freeze, load_pretrained

HEADS = ["cff_24.aux_classifier.weight", "cff_12.aux_classifier.weight", "classifier.weight"]


def test_the_same_classes_take_every_tensor(checkpoint_path):
    checkpoint, network = read_checkpoint(checkpoint_path), ICNet(3, "resnet18", width=0.25)
    assert load_pretrained(network, checkpoint) == []
    assert all(torch.equal(tensor, checkpoint.state_dict[name]) for name, tensor in network.state_dict().items())


def test_other_classes_leave_out_the_heads_alone(checkpoint_path):
    checkpoint, network = read_checkpoint(checkpoint_path), ICNet(5, "resnet18", width=0.25)
    own = {name: network.state_dict()[name].clone() for name in HEADS}
    assert sorted(load_pretrained(network, checkpoint)) == sorted(HEADS)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, own[name] if name in own else checkpoint.state_dict[name]), name


def test_weights_of_another_network_are_refused(checkpoint_path):
    with pytest.raises(ValueError, match=rf"model\.weights {checkpoint_path} .*: the weights do not fit .* missing: "):
        load_pretrained(ICNet(3, "resnet50"), read_checkpoint(checkpoint_path))


@pytest.mark.parametrize(
    ("structure", "words"),
    [
        ({"ppm": "none"}, "ppm=sum, not none; set model.ppm=sum"),
        ({"sub4_input": "sub2"}, "sub4_input=image, not sub2; set model.sub4_input=image"),
    ],
)
def test_weights_of_another_structure_without_weights_of_its_own_are_refused(checkpoint_path, structure, words):
    with pytest.raises(ValueError, match=rf"trained with model\.{re.escape(words)}$"):
        load_pretrained(ICNet(3, "resnet18", width=0.25, **structure), read_checkpoint(checkpoint_path))


def test_from_a_checkpoint_for_other_classes_to_one_for_these(folder_data, tmp_path, run_script):
    """train.py starts from five classes, learns three, and evaluate.py takes what it leaves."""
    start = tmp_path / "start.pth"
    network = ICNet(5, "resnet18", width=0.25)
    state, structure = network.state_dict(), network.structure
    classes = type(CLASSES)((*CLASSES.names, "tree", "pole"), (*CLASSES.colors, (1, 2, 3), (4, 5, 6)))
    save_checkpoint(start, Checkpoint(state_dict=state, backbone="resnet18", structure=structure, classes=classes))

    overrides = [f"model.weights={start}", "train.freeze=[backbone]"]
    result = run_script("train", "--config", folder_data.config, *overrides)
    assert result.code == 0, result.err
    log = (folder_data.ckpt_dir / "train.log").read_text()
    for words in (str(start), "5 classes", f"not loaded, as the data has 3 classes: {', '.join(HEADS)}"):
        assert words in result.out and words in log, result.out

    last = read_checkpoint(folder_data.ckpt_dir / "last.pth")
    assert last.classes == CLASSES
    backbone = [name for name in state if name.startswith("backbone.")]
    assert all(torch.equal(last.state_dict[name], state[name]) for name in backbone)
    assert not torch.equal(last.state_dict["sub1.0.conv.weight"], state["sub1.0.conv.weight"])
    assert run_script("evaluate", "--config", folder_data.config).code == 0

    start.unlink()  # a run is resumed from its last.pth alone
    result = run_script("train", "--config", folder_data.config, *overrides, "train.resume=auto")
    assert result.code == 0 and "resumed from" in result.out, result.err


def test_freezing_names_the_known_parts():
    network = ICNet(3, "resnet18")
    with pytest.raises(ValueError, match=r"no part 'backbon'; known parts: backbone, backbone\.conv1, .*sub1"):
        freeze(network, ["backbon"])
    with pytest.raises(ValueError, match="leaves nothing to train"):
        freeze(network, ["backbone", "sub1", "cff_24", "cff_12", "classifier"])
