"""What the tests of the page and of its service share: networks, images, and a service without Gradio."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from demo.page.service import Result, Service
from models import ICNet
from tests.conftest import CLASSES
from tests.networks import with_statistics
from utils.inference.predictor import Predictor
from utils.weights.checkpoint import Checkpoint, save_checkpoint

ENGINE = "auto fp32"
RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, (48, 64, 3)).astype(np.uint8) for _ in range(3)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, Path]:
    """Two networks of the same classes that predict different labels."""
    paths = {}
    for seed, name in enumerate(("a.pth", "b.pth")):
        torch.manual_seed(seed)
        network = with_statistics(ICNet(len(CLASSES), "resnet18"))
        paths[name] = tmp_path_factory.mktemp("weights") / name
        save_checkpoint(paths[name], Checkpoint(state_dict=network.state_dict(), backbone="resnet18", classes=CLASSES))
    return paths


@pytest.fixture(scope="module")
def labels(weights) -> dict[str, list[np.ndarray]]:
    """What each network predicts for each of the images on its own."""
    return {name: Predictor(path).predict_batch(IMAGES) for name, path in weights.items()}


@pytest.fixture
def service(weights, tmp_path) -> Service:
    folder = tmp_path / "results"
    folder.mkdir(exist_ok=True)
    return Service(weights, folder)


@pytest.fixture
def files(tmp_path) -> list[str]:
    """The images as files, where uploads are."""
    folder = tmp_path / "results" / "uploads"
    folder.mkdir(parents=True)
    paths = [folder / f"street{number}.png" for number in range(len(IMAGES))]
    for path, image in zip(paths, IMAGES, strict=True):
        Image.fromarray(image).save(path)
    return [str(path) for path in paths]


def result(labels: list[list[int]]) -> Result:
    image = np.full((*np.shape(labels), 3), 100, np.uint8)
    facts = {"name": "x", "milliseconds": 1.0, "engine": "PyTorch, fp32"}
    return Result(image=image, labels=np.array(labels, np.uint8), classes=CLASSES, **facts)
