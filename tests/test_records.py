"""train.log, train.jsonl, TensorBoard events and curves.png."""

from io import BytesIO
from unittest.mock import MagicMock

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import CLASSES
from utils.training.records import Records, draw_curves, read_json_lines

VALIDATED = {"miou": 0.5, "pixel_accuracy": 0.8, "class_iou": {"road": 0.25, "traffic.light": None}}


@pytest.fixture
def curves(monkeypatch, tmp_path):
    """Return a function that draws records; it returns the points of each line, by panel and name."""
    found = {}

    def save(figure, path, **options):
        path.touch()
        for axes in figure.axes:
            found.update({(axes.get_title(), line.get_label()): line.get_xydata().tolist() for line in axes.lines})
            legend = [text.get_text() for text in axes.get_legend().get_texts()] if axes.lines else []
            assert legend == [line.get_label() for line in axes.lines]

    def draw(records):
        draw_curves(records, tmp_path / "curves.png")
        return found

    monkeypatch.setattr(Figure, "savefig", save)
    return draw


@pytest.mark.filterwarnings("error")
def test_every_figure_is_in_the_curves(curves):
    ious = {"class_iou.road": 0.3, "class_iou.sky": None, "class_iou": {"_background_": 0.4}}
    assert curves([{"epoch": 1, "loss": 0.5, "lr_head": 0.1, "miou": 0.2, **ious}]) == {
        ("loss", " loss"): [[1, 0.5]],
        ("learning rate", " lr_head"): [[1, 0.1]],
        ("validation", " miou"): [[1, 0.2]],
        ("IoU per class", " road"): [[1, 0.3]],
        ("IoU per class", " _background_"): [[1, 0.4]],  # names that begin with an underscore are left out of legends
    }


def test_the_last_record_of_an_epoch_counts_in_the_curves(curves):
    found = curves([{"epoch": 1, "loss": 9.0}, {"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}])
    assert found == {("loss", " loss"): [[1, 2], [2, 1]]}


def test_curves_leave_out_an_earlier_run_in_the_folder(curves):
    earlier = [{"epoch": epoch, "loss": 9.0} for epoch in (1, 2, 3)]
    found = curves([*earlier, *({"epoch": epoch, "loss": 1.0} for epoch in (1, 2))])
    assert found == {("loss", " loss"): [[1, 1], [2, 1]]}


def test_records_write_all_their_files(tmp_path):
    (tmp_path / ".0123abcd.part.pth").write_text("left by a killed run")
    sample = {"image": torch.zeros(3, 4, 6, dtype=torch.uint8), "target": torch.zeros(4, 6, dtype=torch.uint8)}
    records = Records(tmp_path)
    records.log.info("before the beginning")
    assert not (tmp_path / "train.log").exists()

    dataset = MagicMock(classes=CLASSES)
    dataset.__getitem__.return_value = sample
    with records.writing(first=0, config="train:\n  epochs: 1"):
        for iteration in (7, 14):
            for index in (0, 4, 8, 12):  # those of the first of four processes
                records.show_prediction(dataset, iteration, index, sample["target"] + 1)
        records.log_epoch({"epoch": 1, "iteration": 7, "loss": 0.5, "seconds": 60.0, **VALIDATED}, epochs=3, best=True)
        records.finish()

    first, second = (tmp_path / "train.log").read_text().splitlines()
    assert first.endswith("before the beginning")
    assert second.endswith("epoch   1/3  loss 0.5000  mIoU 0.5000 (best)  pixel accuracy 0.8000  60.0 s, 02:00 left")
    (line,) = read_json_lines(tmp_path / "train.jsonl")
    assert line == {"run": records.started, "epoch": 1, "iteration": 7, "loss": 0.5, "seconds": 60.0, **VALIDATED}
    assert Image.open(tmp_path / "curves.png").width > 500
    assert {path.name for path in tmp_path.glob(".*")} <= {".lock"}
    events = EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["scalars"]) == {"class_iou/road", "loss", "miou", "pixel_accuracy", "seconds"}
    assert [(event.step, event.value) for event in events.Scalars("class_iou/road")] == [(7, 0.25)]
    assert events.Tags()["images"] == ["validation/0", "validation/4", "validation/8"]
    first, second = events.Images("validation/0")
    assert (first.step, second.step) == (7, 14)
    sheet = Image.open(BytesIO(first.encoded_image_string))
    columns = [sheet.getpixel((sheet.width * part // 6, sheet.height // 2)) for part in (3, 5)]
    assert columns == list(CLASSES.colors[:2])  # the label, then the prediction
    assert events.Tags()["tensors"] == ["config/text_summary"]


def test_a_second_run_in_the_folder_is_refused_and_leaves_the_first_ones_files_alone(tmp_path):
    first = Records(tmp_path)
    with first.writing(first=0, config=""):
        (tmp_path / ".0123abcd.part.pth").write_text("being written")
        before = sorted(tmp_path.iterdir())
        with (
            pytest.raises(BlockingIOError, match=r"another process is at work in .*; stop it"),
            Records(tmp_path).writing(first=0, config=""),
        ):
            pytest.fail("the folder is in use")
        assert sorted(tmp_path.iterdir()) == before
        first.finish()
    second = Records(tmp_path)
    with second.writing(first=0, config=""):
        second.finish()


def test_a_resumed_run_continues_the_log(tmp_path):
    for word in ("first", "second"):
        records = Records(tmp_path)
        with records.writing(first=0, config=""):
            records.log.info(word)
            records.finish()
    assert [line.split()[-1] for line in (tmp_path / "train.log").read_text().splitlines()] == ["first", "second"]


def test_a_truncated_line_is_skipped(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"epoch": 1}\n{"epo')
    assert read_json_lines(path) == [{"epoch": 1}]
    for epoch in (2, 3):
        Records(tmp_path).log_epoch({"epoch": epoch, "loss": 1.0, "seconds": 1}, epochs=3, best=False)
    assert [record["epoch"] for record in read_json_lines(path)] == [1, 2, 3]


def test_tensorboard_hides_what_an_interrupted_run_wrote_later(tmp_path):
    for first, iterations in ((0, (7, 14, 21)), (15, (21, 28))):
        records = Records(tmp_path)
        with records.writing(first=first, config=""):
            for iteration in iterations:
                record = {"epoch": iteration // 7, "iteration": iteration, "loss": float(first), "seconds": 1.0}
                records.log_epoch(record, epochs=4, best=False)
            records.finish()
        # TensorBoard reads in the order of the names, which within one second is not that of writing.
        (events,) = tmp_path.glob("events.out.tfevents.1*")
        events.rename(tmp_path / f"events.out.tfevents.{first:010d}")
    scalars = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in scalars] == [(7, 0), (14, 0), (21, 15), (28, 15)]
