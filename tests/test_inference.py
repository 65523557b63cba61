"""inference.py run on images: outputs, resuming, errors and interruptions."""

import json
import os
import re
import signal
import subprocess
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dataset.labels import cityscapes_classes
from tests.conftest import CLASSES
from utils.inference.predictor import Predictor
from utils.io.drawing import Painter
from utils.io.outputs import Outputs
from utils.io.sources import Source


def put(path: Path, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)).save(path, **options)
    return path


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_every_kind_of_output_of_an_image(infer, pictures, tmp_path, checkpoint_path):
    result = infer(pictures / "a.png", "--save", "pred,color,overlay,side", "--json", "--legend", "--alpha", 0.3)
    assert (result.code, result.err) == (0, "")
    out = tmp_path / "out"
    assert names(out) == ["a_color.png", "a_overlay.png", "a_pred.png", "a_shares.json", "a_side.png"]
    labels = np.asarray(Image.open(out / "a_pred.png"))
    assert np.array_equal(labels, Predictor(checkpoint_path).predict(pictures / "a.png"))
    assert Image.open(out / "a_side.png").size == (128, 48)
    legend = Painter(classes=CLASSES, legend=True).paint("color", np.zeros((48, 64, 3), np.uint8), labels)
    assert np.array_equal(np.asarray(Image.open(out / "a_color.png")), legend)
    image = np.asarray(Image.open(pictures / "a.png"))
    faint = Painter(classes=CLASSES, legend=True, alpha=0.3).paint("overlay", image, labels)
    assert np.array_equal(np.asarray(Image.open(out / "a_overlay.png")), faint)
    facts = json.loads((out / "a_shares.json").read_text())
    assert (facts["width"], facts["height"], facts["input"]) == (64, 48, str(pictures / "a.png"))
    assert sum(facts["shares"].values()) == pytest.approx(1)
    assert {name: facts["shares"][name] for name in CLASSES.names} == {
        name: pytest.approx((labels == index).mean())
        for index, name in enumerate(CLASSES.names)  # 0 for absent ones
    }


def test_only_the_classes_asked_for_are_shown_but_all_are_in_pred(infer, pictures, checkpoint_path, tmp_path):
    result = infer(pictures / "a.png", "--save", "pred,overlay", "--classes", "sky, car", "--json")
    assert result.code == 0 and "road" not in result.out
    out, labels = tmp_path / "out", Predictor(checkpoint_path).predict(pictures / "a.png")
    assert 0 in labels and np.array_equal(np.asarray(Image.open(out / "a_pred.png")), labels)
    image = np.asarray(Image.open(pictures / "a.png"))
    expected = Painter(classes=CLASSES, shown=("sky", "car")).paint("overlay", image, labels)
    assert np.array_equal(np.asarray(Image.open(out / "a_overlay.png")), expected)
    assert set(json.loads((out / "a_shares.json").read_text())["shares"]) == {"sky", "car"}


def test_shares_alone(infer, pictures, tmp_path):
    assert infer(pictures / "a.png", "--save", "none", "--json").code == 0
    assert names(tmp_path / "out") == ["a_shares.json"]


def test_label_ids_are_the_official_ones(tmp_path):
    painter = Painter(classes=cityscapes_classes())
    outputs = Outputs(folder=tmp_path, painter=painter, kinds=("labelids",))
    labels = np.array([[0, 1], [13, 18]], np.uint8)
    outputs.write(outputs.files(Source("a.png", "image", "a")), np.zeros((2, 2, 3), np.uint8), labels, {})
    with Image.open(tmp_path / "a_labelids.png") as image:
        assert image.mode == "L" and np.asarray(image).tolist() == [[7, 8], [26, 33]]


def test_label_ids_need_the_cityscapes_classes(infer, pictures):
    result = infer(pictures / "a.png", "--save", "labelids")
    assert result.code == 2 and "needs the Cityscapes classes, but the network has road, sky, car" in result.err


def test_inputs_with_the_same_stem_get_separate_outputs(infer, pictures, tmp_path):
    assert infer(pictures, "--recursive", "--save", "pred").code == 0
    assert len(names(tmp_path / "out")) == 3


def test_interrupted_run_is_resumed(infer, pictures, tmp_path):
    assert infer(pictures).code == 0
    out = tmp_path / "out"
    (out / "b_overlay.png").unlink()
    (out / "a_pred.png").write_text("mine")
    result = infer(pictures)
    assert result.code == 0 and "1 of 2 inputs done, 1 already complete" in result.out and "a.png:" not in result.out
    assert (out / "a_pred.png").read_text() == "mine" and (out / "b_overlay.png").is_file()
    assert "0 of 2 inputs done, 2 already complete" in infer(pictures).out
    assert "2 of 2 inputs done;" in infer(pictures, "--overwrite").out
    assert Image.open(out / "a_pred.png").mode == "P"


def test_output_never_overwrites_an_input(infer, pictures, tmp_path):
    put(tmp_path / "out" / "a.png")
    put(tmp_path / "out" / "a_overlay.png")
    before = (tmp_path / "out" / "a_overlay.png").read_bytes()
    result = infer(tmp_path / "out", "--overwrite")
    assert result.code == 2 and "a_overlay.png is also an input" in result.err
    assert (tmp_path / "out" / "a_overlay.png").read_bytes() == before


def test_image_from_standard_input(infer, pictures, tmp_path, monkeypatch):
    for content, code in (((pictures / "a.png").read_bytes(), 0), (b"", 2), (b"words", 2)):
        monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(content)))
        result = infer("-")
        assert result.code == code
        assert not code or result.err == "error: standard input is not a readable image\n"
    assert all(re.fullmatch(r"stdin_\d{8}_\d{6}_\d{6}_(overlay|pred)\.png", name) for name in names(tmp_path / "out"))
    assert len(names(tmp_path / "out")) == 2


def test_missing_file_in_a_list_is_skipped(infer, pictures, tmp_path):
    (tmp_path / "list.txt").write_text(f"{pictures}/b.jpg\n{pictures}/gone.jpg\n{pictures}/a.png\n")
    result = infer(tmp_path / "list.txt", "--save", "pred")
    assert result.code == 1 and "2 of 3" in result.out and result.err.count("skipped: no image") == 1
    assert names(tmp_path / "out") == ["a_pred.png", "b_pred.png"]


def test_quiet_prints_errors_only(infer, pictures):
    result = infer(pictures / "a.png", "--quiet")
    assert (result.code, result.out, result.err) == (0, "", "")
    (pictures / "broken.png").write_bytes(b"")
    result = infer(pictures, "--quiet")
    assert result.code == 1 and result.out == "" and "broken.png" in result.err


def test_log_reports_each_image_the_speed_and_a_summary(infer, pictures):
    lines = infer(pictures).out.splitlines()
    assert any(line.startswith(f"{pictures}/a.png: 64x48, ") and line.endswith("%") for line in lines)
    (speed,) = (line for line in lines if line.startswith("speed: "))
    for stage in ("decode", "network", "label map", "write"):
        assert f"{stage} " in speed
    assert lines[-1].startswith("2 of 2 inputs done; results in ")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--classes", "road,cars"), "unknown cars; the classes are road, sky, car"),
        (("--save", ","), "argument --save: names no kind of output; to write nothing, use none"),
        (("--output", ""), "argument --output: the path is empty"),
        (("--config", ""), "argument --config: the path is empty"),
        (("--save", "pred,index"), "unknown index; use some of pred, color, overlay, labelids, side"),
        (("--alpha", "1.5"), "--alpha must be from 0 to 1, got 1.5"),
        (("--alpha", "much"), "--alpha"),
        (("--every", "0"), "--every must be at least 1"),
        (("--start", "-1"), "--start must be at least 0"),
        (("--start", "3", "--end", "2"), "--end must be greater than --start"),
        (("--smooth", "1"), "--smooth must be at least 0 and below 1"),
        (("--smooth", "0.5"), "--smooth, --frames, --every, --start and --end are for videos"),
        (("--every", "2"), "are for videos, but "),
    ],
)
def test_wrong_option_is_an_error(infer, pictures, tmp_path, option, words):
    result = infer(pictures, *option)
    assert result.code == 2 and words in result.err and len(result.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_window_without_a_display_is_an_error(infer, pictures, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("QT_QPA_PLATFORM", "xcb")
    result = infer(pictures / "a.png", "--show")
    assert result.code == 2 and "--show: cannot open a window" in result.err


@pytest.fixture
def fake_window(monkeypatch):
    """Replace OpenCV's window by one that is always open, and for which no key is pressed."""
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0))
    for name, result in (("namedWindow", None), ("imshow", None), ("waitKey", -1), ("getWindowProperty", 1.0)):
        monkeypatch.setattr(cv2, name, lambda *_, result=result: result)


@pytest.mark.usefixtures("fake_window")
@pytest.mark.parametrize("last", [ord("q"), 27])  # 27: Escape
def test_window_shows_overlays_until_it_is_closed(infer, pictures, tmp_path, monkeypatch, last):
    shown, keys = [], [ord("x"), last]  # any other key continues
    monkeypatch.setattr(cv2, "imshow", lambda title, image: shown.append(image))
    monkeypatch.setattr(cv2, "waitKey", lambda milliseconds: keys[len(shown) - 1])
    put(pictures / "c.png")
    infer(pictures, "--show")
    assert len(shown) == 2
    for name, image in zip(("a", "b"), shown, strict=True):
        overlay = np.asarray(Image.open(tmp_path / "out" / f"{name}_overlay.png"))
        assert np.array_equal(image, overlay[..., ::-1])  # OpenCV uses BGR


@pytest.mark.usefixtures("fake_window")
@pytest.mark.parametrize(("source", "asked"), [("pictures", [1, 50] * 2), ("video", [1] * 10)])
def test_an_image_waits_for_a_key_and_a_video_does_not(infer, request, monkeypatch, source, asked):
    delays = []
    monkeypatch.setattr(cv2, "waitKey", lambda ms: delays.append(ms) or (-1 if ms == 1 else ord("x")))
    assert infer(request.getfixturevalue(source), "--show").code == 0 and delays == asked


def test_a_tilde_is_the_home_folder(infer, pictures, folder_data, tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(pictures)
    config = f"--config=~/{folder_data.config.relative_to(tmp_path)}"
    assert infer("~/in/a.png", config, "--output=~/there", "--save=pred").code == 0
    assert names(tmp_path / "there") == ["a_pred.png"]


@pytest.mark.usefixtures("fake_window")
def test_closing_the_window_ends_the_run(infer, pictures, monkeypatch):
    """OpenCV's Qt windows raise an error once the last one is closed."""

    def closed(*_):
        raise cv2.error("NULL guiReceiver")

    monkeypatch.setattr(cv2, "getWindowProperty", closed)
    stopped = infer(pictures, "--show")
    assert stopped.code == 130 and stopped.err.startswith("stopped after 1 of 2 inputs")
    last = infer(pictures, "--show")
    assert (last.code, last.err) == (0, "") and "1 of 2 inputs done" in last.out  # nothing is left to stop


def malformed() -> dict[str, bytes]:
    """Twenty image files of four formats: truncated, overwritten or with bytes missing."""
    files, rng = {}, np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (48, 64, 3)).astype(np.uint8))
    for suffix, kind in (("png", "png"), ("jpg", "jpeg"), ("tif", "tiff"), ("webp", "webp")):
        file = BytesIO()
        image.save(file, kind)
        good = file.getvalue()
        noise = rng.integers(0, 256, len(good)).astype(np.uint8).tobytes()
        files |= {
            f"cut.{suffix}": good[: len(good) // 2],
            f"head.{suffix}": noise[:16] + good[16:],
            f"tail.{suffix}": good[:60] + noise[60:],
            f"hole.{suffix}": good[:30] + good[90:],
            f"zeros.{suffix}": good[:20] + bytes(len(good) - 20),
        }
    return files


def test_malformed_images_are_skipped(infer, pictures, tmp_path):
    for name, content in malformed().items():
        (pictures / name).write_bytes(content)
    result = infer(pictures, "--save", "pred")
    assert result.code == 1 and "Traceback" not in result.err
    skipped = [line for line in result.err.splitlines() if line.startswith("skipped: ")]
    assert len(names(tmp_path / "out")) == 22 - len(skipped) and len(skipped) >= 12
    assert f"{22 - len(skipped)} of 22" in result.out


def test_full_disk(infer, pictures, tmp_path, monkeypatch):
    def save(self: Image.Image, path: Path, **options: object) -> None:
        Path(path).write_bytes(b"begun")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save)
    result = infer(pictures)
    assert result.code == 2 and result.err.endswith("a_pred.png: No space left on device\n")
    assert names(tmp_path / "out") == []


def interrupt(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, *, call: int) -> None:
    """Send Ctrl-C during the given call of a method."""
    original, calls = getattr(owner, method), []

    def counting(self, *given, **options):
        calls.append(given)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *given, **options)

    monkeypatch.setattr(owner, method, counting)


def test_interrupt_between_images_keeps_finished_outputs(infer, pictures, tmp_path, monkeypatch):
    interrupt(monkeypatch, Outputs, "write", call=1)
    result = infer(pictures)
    assert result.code == 130 and result.err == "stopped after 1 of 2 inputs; run the same command again for the rest\n"
    assert names(tmp_path / "out") == ["a_overlay.png", "a_pred.png"]
    assert "1 of 2 inputs done, 1 already complete" in infer(pictures).out


def test_an_input_is_not_overwritten_through_a_link(pictures, tmp_path):
    (tmp_path / "link").symlink_to(pictures)
    outputs = Outputs(folder=tmp_path / "link", painter=Painter(classes=CLASSES), overwrite=True)
    sources = [Source(pictures / f"{name}.png", "image", name) for name in ("a", "a_pred")]
    with pytest.raises(ValueError, match=r"a_pred\.png is also an input"):
        outputs.pending(sources)
