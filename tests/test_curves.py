"""Curves and TensorBoard files of a run."""

import logging
import sys

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from utils.training.records import Board, draw_curves


@pytest.mark.filterwarnings("error")
def test_curves_are_drawn_also_of_epochs_without_validation(tmp_path):
    records = [{"epoch": n, "loss": 1 / n, "loss_out": 0.5 / n, "lr_head": 0.1, "seconds": 3} for n in (1, 2, 2, 3)]
    draw_curves(records, tmp_path / "plain.png")
    records[2] |= {"miou": 0.5, "pixel_accuracy": 0.8, "class_iou": {"road": 0.9, "train": None}}
    draw_curves(records, tmp_path / "validated.png")
    plain, validated = (np.asarray(Image.open(tmp_path / name)) for name in ("plain.png", "validated.png"))
    height, width = plain.shape[:2]
    assert (plain[: height // 2, : width // 2] != 255).any()
    assert (plain[height // 2 :] != validated[height // 2 :]).any()


def test_the_later_run_of_an_epoch_counts(tmp_path):
    first, again, second = {"epoch": 1, "loss": 9.0}, {"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}
    draw_curves([first, again, second], tmp_path / "twice.png")
    draw_curves([again, second], tmp_path / "once.png")
    assert (tmp_path / "twice.png").read_bytes() == (tmp_path / "once.png").read_bytes()


def test_board_writes_numbers_pictures_and_text(tmp_path):
    board = Board(tmp_path, log=logging.getLogger("test"))
    board.scalars({"loss": 0.5, "epoch": 1, "class_iou": {"road": 0.25, "train": None}, "run": "now"}, 7)
    board.picture("validation/0", np.zeros((4, 6, 3), np.uint8), 7)
    board.text("config", "train:\n  epochs: 1")
    board.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert sorted(events.Tags()["scalars"]) == ["class_iou/road", "loss"]
    assert [(event.step, event.value) for event in events.Scalars("class_iou/road")] == [(7, 0.25)]
    assert events.Images("validation/0")[0].width == 6
    assert events.Tags()["tensors"] == ["config/text_summary"]


def test_without_tensorboard_it_says_so_and_goes_on(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with caplog.at_level(logging.INFO):
        board = Board(tmp_path, log=logging.getLogger("test"))
    assert "pip install tensorboard" in caplog.text
    board.scalars({"loss": 0.5}, 1)
    board.picture("x", np.zeros((4, 6, 3), np.uint8), 1)
    board.text("x", "y")
    board.close()
    assert not list(tmp_path.iterdir())
