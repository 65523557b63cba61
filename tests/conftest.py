"""Small data, a small checkpoint, and the real scripts run in this process."""

import gc
import importlib
import json
import multiprocessing
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from dataset.labels import ClassTable
from dataset.transforms import Normalize
from models import ICNet
from utils import cli
from utils.config import load_config
from utils.data import build_dataset, build_transform, eval_loader, train_loader
from utils.io.video import writing_video
from utils.loss import CascadeLoss
from utils.optim import build_optimizer, build_scheduler
from utils.runtime import seed_everything
from utils.training.records import Records
from utils.training.trainer import Trainer
from utils.weights.checkpoint import Checkpoint, save_checkpoint

EPOCHS = 3  # of two iterations, as the fixture `build` has them
CLASSES = ClassTable(("road", "sky", "car"), ((128, 64, 128), (70, 130, 180), (0, 0, 142)))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Begin every test with the same random numbers, so that none passes or fails by chance, or by those before it."""
    seed_everything(0)


@dataclass(frozen=True)
class FolderData:
    """A tiny `folder` dataset and the YAML file that describes it.

    Attributes:
        root: holds `train/*.png` (4), `val/*.png` (2) and in `train_mask`, `val_mask` masks of the same names.
        config: the YAML file: resnet18, crop 64, batch 2, 1 epoch, no loader processes.
        values: what that file holds, to change and write again with `write`.
        ckpt_dir: the configured `train.ckpt_dir`; not made yet.
    """

    root: Path
    config: Path
    values: dict
    ckpt_dir: Path

    def write(self) -> Path:
        """Write `values` to the YAML file again; return its path."""
        self.config.write_text(yaml.safe_dump(self.values), encoding="utf-8")
        return self.config


@dataclass(frozen=True)
class ScriptResult:
    """How a script ended: exit code and all that it and its loader processes printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def folder_data(tmp_path: Path) -> FolderData:
    """Make a random `folder` dataset of 4 + 2 images 64x48 with 3 classes and ignored pixels, and its YAML file.

    Its files are this test's own, so a test may break them. Classes, names and colours are those of `checkpoint_path`.
    """
    rng = np.random.default_rng(0)
    root = tmp_path / "data"
    for split, count in (("train", 4), ("val", 2)):
        for index in range(count):
            _save(root / split / f"{index}.png", rng.integers(0, 256, (48, 64, 3)))
            _save(root / f"{split}_mask" / f"{index}.png", rng.choice([0, 1, 2, 255], (48, 64), p=[0.3, 0.3, 0.3, 0.1]))
    ckpt_dir = tmp_path / "ckpt"
    values = {
        "model": {"backbone": "resnet18", "base_size": 48, "crop_size": 64},
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
    """Make a tree in the Cityscapes layout; return its root.

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
            _save(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", rng.integers(0, 256, (32, 64, 3)))
            if split != "test":
                labels = rng.integers(0, 34, (32, 64))
                _save(root / "gtFine" / split / city / f"{name}_gtFine_labelIds.png", labels)
    return root


@pytest.fixture(scope="session")
def checkpoint_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save an untrained resnet18 ICNet for the classes of `folder_data`, once for all tests: do not change the file."""
    torch.manual_seed(0)
    network = ICNet(num_classes=len(CLASSES), backbone="resnet18")
    path = tmp_path_factory.mktemp("checkpoint") / "icnet_resnet18_1_0.123_best_model.pth"
    save_checkpoint(path, Checkpoint(state_dict=network.state_dict(), backbone="resnet18", classes=CLASSES))
    return path


@pytest.fixture
def build(folder_data):
    """Give a function that builds a trainer from nothing, as train.py does, with files in the given folder."""
    config = load_config(folder_data.config)

    def make(folder: Path, *, dropout: float = 0.0, **options) -> Trainer:
        seed_everything(0)
        transform = build_transform(config.model, config.augment)
        train_set = build_dataset(config.dataset, "train", cityscapes_root="", transform=transform)
        network = ICNet(3, "resnet18", dropout=dropout)
        optimizer = build_optimizer(network, config.optimizer)
        batches = train_loader(train_set, batch_size=2, workers=0, seed=0)
        return Trainer(
            network=network,
            criterion=options.pop("criterion", CascadeLoss()),
            optimizer=optimizer,
            scheduler=build_scheduler(optimizer, config.optimizer, iterations=EPOCHS * len(batches)),
            normalize=Normalize(),
            train_batches=batches,
            val_batches=eval_loader(build_dataset(config.dataset, "val", cityscapes_root=""), batch_size=1, workers=0),
            device=torch.device("cpu"),
            description=Checkpoint(state_dict={}, backbone="resnet18", classes=train_set.classes),
            records=Records(folder),
            name="icnet_resnet18",
            **options,
        )

    return make


def records(folder):
    """The figures of each epoch, without the times."""
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("run", "seconds")} for line in lines]


@pytest.fixture
def run_script(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Callable[..., ScriptResult]:
    """Give a function that runs `train`, `evaluate` or `inference` as `python NAME.py ARGUMENTS` would."""

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
    """Give a function that runs inference into `tmp_path / "out"`."""

    def run(source: object, *more: object):
        given = [f"test.ckpt_path={checkpoint_path}", "--output", tmp_path / "out", "--input", source]
        return run_script("inference", *given, *more)

    return run


@pytest.fixture
def pictures(tmp_path):
    """A folder of three pictures, one of them in a folder of its own."""
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.jpg", "sub/a.png"):
        _save(tmp_path / "in" / name, rng.integers(0, 256, (48, 64, 3)))
    return tmp_path / "in"


@pytest.fixture
def video(tmp_path):
    """A video of ten frames at 5 frames/s."""
    rng = np.random.default_rng(0)
    with writing_video(tmp_path / "v.mp4", 5) as writer:
        for _ in range(10):
            writer.write(rng.integers(0, 256, (48, 64, 3)).astype(np.uint8))
    return tmp_path / "v.mp4"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Compute on one thread: for networks this small, waiting for others costs more than they bring."""
    torch.set_num_threads(1)


def end_loader_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """End the processes of loaders that an error has left behind, which would else happen amid some later test."""
    if multiprocessing.active_children():
        monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1, raising=False)  # else 5 seconds
        gc.collect()


def _save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)
