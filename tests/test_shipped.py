"""The weights in ckpt/, as someone gets them with a clone."""

from pathlib import Path

import torch

from utils.config import load_config
from utils.weights.checkpoint import read_checkpoint

ROOT = Path(__file__).parent.parent


def test_weights_that_ship_are_those_of_the_configuration():
    config = load_config(ROOT / "configs" / "camvid.yaml")
    path = ROOT / config.test.ckpt_path
    assert path.stat().st_size < 25e6
    checkpoint = read_checkpoint(path)
    assert checkpoint.classes.names == config.dataset.classes and checkpoint.backbone == config.model.backbone
    assert checkpoint.training is None and checkpoint.config["dataset"]["root"] is None
    assert config.test.short_side is None and checkpoint.config["test"]["short_side"] == 720  # its own is heeded
    network = checkpoint.build()
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in network.parameters())
