"""What a user gets wrong: one line on stderr that names the value and the mend, exit code 2, nothing half-written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from dataset.labels import cityscapes_classes, class_table
from models import ICNet
from utils.io.sources import Source
from utils.weights.checkpoint import Checkpoint, read_checkpoint, save_checkpoint

SCRIPTS = ("train", "evaluate", "inference")
FIGURES = ("metrics.json", "confusion.csv", "confusion.png")


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Sizes and times of all files, by name."""
    stats = {str(path.relative_to(folder)): path.stat() for path in folder.rglob("*") if path.is_file()}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


@pytest.fixture
def refused(run_script, tmp_path):
    """Give a function that runs a script, makes sure that it refuses in one line, and returns that line.

    `logs` lets files in `ckpt_dir` pass that a run keeps of itself until then, and the figures of an earlier one go.
    """

    def check(name: str, *arguments: object, logs: bool = False) -> str:
        before = files(tmp_path)
        result = run_script(name, *arguments)
        assert result.code == 2, result
        lines = result.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: "), result.err
        assert "Traceback" not in result.out and ".part" not in lines[0]
        after = files(tmp_path)
        new = [path for path in after if after[path] != before.get(path)]
        kept = ("train.log", "last.pth", "_pred.png") if logs else ()
        assert not [path for path in new if not (logs and (path.endswith(kept) or "tfevents" in path))], new
        assert not [path for path in before if path not in after and not (logs and path.endswith(FIGURES))]
        return lines[0]

    return check


def put(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


def has(line: str, *words: object) -> bool:
    missing = [str(word) for word in words if str(word) not in line]
    assert not missing, f"{missing} not in: {line}"
    return True


def arguments(script: str, folder_data) -> list[str]:
    extra = ["--input", str(folder_data.root / "val")] if script == "inference" else []
    return ["--config", str(folder_data.config), *extra]


# --- the configuration, in every script; all messages: test_config.py, test_settings.py


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.epoch=3", ["train.epoch", "train.epochs"]),
        ("train.epochs=many", ["train.epochs", "integer", "'many'"]),
        ("optimizer.init_lr=-0.01", ["optimizer.init_lr", "greater than 0", "-0.01"]),
        ("model.backbone=resnet5", ["model.backbone", "resnet5", "resnet50"]),
        ("epochs=3", ["epochs=3", "section.key=value"]),
    ],
)
def test_setting(refused, folder_data, script, override, words):
    assert has(refused(script, *arguments(script, folder_data), override), *words)


@pytest.mark.parametrize("script", SCRIPTS)
def test_configuration_file(refused, folder_data, tmp_path, script):
    extra = ["--input", tmp_path] if script == "inference" else []
    assert has(refused(script, "--config", tmp_path / "no.yaml", *extra), tmp_path / "no.yaml", "configs")
    folder_data.config.write_text("train: [")
    assert has(refused(script, "--config", folder_data.config, *extra), folder_data.config, "not valid YAML")
    folder_data.config.write_text("train: {epoch: 1}")
    assert has(refused(script, "--config", folder_data.config, *extra), "train.epoch", "train.epochs")


@pytest.mark.parametrize("script", SCRIPTS)
def test_gpu(refused, folder_data, checkpoint_path, monkeypatch, script):
    given = [*arguments(script, folder_data), f"test.ckpt_path={checkpoint_path}"]
    line = refused(script, *given, "train.specific_gpu_num=first")
    assert has(line, "train.specific_gpu_num", "number of a GPU", "'first'")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    line = refused(script, *given, "train.specific_gpu_num=3")
    assert has(line, "train.specific_gpu_num is 3", "1 GPU")


# --- the data


@pytest.mark.parametrize("script", ["train", "evaluate"])
def test_cityscapes_root(refused, cityscapes_data, tmp_path, script):
    checkpoint = tmp_path / "cityscapes.pth"
    save_checkpoint(checkpoint, untrained(19))
    config = tmp_path / "config.yaml"
    settings = {"model": {"backbone": "resnet18"}, "train": {"ckpt_dir": str(tmp_path / "ckpt"), "num_workers": 0}}
    config.write_text(yaml.safe_dump(settings))
    given = ["--config", config, f"test.ckpt_path={checkpoint}"]

    line = refused(script, *given, f"train.cityscapes_root={tmp_path}/nothing")
    assert has(line, tmp_path / "nothing", "train.cityscapes_root", "leftImg8bit")

    empty = tmp_path / "empty"
    (empty / "leftImg8bit").mkdir(parents=True)
    assert has(refused(script, *given, f"train.cityscapes_root={empty}"), empty, "no images")

    mask = next((cityscapes_data / "gtFine" / "val").rglob("*.png"))
    mask.unlink()
    line = refused(script, *given, f"train.cityscapes_root={cityscapes_data}", "train.train_batch_size=2")
    frame = mask.name.removesuffix("_gtFine_labelIds.png")
    assert has(line, "1 of 1 images", frame, "no *_gtFine_labelIds.png", "gtFine_trainvaltest.zip")

    line = refused(script, *given, f"train.cityscapes_root={cityscapes_data}", "train.split=x", "test.split=x")
    assert has(line, "'x'", "train, val, trainval, test")


@pytest.mark.parametrize("script", ["train", "evaluate"])
def test_folder_root(refused, folder_data, checkpoint_path, tmp_path, script):
    given = [*arguments(script, folder_data), f"test.ckpt_path={checkpoint_path}"]
    assert has(refused(script, *given, f"dataset.root={tmp_path}/nothing"), tmp_path / "nothing", "dataset.root")
    (tmp_path / "empty").mkdir()
    assert has(refused(script, *given, f"dataset.root={tmp_path}/empty"), tmp_path / "empty", "/*.png")
    assert has(refused(script, *given, "dataset.root=null"), "dataset.root=FOLDER")
    for mask in (folder_data.root / "val_mask").iterdir():
        mask.unlink()
    assert has(refused(script, *given), "2 of 2 images", "val/0.png", "val_mask/*.png")


def spoil(image: Path, mask: Path, fault: str) -> None:
    """Give a sample a fault."""
    if fault == "value":
        values = np.zeros((48, 64))
        values[3, 4] = 7
        put(mask, values)
    elif fault == "size":
        put(mask, np.zeros((48, 63)))
    elif fault == "mode":
        put(mask, np.zeros((48, 64, 3)))
    else:
        {"broken mask": mask, "broken image": image}[fault].write_bytes(b"no picture")


@pytest.mark.parametrize("script", ["train", "evaluate"])
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("value", [".png", "the value 7", "(0-2, 255)", "dataset.classes"]),
        ("size", ["differ in size", "64x48", "63x48"]),
        ("mode", [".png", "8-bit", "'RGB'"]),
        ("broken mask", ["_mask", "cannot be read as an image"]),
        ("broken image", [".png", "cannot be read as an image"]),
    ],
)
def test_sample(refused, folder_data, checkpoint_path, script, fault, words):
    for image in folder_data.root.glob("[tv]*/*.png"):
        if image.parent.name in ("train", "val"):
            spoil(image, image.parent.with_name(f"{image.parent.name}_mask") / image.name, fault)
    given = [*arguments(script, folder_data), f"test.ckpt_path={checkpoint_path}"]
    line = refused(script, *given, logs=True)
    assert has(line, *words)
    if fault == "value":
        assert refused(script, *given, "train.num_workers=1", logs=True) == line


def test_validation_sample(refused, folder_data):
    """It comes to light after the first epoch, whose weights are kept."""
    spoil(folder_data.root / "val" / "1.png", folder_data.root / "val_mask" / "1.png", "value")
    assert has(refused("train", "--config", folder_data.config, logs=True), "val_mask/1.png", "the value 7")
    assert read_checkpoint(folder_data.ckpt_dir / "last.pth").epoch == 1


@pytest.mark.parametrize("split", ["train", "val"])
def test_training_without_labels(refused, folder_data, split):
    folder_data.values["dataset"][split]["masks"] = None
    line = refused("train", "--config", folder_data.write())
    assert has(line, "no labels", split)


def test_training_on_the_test_part_of_cityscapes(refused, cityscapes_data, folder_data):
    line = refused(
        "train",
        *("--config", folder_data.config, "dataset.name=cityscapes", f"train.cityscapes_root={cityscapes_data}"),
        *("train.split=test", "train.train_batch_size=1"),
    )
    assert has(line, "no labels", "test")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["dataset.classes=[]", "dataset.colors=[]"], ["dataset.classes is empty"]),
        (["dataset.classes=[a]", "dataset.colors=[]"], ["classes", "got 1"]),
        (["dataset.classes=[a, b, a]"], ["class names must differ", "a, b, a"]),
        (["dataset.colors=[[0, 0, 0]]"], ["3 class names", "1 colours"]),
        (["dataset.colors=[[0, 0, 0], [0, 0, 1], [0, 0, 256]]"], ["colour", "256"]),
        (["train.train_batch_size=5"], ["4 images", "train.train_batch_size (5)"]),
        (["train.split=test"], ["'test'", "dataset.test.images"]),
        (["test.split=test"], ["'test'", "dataset.test.images"]),
        (["model.backbone_weights=no.pth"], ["model.backbone_weights", "no.pth", "IMAGENET1K_V1"]),
        (["model.backbone_weights=no.pth", "model.backbone=resnet18_v1s"], ["no.pth", "resnet18"]),
        (["train.seed=4294967296"], ["train.seed", "4294967296"]),
        (["dataset.train.images=/data/*.png"], ["/data/*.png"]),
        (["dataset.train.images='[z-a].png'"], ["[z-a].png"]),
    ],
)
def test_training_setting_that_does_not_fit_the_data(refused, folder_data, overrides, words):
    assert has(refused("train", "--config", folder_data.config, *overrides), *words)


@pytest.mark.parametrize("below", ["", "/run"], ids=["itself", "parent"])
def test_checkpoint_folder_that_is_a_file(refused, folder_data, below):
    folder_data.ckpt_dir.write_text("not a folder")
    line = refused("train", "--config", folder_data.config, f"train.ckpt_dir={folder_data.ckpt_dir}{below}")
    assert has(line, folder_data.ckpt_dir, "train.ckpt_dir")


def test_backbone_weights_that_do_not_fit(refused, folder_data, tmp_path):
    torch.save({"conv1.weight": torch.zeros(64, 3, 3, 3), "stray": torch.zeros(1)}, tmp_path / "weights.pth")
    line = refused("train", "--config", folder_data.config, f"model.backbone_weights={tmp_path}/weights.pth")
    assert has(line, "weights.pth", "stray", "conv1.weight (64, 3, 3, 3) for (64, 3, 7, 7)")
    torch.save([1, 2], tmp_path / "weights.pth")
    assert has(
        refused("train", "--config", folder_data.config, f"model.backbone_weights={tmp_path}/weights.pth"),
        "weights.pth",
    )


# --- checkpoints


def untrained(classes: int) -> Checkpoint:
    table = cityscapes_classes() if classes == 19 else class_table([f"c{n}" for n in range(classes)], ())
    network = ICNet(num_classes=classes, backbone="resnet18")
    return Checkpoint(state_dict=network.state_dict(), backbone="resnet18", classes=table)


@pytest.mark.parametrize("script", ["evaluate", "inference"])
def test_missing_checkpoint(refused, folder_data, script, tmp_path):
    given = arguments(script, folder_data)
    assert has(refused(script, *given), "best_model.pth", folder_data.ckpt_dir, "test.ckpt_path")
    assert has(refused(script, *given, f"test.ckpt_path={tmp_path}/no.pth"), tmp_path / "no.pth", "test.ckpt_path")
    assert has(refused(script, *given, f"test.ckpt_path={tmp_path}"), tmp_path, "test.ckpt_path")


class Stranger:
    """An object that only a pickle which runs code could bring back."""


FOREIGN = {
    "empty": b"",
    "text": b"hello",
    "image": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "number": 5,
    "list": [torch.zeros(2)],
    "tensor": torch.zeros(2),
    "nothing": {},
    "other network": {"layer.weight": torch.zeros(2), "layer.bias": torch.zeros(1)},
    "wrapped": {"model": {"layer.weight": torch.zeros(2)}, "epoch": 3},
    "numbered": {0: torch.zeros(2)},
    "only the format": {"format": "icnet-checkpoint-1"},
    "code": Stranger(),
    "prefix alone": {
        "pretrained.conv1.weight": torch.zeros(2),
        "head.x": torch.zeros(2),
        "conv_sub1.x": torch.zeros(1),
    },
}


@pytest.mark.parametrize("script", ["evaluate", "inference"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_checkpoint(refused, folder_data, tmp_path, script, kind):
    path = tmp_path / "foreign.pth"
    if isinstance(FOREIGN[kind], bytes):
        path.write_bytes(FOREIGN[kind])
    else:
        torch.save(FOREIGN[kind], path)
    line = refused(script, *arguments(script, folder_data), f"test.ckpt_path={path}")
    assert has(line, path, "checkpoint")


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "resnet34"},
        {"backbone": "vgg16"},
        {"backbone": None},
        {"classes": ["a", "b"], "colors": [[0, 0, 0], [1, 1, 1]]},
        {"classes": ["a", "b"]},
        {"classes": 3},
        {"colors": None},
        {"state_dict": {}},
        {"state_dict": None},
        {"state_dict": {"classifier.weight": 5}},
        {"mean": None},
        {"mean": [0.5]},
        {"structure": {"width": "half"}},
    ],
    ids=str,
)
def test_damaged_checkpoint(refused, folder_data, checkpoint_path, tmp_path, change):
    path = tmp_path / "damaged.pth"
    torch.save(torch.load(checkpoint_path, weights_only=True) | change, path)
    line = refused("inference", *arguments("inference", folder_data), f"test.ckpt_path={path}")
    path.unlink()  # 45 MB
    assert has(line, path)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"config": 5}, "config"),
        ({"config": {"dataset": {"roots": 1}}}, "dataset.roots"),
        ({"config": {"dataset": {}, "train": 5}}, "train"),
        ({"config": {"test": 5}}, "test"),
        ({"config": {"test": {"short_side": "wide"}}}, "test.short_side"),
    ],
    ids=str,
)
def test_checkpoint_with_a_configuration_of_another_kind(refused, checkpoint_path, tmp_path, change, word):
    """Evaluation without --config reads the checkpoint's own."""
    path = tmp_path / "damaged.pth"
    torch.save(torch.load(checkpoint_path, weights_only=True) | change, path)
    line = refused("evaluate", f"test.ckpt_path={path}")
    path.unlink()
    assert has(line, path, word)


def test_evaluation_of_a_checkpoint_whose_weights_do_not_fit(refused, folder_data, checkpoint_path, tmp_path):
    path = tmp_path / "damaged.pth"
    torch.save(torch.load(checkpoint_path, weights_only=True) | {"state_dict": {}}, path)
    assert has(refused("evaluate", *arguments("evaluate", folder_data), f"test.ckpt_path={path}"), path)


def test_checkpoint_cut_short(refused, folder_data, checkpoint_path, tmp_path):
    content = checkpoint_path.read_bytes()
    path = tmp_path / "short.pth"
    path.write_bytes(content[: len(content) // 8])
    assert has(refused("evaluate", *arguments("evaluate", folder_data), f"test.ckpt_path={path}"), path)


def test_checkpoint_with_another_number_of_classes(refused, folder_data, tmp_path):
    save_checkpoint(tmp_path / "five.pth", untrained(5))
    line = refused("evaluate", "--config", folder_data.config, f"test.ckpt_path={tmp_path}/five.pth")
    assert has(line, tmp_path / "five.pth", "has 5 classes", "has 3")


def test_checkpoint_with_other_classes(refused, folder_data, checkpoint_path):
    line = refused(
        "evaluate",
        *("--config", folder_data.config, f"test.ckpt_path={checkpoint_path}", "dataset.classes=[road, sea, car]"),
    )
    assert has(line, checkpoint_path, "sky / sea")


def test_evaluation_without_labels(refused, folder_data, checkpoint_path):
    folder_data.values["dataset"]["val"]["masks"] = None
    line = refused("evaluate", "--config", folder_data.write(), f"test.ckpt_path={checkpoint_path}")
    assert has(line, "no labels", "test.split")


def test_evaluation_that_fails_leaves_no_figures_of_an_earlier_one(refused, run_script, folder_data, checkpoint_path):
    given = ["--config", folder_data.config, f"test.ckpt_path={checkpoint_path}"]
    assert run_script("evaluate", *given).code == 0
    figures = folder_data.ckpt_dir / "evaluate_output" / "metrics.json"
    assert json.loads(figures.read_text())["images"] == 2
    put(folder_data.root / "val_mask" / "1.png", np.full((48, 64), 9))
    refused("evaluate", *given, logs=True)
    assert not figures.exists()


# --- what inference is given


@pytest.fixture
def infer(refused, folder_data, checkpoint_path, tmp_path):
    """Give a function that runs inference on something that it must refuse."""

    def run(source: object, *more: object) -> str:
        given = ["--config", folder_data.config, f"test.ckpt_path={checkpoint_path}", "--output", tmp_path / "out"]
        return refused("inference", *given, "--input", source, *more)

    return run


def test_input_that_is_nothing(infer, tmp_path):
    for name in ("no.png", "no.mp4", "no", "*.png", "no/*.jpg"):
        assert has(infer(tmp_path / name), tmp_path / name)
    (tmp_path / "empty").mkdir()
    assert has(infer(tmp_path / "empty"), tmp_path / "empty", ".jpg")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.mp4", "a.avi", "a.txt", "a"])
@pytest.mark.parametrize("content", [b"", b"hello"])
def test_input_that_is_no_image_or_video(infer, tmp_path, name, content):
    path = tmp_path / "in" / name
    path.parent.mkdir()
    path.write_bytes(content)
    assert has(infer(path), path)
    assert not (tmp_path / "out").exists()


def test_output_that_is_a_file(refused, folder_data, checkpoint_path, tmp_path):
    (tmp_path / "out").write_text("mine")
    given = ["--config", folder_data.config, f"test.ckpt_path={checkpoint_path}", "--output", tmp_path / "out"]
    line = refused("inference", *given, "--input", folder_data.root / "val")
    assert has(line, tmp_path / "out", "--output")


def test_broken_inputs_among_good_ones_are_reported_and_skipped(run_script, folder_data, checkpoint_path, tmp_path):
    source = tmp_path / "in"
    shutil.copytree(folder_data.root / "val", source)
    for name in ("broken.png", "empty.jpg", "broken.mp4"):
        (source / name).write_bytes(b"" if name == "empty.jpg" else b"no picture")
    (source / "notes.txt").write_text("not meant")
    result = run_script(
        "inference",
        *("--config", folder_data.config, f"test.ckpt_path={checkpoint_path}"),
        *("--input", source, "--output", tmp_path / "out"),
    )
    assert result.code == 1
    lines = result.err.splitlines()
    assert len(lines) == 3 and all(line.startswith("skipped: ") for line in lines), result.err
    for name in ("broken.png", "empty.jpg", "broken.mp4"):
        assert sum(str(source / name) in line for line in lines) == 1
    assert "2 of 5" in result.out
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["0_overlay.png", "0_pred.png", "1_overlay.png", "1_pred.png"]


def test_good_inputs_end_with_zero(run_script, folder_data, checkpoint_path, tmp_path):
    result = run_script(
        "inference",
        *("--config", folder_data.config, f"test.ckpt_path={checkpoint_path}"),
        *("--input", folder_data.root / "val", "--output", tmp_path / "out"),
    )
    assert (result.code, result.err) == (0, "")
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_input_that_is_removed_on_the_way_is_skipped(run_script, folder_data, checkpoint_path, tmp_path, monkeypatch):
    def find(text: str, *, recursive: bool) -> list[Source]:
        return [Source(folder_data.root / "val" / f"{name}.png", "image", name) for name in ("gone", "0")]

    monkeypatch.setattr("inference.find_sources", find)
    result = run_script(
        "inference",
        *("--config", folder_data.config, f"test.ckpt_path={checkpoint_path}"),
        *("--input", "x", "--output", tmp_path / "out"),
    )
    assert result.code == 1 and "gone.png" in result.err
    assert (tmp_path / "out" / "0_pred.png").is_file()


def test_training_run_on_the_tiny_data_is_good_for_the_other_scripts(run_script, folder_data, tmp_path):
    """The control of this file: the same data without a fault."""
    result = run_script("train", "--config", folder_data.config)
    assert (result.code, result.err) == (0, "")
    (best,) = folder_data.ckpt_dir.glob("*_best_model.pth")
    assert read_checkpoint(best).classes.names == ("road", "sky", "car")
    assert run_script("evaluate", "--config", folder_data.config).code == 0
    given = ["--config", folder_data.config, "--input", folder_data.root / "val" / "0.png"]
    assert run_script("inference", *given).code == 0
    with Image.open(folder_data.ckpt_dir / "inference_output" / "0_pred.png") as pred:
        assert pred.size == (64, 48)
        assert set(np.unique(pred)) <= {0, 1, 2}
