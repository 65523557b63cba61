"""Weights that are missing, damaged or of something else."""

from pathlib import Path

import pytest
import torch

from tests.bad_input.conftest import arguments, has, untrained
from utils.weights.checkpoint import save_checkpoint


def test_backbone_weights_that_do_not_fit(refused, folder_data, tmp_path):
    torch.save({"conv1.weight": torch.zeros(64, 3, 3, 3), "stray": torch.zeros(1)}, tmp_path / "weights.pth")
    line = refused("train", "--config", folder_data.config, f"model.backbone_weights={tmp_path}/weights.pth")
    assert has(line, "weights.pth", "stray", "conv1.weight (64, 3, 3, 3) for (16, 3, 7, 7)")
    torch.save([1, 2], tmp_path / "weights.pth")
    assert has(
        refused("train", "--config", folder_data.config, f"model.backbone_weights={tmp_path}/weights.pth"),
        "weights.pth",
    )


@pytest.mark.parametrize("script", ["evaluate", "inference"])
def test_missing_checkpoint(refused, folder_data, script, tmp_path):
    given = arguments(script, folder_data)
    assert has(refused(script, *given), "best_model.pth", folder_data.ckpt_dir, "test.ckpt_path")
    assert has(refused(script, *given, f"test.ckpt_path={tmp_path}/no.pth"), tmp_path / "no.pth", "test.ckpt_path")
    assert has(refused(script, *given, f"test.ckpt_path={tmp_path}"), tmp_path, "test.ckpt_path")


class Stranger:
    """An object that only a pickle which runs code could bring back; that code writes into the working directory."""

    def __reduce__(self):
        return Path.touch, (Path("ran"),)


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


@pytest.mark.parametrize(("script", "kind"), [("evaluate", "text"), *(("inference", kind) for kind in FOREIGN)])
def test_foreign_checkpoint(refused, folder_data, tmp_path, monkeypatch, script, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "foreign.pth"
    if isinstance(FOREIGN[kind], bytes):
        path.write_bytes(FOREIGN[kind])
    else:
        torch.save(FOREIGN[kind], path)
    line = refused(script, *arguments(script, folder_data), f"test.ckpt_path={path}")
    assert has(line.replace(str(path), "FILE"), "FILE", "checkpoint", *["nothing in it was run"] * (kind == "code"))
    assert not Path("ran").exists()


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
def test_checkpoint_with_a_configuration_of_another_kind(refused, checkpoint_path, tmp_path, monkeypatch, change, word):
    """Evaluation without --config reads the checkpoint's own."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "damaged.pth"
    torch.save(torch.load(checkpoint_path, weights_only=True) | change, path)
    line = refused("evaluate", f"test.ckpt_path={path}")
    assert has(line.replace(str(path), "FILE"), "FILE", word)


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
