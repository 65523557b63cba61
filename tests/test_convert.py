"""tools/convert.py."""

import sys

import pytest
import torch

from tests import published
from tools import convert
from utils import cli
from utils.weights.checkpoint import read_checkpoint


def test_converted_weights_give_the_same_network_and_are_not_overwritten(tmp_path, monkeypatch, capsys):
    source, target = tmp_path / "published.pth", tmp_path / "ours.pth"
    torch.save(published.make_weights(), source)
    monkeypatch.setattr(sys, "argv", ["convert.py", str(source), str(target)])
    convert.main()
    printed = capsys.readouterr().out
    assert "resnet50_v1s, 19 classes, 375 tensors" in printed and "pretrained.fc.weight, pretrained.fc.bias" in printed
    before, after = read_checkpoint(source).build().state_dict(), read_checkpoint(target).build().state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)

    with pytest.raises(SystemExit) as stopped:
        cli.run(convert.main)
    assert stopped.value.code == 2 and "exists already" in capsys.readouterr().err
