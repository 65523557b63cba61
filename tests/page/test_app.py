"""demo/app.py, and where Gradio is installed the page itself."""

import importlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from demo import app
from demo.page import service as module
from tests.page.conftest import ENGINE, result
from utils import cli
from utils.io.video import VideoReader

ROOT = Path(__file__).parents[2]


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
    monkeypatch.setenv("no_proxy", "")
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
    assert [layout.percentage(share) for share in (1, 0.5, 0.0005, 0.0004)] == ["100.0%", "50.0%", "0.1%", "< 0.1%"]


def test_without_a_picture_nothing_is_shown(layout, service):
    state, details, *others = layout.show_picture(service, None, "a.pth", ENGINE, 0.5)
    assert state is None and not details.visible and others == [None] * 6


def test_pictures_of_the_machine_are_not_shown(layout, service, files, tmp_path):
    """A request can name any file: Gradio checks paths only of inputs that it preprocesses."""
    private = Path(shutil.copy(files[0], tmp_path / "private.png"))
    way_out = service.folder / ".." / private.name
    for picture in ({"path": str(private)}, {"path": str(way_out)}, {"path": None}, {"url": "file:///etc/hosts"}):
        with pytest.raises(pytest.importorskip("gradio").Error, match="only uploaded pictures and examples"):
            layout.show_picture(service, picture, "a.pth", ENGINE, 0.5)


def test_mistakes_are_errors_on_the_page(layout, service):
    (service.folder / "a.jpg").write_bytes(b"no picture")
    error = pytest.importorskip("gradio").Error
    with pytest.raises(error, match=r"a\.jpg cannot be read as an image"):
        layout.show_picture(service, {"path": str(service.folder / "a.jpg")}, "a.pth", ENGINE, 0.5)
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


def test_events_pass_what_their_functions_expect(layout, service):
    config = layout.build_page(service).config
    labels = {component["id"]: component["props"].get("label") for component in config["components"]}
    inputs = [[labels[number] for number in event["inputs"]] for event in config["dependencies"]]
    settings = ["Weights", "Runtime and precision", "Opacity of the colours"]
    assert inputs.count([None, *settings]) == 2  # a picture of one's own, and an example
    assert [f"Video of up to {layout.MAX_FRAMES} frames", *settings, "Classes drawn"] in inputs
    assert settings[:2] in inputs


def test_events_fill_the_components_that_their_functions_return(layout, service):
    config = layout.build_page(service).config
    kinds = {
        component["id"]: component["props"]["label"] if component["type"] == "downloadbutton" else component["type"]
        for component in config["components"]
    }
    outputs = {event["id"]: [kinds[number] for number in event["outputs"]] for event in config["dependencies"]}
    drawings = ["image", "imageslider", "Save overlay"]
    picture = ["state", "column", "html", "checkboxgroup", "Save label map", *drawings]
    found = list(outputs.values())
    assert found.count(picture) == 4 and drawings in found
    (video,) = (number for number, filled in outputs.items() if filled == ["video", "html"])
    assert any(event["cancels"] == [video] for event in config["dependencies"])


def test_strength_and_classes_reach_the_drawings(layout, service, monkeypatch):
    drawn, given = [], {}
    monkeypatch.setattr(service, "save_picture", lambda name, image: drawn.append(image.tolist()) or name)
    layout.redraw(service, (result([[0, 1]]), "x"), 1.0, ["sky"])
    assert drawn == [[[[100] * 3, [70, 130, 180]]]]
    monkeypatch.setattr(service, "segment_video", lambda *_, **options: given.update(options) or iter([(1, 1, 2.0)]))
    list(layout.show_video(service, "v.mp4", "a.pth", ENGINE, 0.3, ["sky"]))
    assert given == {"alpha": 0.3, "shown": ["sky"]}


@pytest.mark.parametrize("name", ["broken.pth", "none.pth"])
def test_unusable_weights_are_one_line(layout, tmp_path, capsys, monkeypatch, name):
    (tmp_path / "broken.pth").write_bytes(b"-")
    code, printed = run_app(monkeypatch, capsys, "--port", free_port(), "--ckpt", tmp_path / name)
    assert code == 2 and printed.startswith("error: ") and name in printed


def test_the_page_is_served_without_telemetry_and_leaves_no_uploads(monkeypatch, capsys):
    seen = {}

    def launch(page, host, port):
        seen.update(os.environ, port=port)
        assert Path(seen["GRADIO_TEMP_DIR"]).is_dir()
        os.kill(os.getpid(), signal.SIGINT)

    page = SimpleNamespace(close=lambda verbose: None)
    layout = SimpleNamespace(build_page=lambda service: page, launch=launch)
    monkeypatch.setitem(sys.modules, "demo.page.layout", layout)
    for name in ("TEMP_DIR", "ANALYTICS_ENABLED", "RUN_HISTORY"):
        monkeypatch.setenv(f"GRADIO_{name}", "")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setattr(sys, "argv", ["app.py", "--port", "0"])
    app.main()
    assert seen["port"] > 0 and f"open http://127.0.0.1:{seen['port']} in a browser" in capsys.readouterr().out
    assert seen["no_proxy"] == "*"
    assert (seen["GRADIO_ANALYTICS_ENABLED"], seen["GRADIO_RUN_HISTORY"]) == ("False", "False")
    assert not Path(seen["GRADIO_TEMP_DIR"]).exists()
