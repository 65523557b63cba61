"""Wrong settings. All messages of the configuration: test_config.py, test_settings.py in the folder above."""

import pytest
import torch

from tests.bad_input.conftest import SCRIPTS, arguments, has


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
def test_a_wrong_setting_is_named(refused, folder_data, script, override, words):
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
def test_a_wrong_gpu_number_is_named(refused, folder_data, checkpoint_path, monkeypatch, script):
    given = [*arguments(script, folder_data), f"test.ckpt_path={checkpoint_path}"]
    line = refused(script, *given, "train.specific_gpu_num=first")
    assert has(line, "train.specific_gpu_num", "number of a GPU", "'first'")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    line = refused(script, *given, "train.specific_gpu_num=3")
    assert has(line, "train.specific_gpu_num is 3", "1 GPU")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["dataset.classes=[]", "dataset.colors=[]"], ["dataset.classes is empty"]),
        (["dataset.classes=[a]", "dataset.colors=[]"], ["classes", "got 1"]),
        (["dataset.classes=[a, b, a]"], ["class names must differ", "a, b, a"]),
        (["dataset.colors=[[0, 0, 0]]"], ["3 dataset.classes", "1 colours"]),
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
