"""Wrong settings. All messages of the configuration: test_config.py, test_settings.py in the folder above."""

import pytest
import torch

from tests.bad_input.conftest import SCRIPTS, arguments, has


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_wrong_setting_is_named(refused, folder_data, script):
    assert has(refused(script, *arguments(script, folder_data), "train.epoch=3"), "train.epoch", "train.epochs")


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
        (["train.train_batch_size=5"], ["4 images", "train.train_batch_size (5)"]),
        (["model.backbone_weights=no.pth"], ["model.backbone_weights", "no.pth", "IMAGENET1K_V1"]),
        (["train.seed=4294967296"], ["train.seed", "4294967296"]),
    ],
)
def test_training_setting_that_does_not_fit_the_data(refused, folder_data, overrides, words):
    assert has(refused("train", "--config", folder_data.config, *overrides), *words)


@pytest.mark.parametrize("below", ["", "/run"], ids=["itself", "parent"])
def test_checkpoint_folder_that_is_a_file(refused, folder_data, below):
    folder_data.ckpt_dir.write_text("not a folder")
    line = refused("train", "--config", folder_data.config, f"train.ckpt_dir={folder_data.ckpt_dir}{below}")
    assert has(line, folder_data.ckpt_dir, "train.ckpt_dir")
