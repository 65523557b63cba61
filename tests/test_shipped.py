"""The weights in ckpt/, as someone gets them with a clone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from utils.config import load_config
from utils.inference.predictor import Predictor
from utils.weights.checkpoint import read_checkpoint
from utils.weights.run_folder import INCLUDED

ROOT = Path(__file__).parent.parent
HALF = INCLUDED.with_name("icnet_resnet18_half_cityscapes.pth")
CAMVID = ROOT / load_config(ROOT / "configs" / "camvid.yaml").test.ckpt_path


@pytest.mark.parametrize(
    ("path", "config", "side"),
    [(CAMVID, "camvid", 960), (INCLUDED, "cityscapes_small", 768), (HALF, "cityscapes_small", 768)],
    ids=lambda x: str(x)[-23:],
)
def test_weights_that_ship_are_those_of_the_configuration(path, config, side):
    config = load_config(ROOT / "configs" / f"{config}.yaml")
    assert path.stat().st_size < 25e6
    checkpoint = read_checkpoint(path)
    assert len(checkpoint.classes) == (len(config.dataset.classes) or 19)
    assert not config.dataset.classes or checkpoint.classes.names == config.dataset.classes
    assert checkpoint.backbone == config.model.backbone
    assert checkpoint.training is None and checkpoint.config["dataset"]["root"] is None
    assert checkpoint.config["train"]["cityscapes_root"] == "data/cityscapes"
    assert checkpoint.config["test"]["short_side"] == side  # its own is heeded
    network = checkpoint.build()
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in network.parameters())


def test_the_efficientnet_that_ships_sees_sky_and_car():
    pytest.importorskip("timm")
    path = INCLUDED.with_name("icnet_efficientnet_lite0_cityscapes.pth")
    assert path.stat().st_size < 8e6
    checkpoint = read_checkpoint(path)
    assert checkpoint.backbone == "timm/tf_efficientnet_lite0" and len(checkpoint.classes) == 19
    assert checkpoint.training is None and checkpoint.config["test"]["short_side"] == 512
    with Image.open(ROOT / "demo" / "photos" / "village_car.jpg") as image:
        labels = Predictor(path, device="cpu").predict(np.asarray(image.convert("RGB")))
    name = np.array(checkpoint.classes.names)
    assert (name[labels[: len(labels) // 10]] == "sky").mean() > 0.5  # a blue sky with white clouds
    assert (name[labels] == "car").mean() > 0.02  # a blue one


def test_the_first_demo_picture_is_segmented_correctly(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # without a trained network
    predictor = Predictor(device="cpu")
    labels = predictor.predict(ROOT / "demo" / "leuven.jpg")
    name = np.array(predictor.classes.names)
    assert name[labels[:100, 300:500]].tolist() == [["sky"] * 200] * 100
    assert (name[labels[500:, 100:400]] == "road").mean() > 0.95
    assert (name[labels[250:330, 600:740]] == "building").mean() > 0.95
    with Image.open(ROOT / "demo" / "leuven.jpg") as image:
        assert labels.shape == image.size[::-1]
