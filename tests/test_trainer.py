"""Training, validation, and the checkpoints and logs of a run."""

import logging
from dataclasses import replace
from unittest.mock import MagicMock

import pytest
import torch
from PIL import Image

from dataset.transforms import Normalization
from models import ICNet
from models.layers import resize
from tests.conftest import CLASSES, records
from tests.networks import trained_checkpoint
from train import build_network
from utils import distributed
from utils.cli import Interruption
from utils.config import load_config
from utils.inference.segmenter import PyTorchSegmenter, build_segmenter
from utils.training import trainer as trainer_module
from utils.weights.checkpoint import read_checkpoint, save_checkpoint


def test_the_ema_is_what_is_validated_and_saved(build, tmp_path, monkeypatch):
    trainer = build(tmp_path / "run", "train.ema=0.5", "train.epochs=1")
    initial = trainer.network.classifier.weight.clone()
    validated = []

    def segmenter(network, **options):
        validated.append(network)
        return PyTorchSegmenter(network, **options)

    monkeypatch.setattr(trainer_module, "PyTorchSegmenter", segmenter)
    trainer.fit()
    assert validated == [trainer.state.ema.module]
    saved, ema = read_checkpoint(trainer.state.best_path).state_dict, trainer.state.ema.module.state_dict()
    assert all(torch.equal(saved[name], ema[name]) for name in ema)
    for other in (trainer.network.classifier.weight, initial):
        assert not torch.equal(saved["classifier.weight"], other)


@pytest.mark.parametrize(
    ("setting", "size"), [("test.short_side=96", (96, 128)), ("test.input_size=[65,97]", (65, 97))]
)
def test_validation_resizes_images_as_evaluation_does(build, tmp_path, monkeypatch, setting, size):
    sizes = []

    def segmenter(network, **options):
        segment = PyTorchSegmenter(network, **options)
        scores = segment.scores
        segment.scores = lambda image: sizes.append(image.shape[-2:]) or scores(image)
        return segment

    monkeypatch.setattr(trainer_module, "PyTorchSegmenter", segmenter)
    build(tmp_path, setting, "test.tta.flip=true", "test.window=32", "test.stride=16", "train.epochs=1").fit()
    assert sizes == [size] * 2  # two images of 48x64, each in a single view


# Label 0 eight times, 1 and 2 once: mIoU 0.27, 0.57, 0.5 and pixel accuracy 0.8, 0.6, 0.9 in the three epochs
LABELS = [0] * 8 + [1, 2]
PREDICTED = [[0] * 10, [0] * 4 + [1] * 4 + [1, 2], [0] * 8 + [2, 2]]


def test_the_best_checkpoint_is_chosen_by_miou(build, tmp_path, monkeypatch):
    def validate(segment, batches, *, confusion, on_image):
        orders.append(trainer.train_loader.sampler.epoch)
        assert not trainer.network.training
        pred = PREDICTED[trainer.state.epoch - 1]
        confusion.update(torch.tensor([pred], dtype=torch.uint8), torch.tensor([LABELS], dtype=torch.uint8))

    def falling(outputs, target):
        return {"loss": 0 * outputs["out"].sum() + 10 - trainer.state.iteration}

    orders = []
    monkeypatch.setattr(trainer_module, "evaluate", validate)
    trainer = build(tmp_path)
    trainer.criterion = falling
    trainer.fit()
    (best,) = tmp_path.glob("*_best_model.pth")
    assert best == trainer.state.best_path and best.name == "icnet_resnet18_2_0.567_best_model.pth"
    assert read_checkpoint(best).epoch == 2
    metrics = records(tmp_path)
    assert orders == [1, 2, 3]  # each epoch has its own order
    assert [record["loss"] for record in metrics] == [9.5, 7.5, 5.5]
    assert [record["pixel_accuracy"] for record in metrics] == pytest.approx([0.8, 0.6, 0.9])


def test_classes_without_a_pixel_in_validation_are_named_once(build, folder_data, tmp_path, capsys):
    for path in (folder_data.root / "val_mask").iterdir():
        Image.new("L", Image.open(path).size, 0).save(path)
    build(tmp_path / "run", "train.epochs=2").fit()
    message = "no pixel of the validation set is labelled sky or car; once predicted, their IoU is 0\n"
    assert capsys.readouterr().out.count(message) == 1


def test_every_setting_of_the_run_is_applied(build, tmp_path, monkeypatch):
    overrides = ["train.epochs=3", "train.accumulate=2", "train.ema=0.8", "train.freeze_bn=true", "train.amp=bf16"]
    overrides += ["optimizer.clip_norm=0.5", "optimizer.momentum=0.3", "train.valid_batch_size=3", "train.seed=4"]
    overrides += ["model.variant=psp", "model.ppm=none", "model.dropout=0.1", "loss.aux_weight=0.2", "test.split=train"]
    overrides += ["model.width=0.5"]
    trainer = build(tmp_path, *overrides)
    assert {group["momentum"] for group in trainer.state.optimizer.param_groups} == {0.3}
    assert trainer.state.ema.decay == 0.8
    structure = {"variant": "psp", "ppm": "none", "sub4_input": "sub2", "dropout": 0.1, "width": 0.5}
    assert trainer.network.structure == trainer.template.structure == structure
    assert trainer.teacher is None
    assert trainer.criterion.aux_weight == 0.2 and trainer.criterion.align_corners is False
    assert trainer.name == "icnet_psp_resnet18" and trainer.template.config["train"]["ema"] == 0.8
    assert (trainer.train_loader.batch_size, trainer.train_loader.sampler.seed) == (2, 4)
    assert trainer.train_loader.dataset.seed == 4 and trainer.train_loader.dataset.transform is not None
    assert [len(batch) for batch in trainer.val_loader] == [3, 1]
    factor = trainer.state.scheduler.lr_lambdas[0]  # three epochs of two iterations each
    assert factor(5) > 0 and factor(6) == 0

    class Stop(Exception):
        pass

    def train_one_epoch(network, batches, *, accumulate, clip, freeze_bn, precision, **others):
        assert (accumulate, clip, freeze_bn, precision) == (2, 0.5, True, "bf16")
        raise Stop

    monkeypatch.setattr(trainer_module, "train_one_epoch", train_one_epoch)
    with pytest.raises(Stop):
        trainer.fit()


def test_the_teacher_is_neither_trained_nor_saved(build, tmp_path, checkpoint_path):
    before = read_checkpoint(checkpoint_path).state_dict
    trainer = build(tmp_path, f"loss.distill={checkpoint_path}", "model.width=0.5", "train.epochs=1")
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    expected = PyTorchSegmenter(read_checkpoint(checkpoint_path).build()).scores(image)
    assert torch.allclose(trainer.teacher(image), expected, atol=1e-4 * expected.abs().max())
    trainer.fit()
    assert torch.allclose(trainer.teacher(image), expected, atol=1e-4 * expected.abs().max())
    last = read_checkpoint(tmp_path / "last.pth")
    own = dict(trainer.network.named_parameters())
    optimized = [p for group in trainer.state.optimizer.param_groups for p in group["params"]]
    assert len(optimized) == len(own) and set(last.state_dict) == set(before)
    assert records(tmp_path)[0]["loss_distill"] > 0


@pytest.mark.parametrize(("student", "teacher"), [("published", "psp"), ("psp", "published"), ("psp", "psp")])
def test_the_teachers_logits_are_right_once_resized_in_the_students_alignment(build, tmp_path, student, teacher):
    checkpoint, image = trained_checkpoint(variant=teacher), torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    save_checkpoint(tmp_path / "teacher.pth", checkpoint)
    trainer = build(tmp_path / "run", f"loss.distill={tmp_path / 'teacher.pth'}", f"model.variant={student}")
    segmenter = build_segmenter(checkpoint, "cpu")
    expected = resize(segmenter.scores(image), (64, 96), align_corners=segmenter.align_corners)
    given = resize(trainer.teacher(image), (64, 96), align_corners=trainer.criterion.align_corners)
    torch.testing.assert_close(given, expected)


def test_a_non_finite_loss_ends_the_run_and_saves_the_batch(build, tmp_path):
    trainer = build(tmp_path / "run", "train.log_iter=1")
    with torch.no_grad():
        trainer.network.classifier.weight[0] = torch.inf
    message = r"not finite at iteration 1 \(learning rates: backbone 0\.0.*images: .*png.*lower optimizer\.init_lr"
    with pytest.raises(ValueError, match=message) as error:
        trainer.fit()
    assert trainer.state.iteration == 1
    saved = torch.load(tmp_path / "run" / "diverged.pth")
    assert set(saved) == {"iteration", "learning_rates", "images", "batch"}
    assert saved["iteration"] == 1 and len(saved["batch"]) == 2
    assert all(image in str(error.value) for image in saved["images"])
    seen = next(iter(trainer.train_loader))["image"]
    assert torch.equal(torch.stack([sample["image"] for sample in saved["batch"]]), seen)


def test_the_batch_of_a_later_iteration_is_named(build, tmp_path, monkeypatch):
    trainer = build(tmp_path)
    trainer.state.iteration = 4  # the last of the second epoch, as an epoch has two
    monkeypatch.setattr(trainer.state.losses, "find_divergence", lambda: 1)
    with pytest.raises(ValueError, match="not finite at iteration 4 "):
        trainer._check_losses()
    samples, sampler = trainer.train_loader.dataset.samples, trainer.train_loader.sampler
    expected = [str(samples[index].image) for _, index, _ in sampler.batches(2)[1].tolist()]
    assert torch.load(tmp_path / "diverged.pth")["images"] == expected


def test_the_first_process_to_overflow_names_the_batch(build, tmp_path, monkeypatch):
    """The gradients carry an overflow to the other processes, whose loss is not finite an iteration later."""
    trainer = build(tmp_path)
    trainer.state.iteration = 2
    monkeypatch.setattr(distributed, "gather", lambda own: [own, 2])
    with pytest.raises(ValueError, match="not finite at iteration 1 "):
        trainer._check_losses()


def test_all_processes_stop_where_they_agree_to(build, tmp_path, monkeypatch):
    trainer = build(tmp_path, "train.train_batch_size=1", "train.log_iter=3")
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "mean_over_processes", lambda value: value)
    monkeypatch.setattr(distributed, "gather", lambda own: [own, True] if isinstance(own, bool) else [own, own])
    with pytest.raises(Interruption, match="after iteration 3,"):  # a signal has reached the other process alone
        trainer.fit()


# found at the end of the epoch, and before the state is saved
@pytest.mark.parametrize("override", ["train.log_iter=10", "train.save_iter=1"])
def test_a_state_that_is_not_finite_is_never_saved(build, tmp_path, override):
    trainer = build(tmp_path, override)
    with torch.no_grad():
        trainer.network.classifier.weight[0] = torch.inf
    with pytest.raises(ValueError, match="not finite at iteration 1 "):
        trainer.fit()
    assert not (tmp_path / "last.pth").exists()


def test_a_broken_training_file_is_reported_before_the_first_epoch(build, folder_data, tmp_path):
    (folder_data.root / "train" / "0.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"train/0\.png cannot be read"):
        build(tmp_path)


def test_saves_and_validations_come_at_their_intervals(build, tmp_path, monkeypatch):
    settings = ["train.train_batch_size=1", "train.epochs=3"]  # three epochs of four iterations
    trainer = build(tmp_path, *settings, "train.save_iter=3", "train.val_epoch=2")
    saved = []
    monkeypatch.setattr(trainer.state, "save_last", lambda: saved.append(trainer.state.iteration))
    trainer.fit()
    assert saved == [3, 4, 6, 8, 8, 9, 12, 12]  # also at the end of an epoch, and before and after a validation
    assert [record["epoch"] for record in records(tmp_path) if "miou" in record] == [2, 3]


def test_batches_of_one_at_the_smallest_crop_size(folder_data, run_script):
    """At 32x32 pixels, the deepest feature maps have a single pixel; and the last validation batch is incomplete."""
    overrides = ["train.train_batch_size=1", "model.crop_size=32", "test.split=train", "train.valid_batch_size=3"]
    result = run_script("train", "--config", folder_data.config, *overrides)
    assert (result.code, result.err) == (0, "")
    last = read_checkpoint(folder_data.ckpt_dir / "last.pth")
    assert last.iteration == 4 and last.metrics["images"] == 4
    assert all(tensor.isfinite().all() for tensor in last.state_dict.values())
    (record,) = records(folder_data.ckpt_dir)
    total = record["loss_out"] + 0.4 * (record["loss_aux_8"] + record["loss_aux_16"])
    assert record["loss"] == pytest.approx(total, rel=1e-5)
    assert (folder_data.ckpt_dir / "curves.png").exists()
    assert list(folder_data.ckpt_dir.glob("events.out.tfevents.*"))


def test_augmentation_and_schedule_follow_the_configuration(build, tmp_path):
    overrides = ["train.epochs=3", "augment.mirror=0.1", "augment.scale_max=3"]
    overrides += ["optimizer.power=2", "optimizer.min_lr=0.005", "optimizer.warmup_iters=1"]
    trainer = build(tmp_path, *overrides)
    crop, mirror, *_ = trainer.train_loader.dataset.transform.transforms
    factor = trainer.state.scheduler.lr_lambdas[0]
    assert [factor(n) for n in (0, 3, 6)] == [1 / 2, 0.5 + 0.5 * 0.5**2, 0.5]
    assert (crop.short_sides, mirror.p) == ((24, 144), 0.1)
    assert trainer.network.align_corners and trainer.criterion.align_corners  # as in the published code


@pytest.fixture
def plain(checkpoint_path, tmp_path):
    unchanged = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    checkpoint = replace(read_checkpoint(checkpoint_path), normalization=unchanged)
    save_checkpoint(tmp_path / "plain.pth", checkpoint)
    return read_checkpoint(tmp_path / "plain.pth")


def test_images_are_normalised_as_the_weights_were_trained(build, tmp_path, plain):
    trainer, seen = build(tmp_path / "run", f"model.weights={plain.source}", "train.epochs=1"), []
    trainer.network.sub1.register_forward_pre_hook(lambda _, x: seen.append((x[0].min().item(), x[0].max().item())))
    trainer.fit()
    assert len(seen) == 2 + 2 and all(0 <= low < high <= 1 for low, high in seen)  # two batches, two validation images


def test_a_resumed_run_keeps_its_normalisation(folder_data, plain):
    config, log = load_config(folder_data.config), logging.getLogger("icnet")
    assert build_network(config, classes=CLASSES, log=log, last=plain)[1] == plain.normalization


def test_weights_for_classes_in_another_order_are_pointed_out(folder_data, checkpoint_path):
    config = load_config(folder_data.config, [f"model.weights={checkpoint_path}"])
    for classes, pointed_out in ((CLASSES, False), (replace(CLASSES, names=CLASSES.names[::-1]), True)):
        log = MagicMock()
        build_network(config, classes=classes, log=log)
        lines = [call.args[0] for call in log.info.call_args_list]
        assert any(line.endswith("names or another order: road, sky, car") for line in lines) == pointed_out


def test_validation_follows_the_configuration(build, tmp_path, monkeypatch):
    given, shared = [], []
    monkeypatch.setattr(trainer_module, "with_options", lambda segmenter, test: given.append(test) or segmenter)
    monkeypatch.setattr(distributed, "broadcast_buffers", shared.append)
    trainer = build(tmp_path, "test.resize_probabilities=true", "test.tta.flip=true", "train.epochs=1")
    trainer.fit()
    assert [(test.resize_probabilities, test.tta.flip) for test in given] == [(True, False)]
    assert shared == [trainer.state.trained]


@pytest.mark.parametrize(
    ("names", "words"),
    [(("road", "sky", "bus"), "name classes differently: bus / car"), (("road", "sky"), "another loss.distill")],
)
def test_a_teacher_with_other_classes_is_refused(build, checkpoint_path, tmp_path, names, words):
    teacher = ICNet(len(names), "resnet18", width=0.25)
    classes = replace(CLASSES, names=names, colors=CLASSES.colors[: len(names)])
    path = tmp_path / "teacher.pth"
    save_checkpoint(path, replace(read_checkpoint(checkpoint_path), state_dict=teacher.state_dict(), classes=classes))
    with pytest.raises(ValueError, match=words):
        build(tmp_path / "run", f"loss.distill={path}")


@pytest.mark.parametrize(("others", "expected"), [(["bf16"], "bf16"), (["fp16"], "fp16"), (["fp16", "fp32"], "fp32")])
def test_processes_on_unlike_gpus_agree_on_a_precision(build, tmp_path, monkeypatch, others, expected):
    monkeypatch.setattr("utils.runtime.choose_precision", lambda setting, device: "bf16")
    monkeypatch.setattr(distributed, "gather", lambda value: [value, *others] if value == "bf16" else [value])
    assert build(tmp_path / "run", "train.amp=auto").precision == expected
