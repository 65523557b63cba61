"""tools/convert.py, run as a user does."""

import subprocess
import sys
from pathlib import Path

import torch

from tests import published
from utils.weights.checkpoint import read_checkpoint

TOOL = Path(__file__).parent.parent / "tools" / "convert.py"


def test_converted_weights_give_the_same_network(tmp_path):
    source, target = tmp_path / "published.pth", tmp_path / "ours.pth"
    torch.save(published.make_weights(), source)
    command = [sys.executable, str(TOOL), str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "resnet50_v1s, 19 classes, 375 tensors" in done.stdout
    assert "pretrained.fc.weight, pretrained.fc.bias" in done.stdout
    before, after = read_checkpoint(source).build().state_dict(), read_checkpoint(target).build().state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)

    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2 and "exists already" in again.stderr
