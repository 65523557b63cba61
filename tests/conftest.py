"""Fixtures: small datasets, a small checkpoint, and scripts run in this process."""

import gc
import importlib
import json
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from dataset.labels import ClassTable
from models import ICNet
from train import build_trainer
from utils import cli, runtime
from utils.config import load_config
from utils.io.video import _silence_opencv, writing_video
from utils.runtime import seed_torch
from utils.training.records import Records
from utils.training.trainer import Trainer
from utils.weights.checkpoint import Checkpoint, save_checkpoint

EPOCHS = 3  # of two iterations each, in the fixture `build`
CPU = torch.device("cpu")
CLASSES = ClassTable(("road", "sky", "car"), ((128, 64, 128), (70, 130, 180), (0, 0, 142)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slowest file, so that no worker is left with it at the end."""
    items.sort(key=lambda item: item.path.name != "test_tutorial.py")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Seed every test, so that none depends on chance or on the tests before it."""
    seed_torch(0)


@pytest.fixture(scope="session", autouse=True)
def unsynced() -> Iterator[None]:
    """Do not wait until files are on the disk: no test cuts the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda file: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def quiet_videos() -> None:
    """Silence FFmpeg before the first video, when it takes its log level, even if a test opens that with OpenCV."""
    _silence_opencv()


@pytest.fixture(scope="session", autouse=True)
def pytorch_only() -> Iterator[None]:
    """Hide the other runtimes from `test.runtime=auto`, which would export a network for each test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "installed", lambda *packages: False)
        yield


@dataclass(frozen=True)
class FolderData:
    """A tiny `folder` dataset and its YAML configuration.

    Attributes:
        root: contains `train/*.png` (4), `val/*.png` (2), and masks of the same names in `train_mask` and `val_mask`.
        config: the YAML file: a narrow resnet18, crop size 64, batch size 2, 1 epoch, no loader processes.
        values: its content, to be changed and written again with `write`.
        ckpt_dir: the configured `train.ckpt_dir`, which does not exist yet.
    """

    root: Path
    config: Path
    values: dict
    ckpt_dir: Path

    def write(self) -> Path:
        """Write `values` to the YAML file again; return its path."""
        self.config.write_text(yaml.safe_dump(self.values), encoding="utf-8")
        return self.config


class ScriptResult(NamedTuple):
    """Exit code and output of a script, including that of its loader processes."""

    code: int
    out: str
    err: str


@pytest.fixture
def folder_data(tmp_path: Path) -> FolderData:
    """Create a random `folder` dataset of 4 + 2 images of 64x48 with 3 classes and ignored pixels, and its YAML file.

    Each test has its own files and may break them. The classes are those of `checkpoint_path`.
    """
    rng = np.random.default_rng(0)
    root = tmp_path / "data"
    for split, count in (("train", 4), ("val", 2)):
        for index in range(count):
            save_array(root / split / f"{index}.png", rng.integers(0, 256, (48, 64, 3)))
            save_array(
                root / f"{split}_mask" / f"{index}.png", rng.choice([0, 1, 2, 255], (48, 64), p=[0.3, 0.3, 0.3, 0.1])
            )
    ckpt_dir = tmp_path / "ckpt"
    values = {
        "model": {"backbone": "resnet18", "width": 0.25, "base_size": 48, "crop_size": 64},
        "dataset": {
            "name": "folder",
            "root": str(root),
            "train": {"images": "train/*.png", "masks": "train_mask/*.png"},
            "val": {"images": "val/*.png", "masks": "val_mask/*.png"},
            "classes": list(CLASSES.names),
            "colors": [list(color) for color in CLASSES.colors],
        },
        "train": {"train_batch_size": 2, "epochs": 1, "num_workers": 0, "ckpt_dir": str(ckpt_dir)},
    }
    data = FolderData(root, tmp_path / "folder.yaml", values, ckpt_dir)
    data.write()
    return data


@pytest.fixture
def cityscapes_data(tmp_path: Path) -> Path:
    """Create a dataset in the Cityscapes layout; return its root.

    Images of 64x32: train aachen 2, bochum 1; val munster 1; test berlin 1, without labels. labelIds from 0 to 33.
    """
    rng = np.random.default_rng(1)
    root = tmp_path / "cityscapes"
    for split, city, count in (
        ("train", "aachen", 2),
        ("train", "bochum", 1),
        ("val", "munster", 1),
        ("test", "berlin", 1),
    ):
        for index in range(count):
            name = f"{city}_{index:06}_000019"
            save_array(
                root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", rng.integers(0, 256, (32, 64, 3))
            )
            if split != "test":
                labels = rng.integers(0, 34, (32, 64))
                save_array(root / "gtFine" / split / city / f"{name}_gtFine_labelIds.png", labels)
    return root


@pytest.fixture(scope="session")
def checkpoint_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save an untrained ICNet with the network and classes of `folder_data`; shared by all tests, so read-only."""
    torch.manual_seed(0)
    network = ICNet(num_classes=len(CLASSES), backbone="resnet18", width=0.25)
    path = tmp_path_factory.mktemp("checkpoint") / "icnet_resnet18_1_0.123_best_model.pth"
    state, structure = network.state_dict(), network.structure
    save_checkpoint(path, Checkpoint(state_dict=state, backbone="resnet18", structure=structure, classes=CLASSES))
    return path


@pytest.fixture
def build(folder_data):
    """Return a function that builds a trainer as train.py does, with overrides of the settings, writing to a folder."""

    def make(folder: Path, *overrides: str) -> Trainer:
        config = load_config(folder_data.config, [f"train.epochs={EPOCHS}", *overrides])
        seed_torch(config.train.seed)
        return build_trainer(config, torch.device("cpu"), Records(folder))

    return make


def records(folder):
    """The figures of each epoch, without the times."""
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("run", "seconds")} for line in lines]


@pytest.fixture
def run_script(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Callable[..., ScriptResult]:
    """Return a function that runs a script as `python NAME.py ARGUMENTS` would."""

    def run(name: str, *arguments: object) -> ScriptResult:
        main = importlib.import_module(name).main
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.run(main)
        code = stopped.value.code
        del stopped
        end_loader_processes(monkeypatch)
        return ScriptResult(code, *capfd.readouterr())

    return run


@pytest.fixture
def infer(run_script, checkpoint_path, tmp_path):
    """Return a function that runs inference.py with output in `tmp_path / "out"`."""

    def run(source: object, *more: object):
        given = [f"test.ckpt_path={checkpoint_path}", "--output", tmp_path / "out", "--input", source]
        return run_script("inference", *given, *more)

    return run


@pytest.fixture
def pictures(tmp_path):
    """A folder with two images, and a third in a subfolder."""
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.jpg", "sub/a.png"):
        save_array(tmp_path / "in" / name, rng.integers(0, 256, (48, 64, 3)))
    return tmp_path / "in"


@pytest.fixture
def video(tmp_path):
    """A video of ten frames at 5 frames per second."""
    rng = np.random.default_rng(0)
    with writing_video(tmp_path / "v.mp4", 5) as writer:
        for _ in range(10):
            writer.write(rng.integers(0, 256, (48, 64, 3)).astype(np.uint8))
    return tmp_path / "v.mp4"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Use one thread: on networks this small, synchronising several costs more than it saves."""
    torch.set_num_threads(1)


def end_loader_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """End loader processes left behind by an error now rather than during a later test."""
    if multiprocessing.active_children():
        monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1, raising=False)  # else 5 seconds
        gc.collect()
    if remaining := multiprocessing.active_children():  # something still refers to their loader
        handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's would report them
        for process in remaining:
            process.kill()
            process.join()
        signal.signal(signal.SIGCHLD, handler)


def save_array(path: Path, values: np.ndarray) -> None:
    """Write values from 0 to 255 as an image, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)
