"""What a run validates, keeps and tells."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.conftest import EPOCHS, records
from train import build_trainer
from utils.config import load_config
from utils.inference.segmenter import Segmenter
from utils.training import trainer as trainer_module
from utils.training.records import Records
from utils.weights.checkpoint import read_checkpoint

REPOSITORY = Path(__file__).parent.parent


def test_what_is_validated_and_kept_is_the_running_mean(build, tmp_path, monkeypatch):
    trainer = build(tmp_path / "run", ema=0.5)
    beginning = trainer.network.classifier.weight.clone()
    validated = []

    def segmenter(network, **options):
        validated.append(network)
        return Segmenter(network, **options)

    monkeypatch.setattr(trainer_module, "Segmenter", segmenter)
    trainer.fit(epochs=1, val_epoch=1)
    assert validated == [trainer.state.mean.module]
    kept, mean = read_checkpoint(trainer.state.best_path).state_dict, trainer.state.mean.module.state_dict()
    assert all(torch.equal(kept[name], mean[name]) for name in mean)
    for other in (trainer.network.classifier.weight, beginning):
        assert not torch.equal(kept["classifier.weight"], other)


def test_validation_looks_at_images_in_the_configured_size(build, tmp_path, monkeypatch):
    sizes = []

    def segmenter(network, **options):
        segment = Segmenter(network, **options)
        scores = segment.scores
        segment.scores = lambda image: sizes.append(image.shape[-2:]) or scores(image)
        return segment

    monkeypatch.setattr(trainer_module, "Segmenter", segmenter)
    build(tmp_path, short_side=96).fit(epochs=1, val_epoch=1)
    assert set(sizes) == {(96, 128)}  # the images are 48x64


# label 0 eight times, 1 and 2 once; by epoch, mIoU 0.27, 0.57, 0.5 and pixel accuracy 0.8, 0.6, 0.9
LABELS = [0] * 8 + [1, 2]


PREDICTED = [[0] * 10, [0] * 4 + [1] * 4 + [1, 2], [0] * 8 + [2, 2]]


def test_the_best_is_chosen_by_miou_not_by_loss_accuracy_or_age(build, tmp_path, monkeypatch):
    def validate(segment, batches, *, confusion, on_image):
        orders.append(trainer.train_batches.sampler.epoch)
        assert not trainer.network.training
        pred = PREDICTED[trainer.epoch - 1]
        confusion.update(torch.tensor([pred], dtype=torch.uint8), torch.tensor([LABELS], dtype=torch.uint8))

    def falling(outputs, target):
        return {"loss": 0 * outputs["out"].sum() + 10 - trainer.state.iteration}

    orders = []
    monkeypatch.setattr(trainer_module, "evaluate", validate)
    trainer = build(tmp_path, criterion=falling)
    trainer.fit(epochs=EPOCHS, val_epoch=1)
    (best,) = tmp_path.glob("*_best_model.pth")
    assert best == trainer.state.best_path and best.name == "icnet_resnet18_2_0.567_best_model.pth"
    assert read_checkpoint(best).epoch == 2
    figures = records(tmp_path)
    assert orders == [1, 2, 3]  # each epoch has an order of its own
    assert [record["loss"] for record in figures] == [9.5, 7.5, 5.5]
    assert [record["pixel_accuracy"] for record in figures] == pytest.approx([0.8, 0.6, 0.9])


def test_every_setting_of_the_run_reaches_its_part(folder_data, tmp_path):
    overrides = ["train.epochs=3", "train.accumulate=2", "train.ema=0.8", "train.freeze_bn=true", "train.amp=bf16"]
    overrides += ["train.log_iter=3", "train.save_iter=5", "optimizer.clip_norm=0.5", "optimizer.momentum=0.3"]
    overrides += ["model.variant=psp", "model.ppm=none", "model.dropout=0.1", "loss.aux_weight=0.2", "test.split=train"]
    overrides += ["train.valid_batch_size=3", "train.seed=4"]
    config = load_config(folder_data.config, overrides)
    trainer = build_trainer(config, torch.device("cpu"), Records(tmp_path))
    assert (trainer.accumulate, trainer.ema, trainer.freeze_bn, trainer.precision) == (2, 0.8, True, "bf16")
    assert (trainer.log_iter, trainer.save_iter, trainer.clip) == (3, 5, 0.5)
    assert {group["momentum"] for group in trainer.optimizer.param_groups} == {0.3}
    assert trainer.network.structure == {"variant": "psp", "ppm": "none", "sub4_input": "sub2", "dropout": 0.1}
    assert trainer.criterion.aux_weight == 0.2 and trainer.criterion.align_corners is False
    assert trainer.name == "icnet_psp_resnet18" and trainer.description.config == config.as_dict()
    assert (trainer.train_batches.batch_size, trainer.train_batches.sampler.seed) == (2, 4)
    assert trainer.train_batches.dataset.seed == 4 and trainer.train_batches.dataset.transform is not None
    assert [len(batch) for batch in trainer.val_batches] == [3, 1]
    factor = trainer.scheduler.lr_lambdas[0]  # of three epochs of two iterations each
    assert factor(5) > 0 and factor(6) == 0


def test_the_published_network_is_trained_with_aligned_corners(folder_data, tmp_path):
    trainer = build_trainer(load_config(folder_data.config), torch.device("cpu"), Records(tmp_path))
    assert trainer.network.align_corners and trainer.criterion.align_corners


def test_a_loss_that_is_not_finite_ends_the_run_with_its_images(build, tmp_path):
    trainer = build(tmp_path / "run", log_iter=1)
    with torch.no_grad():
        trainer.network.classifier.weight[0] = torch.inf
    with pytest.raises(
        ValueError, match=r"not finite at iteration 1 \(learning rates: backbone 0\.0.*images: .*png"
    ) as error:
        trainer.fit(epochs=1, val_epoch=1)
    saved = torch.load(tmp_path / "run" / "diverged.pth")
    assert saved["iteration"] == 1 and len(saved["batch"]) == 2
    assert all(image in str(error.value) for image in saved["images"])
    seen = next(iter(trainer.train_batches))["image"]
    assert torch.equal(torch.stack([sample["image"] for sample in saved["batch"]]), seen)


def test_a_run_leaves_curves_and_tensorboard_files(folder_data, run_script):
    folder_data.ckpt_dir.mkdir()
    (folder_data.ckpt_dir / ".last.123.part.pth").write_text("left by a kill")
    assert run_script("train", "--config", folder_data.config).code == 0
    assert Image.open(folder_data.ckpt_dir / "curves.png").width > 500
    assert list(folder_data.ckpt_dir.glob("events.out.tfevents.*"))
    assert not list(folder_data.ckpt_dir.glob(".*"))
    record = records(folder_data.ckpt_dir)[0]
    total = record["loss_out"] + 0.4 * (record["loss_aux_8"] + record["loss_aux_16"])
    assert record["loss"] == pytest.approx(total, rel=1e-5)


def test_a_batch_of_one_at_the_smallest_crop_and_an_incomplete_last_batch(folder_data, run_script):
    """Of 32x32 pixels the deep layers are left with one; four validation images come in batches of three."""
    overrides = ["train.train_batch_size=1", "model.crop_size=32", "test.split=train", "train.valid_batch_size=3"]
    result = run_script("train", "--config", folder_data.config, *overrides)
    assert result.code == 0, result.err
    last = read_checkpoint(folder_data.ckpt_dir / "last.pth")
    assert last.iteration == 4 and last.metrics["images"] == 4
    assert all(tensor.isfinite().all() for tensor in last.state_dict.values())
