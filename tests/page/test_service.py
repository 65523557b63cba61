"""The service behind the web page, which needs no Gradio."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from demo.page import service as module
from demo.page.service import Result, engines, list_weights
from tests.conftest import CLASSES
from tests.page.conftest import ENGINE, IMAGES, result
from utils import runtime
from utils.inference.predictor import Predictor
from utils.io.drawing import Painter
from utils.io.video import VideoReader, writing_video

ROOT = Path(__file__).parents[2]


def test_picture_has_the_labels_of_its_network(service, files, labels):
    for name in ("a.pth", "b.pth"):
        found = service.segment(files[0], name, ENGINE)
        assert np.array_equal(found.labels, labels[name][0]) and np.array_equal(found.image, IMAGES[0])
        assert (found.name, found.engine, found.classes) == ("street0", "PyTorch, fp32", CLASSES)
        assert found.milliseconds > 0
    assert not np.array_equal(labels["a.pth"][0], labels["b.pth"][0])


def test_time_is_that_of_the_last_picture_alone(service, files, monkeypatch):
    network = service.network("a.pth", ENGINE)
    network.predictor.watch.seconds["network"] = 1000.0  # spent before
    assert service.segment(files[0], "a.pth", ENGINE).milliseconds < 1e5


def test_overlay_blends_the_chosen_classes_only():
    picture = result([[0, 0], [1, 2]])  # road (128, 64, 128), sky (70, 130, 180), car (0, 0, 142)
    assert picture.shares() == {"road": 0.5, "sky": 0.25, "car": 0.25}
    full = picture.overlay(1.0, ["road", "sky", "car"])
    assert full.tolist() == [
        [[128, 64, 128]] * 2,
        [[70, 130, 180], [0, 0, 142]],
    ]
    half = picture.overlay(0.5, ["sky"]).tolist()
    assert half == [[[100] * 3] * 2, [[85, 115, 140], [100] * 3]]
    assert np.array_equal(picture.overlay(1.0, []), picture.image)
    assert np.array_equal(picture.overlay(0.0, ["road"]), picture.image)


def test_results_of_one_name_are_separate_files(service):
    first, second = result([[0, 2]]), result([[1, 1]])
    paths = [service.save_label_map(first), service.save_label_map(second)]
    assert {Path(path).name for path in paths} == {"x_pred.png"} and paths[0] != paths[1]
    for path, expected in zip(paths, ([[0, 2]], [[1, 1]]), strict=True):
        with Image.open(path) as image:
            assert image.mode == "P" and np.asarray(image).tolist() == expected
    with Image.open(service.save_picture("x", np.full((8, 8, 3), (10, 200, 30), np.uint8))) as image:
        assert image.format == "JPEG" and np.abs(np.asarray(image).astype(int) - (10, 200, 30)).max() < 4


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jpg", b"no picture", "a.jpg cannot be read as an image: cannot identify image file 'a.jpg'"),
        (
            "a.jpg",
            (ROOT / "demo" / "leuven.jpg").read_bytes()[:9000],
            "a.jpg cannot be read as an image: ",
        ),
        ("a.png", (90, 10), "a.png has 90x10 pixels, which is too narrow: crop it"),
        ("a.png", (10, 90), "a.png has 10x90 pixels, which is too narrow: crop it"),
        ("a.png", (5500, 5500), "a.png has 5500x5500 pixels, more than 30 million: reduce it"),
        ("a.png", None, "no image a.png"),
    ],
)
def test_unusable_picture_is_named_without_the_folder(service, tmp_path, name, content, message):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        Image.new("1", content).save(path)
    with pytest.raises(ValueError) as raised:
        service.segment(str(path), "a.pth", ENGINE)
    assert str(raised.value).startswith(message) and str(tmp_path) not in str(raised.value)


def test_only_offered_weights_and_engines_are_opened(service, files, checkpoint_path):
    for name, engine in ((str(checkpoint_path), ENGINE), ("a.pth", "onnx fp32"), ("a.pth", "auto")):
        with pytest.raises(ValueError, match="reload the page"):
            service.segment(files[0], name, engine)


def test_visitors_at_the_same_time_do_not_mix(service, files, labels, monkeypatch):
    class Exclusive(Predictor):
        """A predictor that, like OpenVINO's, cannot be used by two threads at once."""

        def __init__(self, path: Path, **options: object) -> None:
            super().__init__(path, **options)
            opened.append(path)
            self.busy = threading.Lock()

        def predict(self, image: np.ndarray) -> np.ndarray:
            assert self.busy.acquire(blocking=False)
            time.sleep(0.005)
            try:
                return super().predict(image)
            finally:
                self.busy.release()

    opened: list[Path] = []
    monkeypatch.setattr(module, "Predictor", Exclusive)
    jobs = [(name, number) for _ in range(4) for name in ("a.pth", "b.pth") for number in range(len(IMAGES))]
    barrier = threading.Barrier(8)

    def visit(job: tuple[str, int]) -> Result:
        barrier.wait()
        return service.segment(files[job[1]], job[0], ENGINE)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(visit, jobs))
    for (name, number), seen in zip(jobs, found, strict=True):
        assert np.array_equal(seen.labels, labels[name][number]) and np.array_equal(seen.image, IMAGES[number])
    assert sorted(path.name for path in opened) == ["a.pth", "b.pth"]  # once each


def test_video_overlay_has_every_frame_and_a_legend(service, video, labels, tmp_path):
    target = tmp_path / "overlay.webm"
    options = {"alpha": 0.7, "shown": ["sky"]}
    steps = list(service.segment_video(str(video), target, "a.pth", ENGINE, **options))
    assert [(done, total) for done, total, _ in steps] == [(number, 10) for number in range(1, 11)]
    assert all(milliseconds > 0 for _, _, milliseconds in steps)
    painter, network = Painter(classes=CLASSES, legend=True, **options), service.network("a.pth", ENGINE)
    reader = VideoReader(target)
    assert reader.fps == pytest.approx(5)
    pairs = list(zip(VideoReader(video), reader, strict=True))
    for (_, frame), (_, found) in pairs:
        expected = painter.paint("overlay", frame, network.predictor.predict(frame))
        error, change = (np.abs(found.astype(float) - other).mean() for other in (expected, frame))
        assert error < 0.8 * change  # noise is hard on a codec
    assert len(pairs) == 10


def test_large_video_is_reduced(service, video, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "VIDEO_SIDE", 32)
    list(service.segment_video(str(video), tmp_path / "a.webm", "a.pth", ENGINE, alpha=0.5, shown=[]))
    assert next(iter(VideoReader(tmp_path / "a.webm")))[1].shape == (24, 32, 3)


def test_long_video_is_refused_or_cut_off_if_it_does_not_state_its_length(service, video, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_FRAMES", 4)
    options = (str(video), tmp_path / "a.webm", "a.pth", ENGINE)
    with pytest.raises(ValueError, match=r"^v\.mp4 has 10 frames, more than 4: use inference\.py for it$"):
        next(service.segment_video(*options, alpha=0.5, shown=[]))

    class Recording(VideoReader):
        frames = property(lambda self: 0, lambda self, value: None)  # type: ignore[assignment]

    monkeypatch.setattr(module, "VideoReader", Recording)
    steps = list(service.segment_video(*options, alpha=0.5, shown=[]))
    assert [step[:2] for step in steps] == [(number, 0) for number in range(1, 5)]
    assert len(list(VideoReader(tmp_path / "a.webm"))) == 4


def test_unusable_video_is_named_without_the_folder(service, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(ValueError, match=r"^cannot read a\.mp4 as a video: no frame could be decoded$"):
        next(service.segment_video(str(tmp_path / "a.mp4"), tmp_path / "b.webm", "a.pth", ENGINE, alpha=0.5, shown=[]))
    with writing_video(tmp_path / "c.mp4", 5) as writer:
        writer.write(np.zeros((16, 160, 3), np.uint8))
    with pytest.raises(ValueError, match=r"^c\.mp4 has 160x16 pixels, which is too narrow"):
        next(service.segment_video(str(tmp_path / "c.mp4"), tmp_path / "d.webm", "a.pth", ENGINE, alpha=0.5, shown=[]))


def test_abandoned_video_leaves_no_thread(service, video, tmp_path):
    before = set(threading.enumerate())
    steps = service.segment_video(str(video), tmp_path / "a.webm", "a.pth", ENGINE, alpha=0.5, shown=[])
    next(steps)
    steps.close()
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize(
    ("packages", "bf16", "expected"),
    [
        ((), False, ["auto fp32", "pytorch fp32"]),
        (("onnx", "onnxscript", "onnxruntime"), False, ["auto fp32", "pytorch fp32", "onnx fp32"]),
        (
            ("onnx", "onnxscript", "onnxruntime", "openvino"),
            True,
            ["auto fp32", "auto bf16", "pytorch fp32", "pytorch bf16", "onnx fp32", "openvino fp32", "openvino bf16"],
        ),
        (("openvino",), True, ["auto fp32", "auto bf16", "pytorch fp32", "pytorch bf16"]),  # it cannot export
    ],
)
def test_engines_are_those_of_the_machine(monkeypatch, packages, bf16, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(runtime, "installed", lambda *names: set(names) <= set(packages))
    monkeypatch.setattr(runtime, "cpu_has_bf16", lambda: bf16)
    assert engines() == expected


def test_weights_that_ship_are_offered_and_the_given_ones_first(weights):
    shipped = ["icnet_resnet18_cityscapes.pth", "icnet_resnet18_camvid.pth"]
    assert [name for name in list_weights(None) if name in shipped] == shipped
    given = list_weights(str(weights["b.pth"]))
    assert next(iter(given.items())) == ("b.pth", weights["b.pth"]) and set(given) >= set(shipped)


def test_the_chosen_runtime_and_precision_are_opened(service, weights, monkeypatch):
    opened = []
    monkeypatch.setattr(module, "engines", lambda: ["onnx fp32", "pytorch bf16"])
    monkeypatch.setattr(module, "Predictor", lambda path, test: opened.append((path, test.runtime, test.precision)))
    for engine in module.engines():
        service.network("a.pth", engine)
    assert opened == [(weights["a.pth"], "onnx", "fp32"), (weights["a.pth"], "pytorch", "bf16")]
