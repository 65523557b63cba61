"""torch.hub's entry points, loaded from this clone in a process of their own, as by a user elsewhere."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from utils.weights.zoo import WEIGHTS

ROOT = Path(__file__).parent.parent

SCRIPT = """
import sys, torch, numpy as np
load = lambda *arguments, **options: torch.hub.load(sys.argv[1], *arguments, source="local", **options)
assert load("icnet").classifier.out_channels == 19
network = load("icnet", weights="camvid")
assert network(torch.zeros(1, 3, 64, 96))["out"].shape == (1, 11, 64, 96) and not network.training
assert load("icnet", "icnet_resnet50_cityscapes")(torch.zeros(1, 3, 32, 64))["out"].shape == (1, 11, 32, 64)
network = load("icnet", weights=None, num_classes=4, backbone="resnet18")
assert network(torch.zeros(1, 3, 32, 64))["out"].shape == (1, 4, 32, 64)
try:
    load("icnet", "camvid", num_classes=4)
except ValueError as error:
    print(error)
sys.modules["utils.runtime"].installed = lambda *names: False  # only PyTorch, which exports nothing into the cache
predictor = load("predictor", "camvid")
assert predictor.predict(np.zeros((48, 64, 3), np.uint8)).shape == (48, 64)
try:
    load("icnet", "city")
except FileNotFoundError as error:
    print(error)
"""


def test_networks_and_predictors_are_loaded_from_another_folder(tmp_path):
    for name in ("models", "utils"):  # of the user's, not imported yet
        (tmp_path / f"{name}.py").write_text("")
    known = tmp_path / "hub" / "checkpoints" / WEIGHTS["icnet_resnet50_cityscapes"].file
    known.parent.mkdir(parents=True)
    shutil.copy(ROOT / "ckpt" / "icnet_resnet18_camvid.pth", known)  # as if downloaded
    command = [sys.executable, "-c", SCRIPT, str(ROOT)]
    environment = os.environ | {"TORCH_HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "no checkpoint city" in done.stdout and "num_classes and backbone go with weights=None" in done.stdout
