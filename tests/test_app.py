"""demo/app.py: the service behind the page without Gradio, then the page itself where Gradio is installed."""

import importlib
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from demo import app
from demo.page import service as module
from demo.page.service import Result, Service, engines, find_weights
from models import ICNet
from tests.conftest import CLASSES
from tests.test_fold import with_statistics
from utils import cli, runtime
from utils.inference.predictor import Predictor
from utils.io.drawing import Painter
from utils.io.video import VideoReader, writing_video
from utils.weights.checkpoint import Checkpoint, save_checkpoint

ROOT = Path(__file__).parent.parent
ENGINE = "auto fp32"
RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, (48, 64, 3)).astype(np.uint8) for _ in range(3)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, Path]:
    """Two networks of the same classes that predict different labels."""
    paths = {}
    for seed, name in enumerate(("a.pth", "b.pth")):
        torch.manual_seed(seed)
        network = with_statistics(ICNet(len(CLASSES), "resnet18"))
        paths[name] = tmp_path_factory.mktemp("weights") / name
        save_checkpoint(paths[name], Checkpoint(state_dict=network.state_dict(), backbone="resnet18", classes=CLASSES))
    return paths


@pytest.fixture(scope="module")
def labels(weights) -> dict[str, list[np.ndarray]]:
    """What each network predicts for each of the images on its own."""
    return {name: Predictor(path).predict_batch(IMAGES) for name, path in weights.items()}


@pytest.fixture
def service(weights, tmp_path) -> Service:
    folder = tmp_path / "results"
    folder.mkdir()
    return Service(weights, folder)


@pytest.fixture
def files(tmp_path) -> list[str]:
    """The images as files."""
    paths = [tmp_path / f"street{number}.png" for number in range(len(IMAGES))]
    for path, image in zip(paths, IMAGES, strict=True):
        Image.fromarray(image).save(path)
    return [str(path) for path in paths]


def result(labels: list[list[int]]) -> Result:
    image = np.full((*np.shape(labels), 3), 100, np.uint8)
    facts = {"name": "x", "milliseconds": 1.0, "engine": "PyTorch, fp32"}
    return Result(image=image, labels=np.array(labels, np.uint8), classes=CLASSES, **facts)


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
    opened = []
    monkeypatch.setattr(module, "Predictor", lambda path, **options: opened.append(path) or Predictor(path, **options))
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
    before = threading.active_count()
    steps = service.segment_video(str(video), tmp_path / "a.webm", "a.pth", ENGINE, alpha=0.5, shown=[])
    next(steps)
    steps.close()
    assert threading.active_count() == before


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
    assert [name for name in find_weights(None) if name in shipped] == shipped
    given = find_weights(str(weights["b.pth"]))
    assert next(iter(given.items())) == ("b.pth", weights["b.pth"]) and set(given) >= set(shipped)


def test_help_imports_neither_torch_nor_gradio():
    command = [sys.executable, "-X", "importtime", "demo/app.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "--host" in done.stdout
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "utils.cli" in modules and not modules & {"torch", "numpy", "gradio"}


def test_without_gradio_the_package_to_install_is_named():
    script = "import runpy, sys; sys.modules['gradio'] = None; sys.argv = ['app.py']; "
    script += "runpy.run_path('demo/app.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: Gradio is not installed: pip install -r requirements-demo.txt\n"


def test_wrong_option_is_one_line():
    done = subprocess.run([sys.executable, "demo/app.py", "--prot", "1"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "error: unrecognized arguments: --prot 1; see app.py --help\n"


@pytest.mark.parametrize(
    ("host", "port", "reason"),
    [("127.0.0.1", None, "in use"), ("192.0.2.1", 7860, "assign"), ("127.0.0.1", 70000, "0-65535")],
)
def test_address_where_nothing_can_listen_is_one_line(monkeypatch, capsys, host, port, reason):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = port or taken.getsockname()[1]
        code, printed = run_app(monkeypatch, capsys, "--host", host, "--port", port)
    assert code == 2 and printed.startswith(f"error: cannot listen on {host}, port {port}: ") and reason in printed
    assert printed.endswith("; choose another --host or --port")


def run_app(monkeypatch, capsys, *options: object) -> tuple[int, str]:
    """Run the script; return its exit code and the last line of errors."""
    monkeypatch.setattr(sys, "argv", ["app.py", *map(str, options)])
    for name in ("TEMP_DIR", "ANALYTICS_ENABLED", "RUN_HISTORY"):
        monkeypatch.setenv(f"GRADIO_{name}", "")  # so that what the script sets is undone
    with pytest.raises(SystemExit) as stopped:
        cli.run(app.main)
    return stopped.value.code, capsys.readouterr().err.splitlines()[-1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def layout():
    pytest.importorskip("gradio")
    return importlib.import_module("demo.page.layout")


@pytest.fixture
def page(layout, service, monkeypatch, tmp_path):
    """The page, served on a free port."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "results"))
    page = layout.build_page(service)
    layout.launch(page, "127.0.0.1", free_port())
    yield page
    page.close(verbose=False)


def test_picture_is_shown_and_redrawn_without_the_network(layout, service, files, labels, monkeypatch):
    picture = {"path": files[0]}
    state, details, facts, shown, label_map, overlay, sides, download = layout.show_picture(
        service, picture, "a.pth", ENGINE, 0.5
    )
    shares = state[0].shares()
    assert [name for _, name in shown.choices] == shown.value == list(shares) and details.visible
    assert [text for text, _ in shown.choices] == [
        f"{name} {layout.percentage(share)}" for name, share in shares.items()
    ]
    assert "ms in PyTorch, fp32" in facts and facts.count("--class-color") == len(shares)
    with Image.open(label_map) as image:
        assert np.array_equal(image, labels["a.pth"][0])
    assert overlay == download == sides[1] and Path(overlay).name == "street0_overlay.jpg"

    monkeypatch.setattr(module.Network, "predict", None)
    overlay, (original, right), _ = layout.redraw(service, state, 1.0, [])  # no class is drawn
    assert Path(overlay).read_bytes() == Path(original).read_bytes() and right == overlay
    drawn = layout.redraw(service, state, 1.0, list(shares))[0]
    assert Path(drawn).read_bytes() != Path(original).read_bytes()


def test_legend_has_the_colours_of_its_classes_in_its_order(layout):
    assert layout.describe(result([[2, 2, 2], [0, 1, 0]])) == (
        "Network: 1 ms in PyTorch, fp32<style>"
        ".legend label:nth-child(1) { --class-color: rgb(0, 0, 142) } "
        ".legend label:nth-child(2) { --class-color: rgb(128, 64, 128) } "
        ".legend label:nth-child(3) { --class-color: rgb(70, 130, 180) }</style>"
    )
    assert [layout.percentage(share) for share in (1, 0.5, 0.0005, 0.0004)] == ["100.0 %", "50.0 %", "0.1 %", "< 0.1 %"]


def test_without_a_picture_nothing_is_shown(layout, service):
    state, details, *others = layout.show_picture(service, None, "a.pth", ENGINE, 0.5)
    assert state is None and not details.visible and others == [None] * 6


def test_mistakes_are_errors_on_the_page(layout, service, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    error = pytest.importorskip("gradio").Error
    with pytest.raises(error, match=r"a\.jpg cannot be read as an image"):
        layout.show_picture(service, {"path": str(tmp_path / "a.jpg")}, "a.pth", ENGINE, 0.5)
    with pytest.raises(error, match="choose the picture again"):
        layout.redraw(service, None, 0.5, [])
    with pytest.raises(error, match="choose or record a video first"):
        next(layout.show_video(service, None, "a.pth", ENGINE, 0.5, []))
    with pytest.raises(error, match="reload the page"):
        layout.list_classes(service, "c.pth", ENGINE)


def test_video_is_shown_when_it_is_complete(layout, service, video):
    *steps, (path, facts) = layout.show_video(service, str(video), "a.pth", ENGINE, 0.5, [])
    assert [shown for shown, _ in steps] == [None] * 10
    assert "<progress value=3 max=10>" in steps[2][1] and "progress" not in facts and facts.startswith("10 frames")
    assert Path(path).name == "v_overlay.webm" and len(list(VideoReader(path))) == 10
    assert layout.without_bar(steps[2][1]).startswith("3 frames; network: ")
    assert "progress" not in layout.without_bar(steps[2][1]) and layout.without_bar(None) == ""


def test_page_names_no_other_host_and_nothing_connects_to_one(layout, service, tmp_path, monkeypatch, request):
    hosts = set()
    connect = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", lambda self, to: hosts.add(to[0]) or connect(self, to))
    page = request.getfixturevalue("page")
    with urllib.request.urlopen(page.local_url) as answer:
        html = answer.read().decode()
    assert "ICNet" in html
    loaded = re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=[\"'](https?://[^\"']*)", html)
    assert [address for address in loaded if not address.startswith(page.local_url)] == []
    assert hosts <= {"127.0.0.1", "localhost"} and hosts
    assert not page.share and not page.analytics_enabled and page.max_file_size == 200 * 2**20
    assert page.local_url.startswith("http://127.0.0.1:")
    assert {event["api_visibility"] for event in page.config["dependencies"]} <= {"private", "undocumented"}


@pytest.mark.parametrize("name", ["broken.pth", "none.pth"])
def test_unusable_weights_are_one_line(layout, tmp_path, capsys, monkeypatch, name):
    (tmp_path / "broken.pth").write_bytes(b"-")
    code, printed = run_app(monkeypatch, capsys, "--port", free_port(), "--ckpt", tmp_path / name)
    assert code == 2 and printed.startswith("error: ") and name in printed
