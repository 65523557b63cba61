"""torch.hub's entry points, loaded from this clone in a process of their own, as by a user elsewhere."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

SCRIPT = """
import sys, torch, numpy as np
load = lambda *arguments, **options: torch.hub.load(sys.argv[1], *arguments, source="local", **options)
network = load("icnet", weights="camvid")
assert network(torch.zeros(1, 3, 64, 96))["out"].shape == (1, 11, 64, 96) and not network.training
network = load("icnet", weights=None, num_classes=4, backbone="resnet18")
assert network(torch.zeros(1, 3, 32, 64))["out"].shape == (1, 4, 32, 64)
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
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(ROOT)], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "no checkpoint city" in done.stdout
