"""Faithful to mmsegmentation's ICNet: its file loads as it is, and gives its numbers."""

from collections import OrderedDict

import pytest
import torch

from tests import published
from utils.weights.checkpoint import read_checkpoint, save_checkpoint

NAME = "icnet_r50-d8_in1k-pre_832x832_160k_cityscapes_20210926_042715-ce310aea.pth"


@pytest.fixture(scope="module")
def weights():
    return published.make_weights(seed=0, kind="mmseg")


@pytest.fixture(scope="module")
def checkpoint_file(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("mmseg") / NAME
    meta = {"mmseg_version": "0.18.0", "CLASSES": ("road", "sidewalk"), "seed": 0, "hook_msgs": {}}
    torch.save({"meta": meta, "state_dict": OrderedDict(weights)}, path)
    return path


def test_network_gives_mmsegmentations_numbers(checkpoint_file):
    golden, image = published.numbers("mmseg"), torch.from_numpy(published.numbers()["x"])
    network = read_checkpoint(checkpoint_file).build()
    assert not network.training
    with torch.inference_mode():
        published.assert_close(network(image)["out"][:, :, ::2, ::2], golden["full"])
        outputs = published.training_outputs(network, image)
    for ours, theirs in (("out", "main"), ("aux_16", "aux0"), ("aux_8", "aux1")):
        published.assert_close(outputs[ours], golden[theirs])


def test_every_tensor_of_the_layout_is_accounted_for(checkpoint_file, weights):
    checkpoint = read_checkpoint(checkpoint_file)
    assert len(weights) == len(checkpoint.state_dict) == 438 and checkpoint.unused == ()
    network = checkpoint.build()
    assert set(checkpoint.state_dict) == set(network.state_dict())
    assert network.structure == {"variant": "psp", "ppm": "concat", "sub4_input": "sub2", "dropout": 0.0, "width": 1}
    assert checkpoint.backbone == "resnet50_v1c"
    assert checkpoint.classes.names[0] == "road" and checkpoint.classes.names[18] == "bicycle"
    assert "psp resnet50_v1c, 19 classes" in checkpoint.describe()


def test_its_state_dict_alone_will_do_and_so_will_a_converted_file(weights, tmp_path):
    torch.save(weights, tmp_path / "bare.pth")
    checkpoint = read_checkpoint(tmp_path / "bare.pth")
    save_checkpoint(tmp_path / "own.pth", checkpoint)
    ours = read_checkpoint(tmp_path / "own.pth")
    assert ours.structure == checkpoint.structure
    assert set(ours.build().state_dict()) == set(checkpoint.state_dict)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("neck.cff_24.conv_low.conv.weight"), "1 missing: neck.cff_24.conv_low.conv.weight$"),
        (lambda s: s.pop("decode_head.conv_seg.weight"), "missing: decode_head.conv_seg.weight$"),
        (lambda s: s.pop("backbone.backbone.stem.7.weight"), "1 missing: backbone.backbone.stem.7.weight$"),
        (lambda s: s.update({"neck.extra": torch.zeros(1)}), "1 unknown: neck.extra$"),
        (
            lambda s: s.update({"backbone.psp_bottleneck.conv.weight": torch.zeros(512, 4096, 1, 1)}),
            "1 of another shape: backbone.psp_bottleneck.conv.weight",
        ),
    ],
)
def test_a_tensor_too_few_too_many_or_misshapen_is_named(weights, tmp_path, change, words):
    state = {name: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape) for name, tensor in weights.items()}
    change(state)
    torch.save({"state_dict": state}, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=words), torch.device("meta"):
        read_checkpoint(tmp_path / "odd.pth").build()


def test_another_dict_with_a_state_dict_is_no_icnet(tmp_path):
    torch.save({"state_dict": {"encoder.weight": torch.zeros(1)}, "meta": {}}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="is not an ICNet checkpoint"):
        read_checkpoint(tmp_path / "other.pth")
