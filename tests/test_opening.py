"""Opening a network: compilation, export into the cache, the checkpoint's own data."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.conftest import CPU
from utils import cli, config, runtime
from utils.config import load_config
from utils.inference import opening
from utils.weights.checkpoint import read_checkpoint, save_checkpoint


@pytest.mark.parametrize(("setting", "mode"), [("default", "default"), ("cuda_graphs", "reduce-overhead")])
def test_compiled_networks_run_in_pytorch(checkpoint_path, monkeypatch, setting, mode):
    modes = []
    monkeypatch.setattr(torch, "compile", lambda function, *, mode: modes.append(mode) or function)
    monkeypatch.setattr(runtime, "installed", lambda *names: True)
    monkeypatch.setattr(opening, "_export_once", lambda *_: pytest.fail("exported"))
    _, segment = opening.open_network(checkpoint_path, CPU, config.TestConfig(compile=setting))
    assert modes == [mode] and segment.runtime == "PyTorch"


def test_a_checkpoint_in_onnx_runtime_is_exported_once(checkpoint_path, tmp_path, monkeypatch):
    exports = []

    def export_once(checkpoint, path):
        exports.append(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(runtime, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(opening, "export_onnx", export_once)
    monkeypatch.setattr(opening, "OnnxSegmenter", lambda path, device: SimpleNamespace(gives_scores=True, source=path))
    for precision in ("fp32", "auto"):
        _, segment = opening.open_network(checkpoint_path, CPU, config.TestConfig(runtime="onnx", precision=precision))
        assert segment.source.parent == tmp_path / "icnet"
    assert len(exports) == 1
    monkeypatch.setattr(opening, "EXPORT_VERSION", b"next")  # of other graphs
    opening.open_network(checkpoint_path, CPU, config.TestConfig(runtime="onnx"))
    assert len(exports) == 2


def test_a_checkpoint_replaced_after_it_was_read_is_another_export(checkpoint_path, tmp_path, monkeypatch):
    """A training saves `last.pth` again and again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(opening, "export_onnx", lambda checkpoint, path, **options: None)
    path = tmp_path / "last.pth"
    path.write_bytes(checkpoint_path.read_bytes())
    before = read_checkpoint(path)
    name = next(name for name, value in before.state_dict.items() if value.is_floating_point())
    changed = replace(before, state_dict=before.state_dict | {name: before.state_dict[name] + 1})
    save_checkpoint(path, changed)
    assert opening._export_once(before, "onnx") != opening._export_once(read_checkpoint(path), "onnx")


def test_threads_that_open_the_same_checkpoint_export_it_once(checkpoint_path, tmp_path, monkeypatch):
    exports = []

    def export(checkpoint, path, **options):
        exports.append(path)
        time.sleep(0.2)
        path.parent.mkdir()
        path.touch()

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(opening, "export_onnx", export)
    checkpoint = read_checkpoint(checkpoint_path)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: opening._export_once(checkpoint, "onnx"), range(2))
    assert exports == [first] and first == second


def test_the_checkpoints_own_data_folder_is_found(checkpoint_path):
    settings = load_config({}, ["dataset.name=streets", "train.cityscapes_root=/elsewhere"]).as_dict()
    checkpoint = replace(read_checkpoint(checkpoint_path), config=settings)
    found = opening.with_checkpoint_data(checkpoint, cli.DEFAULT_CONFIG, ["train.epochs=3"])
    assert (found.train.cityscapes_root, found.dataset.name, found.train.epochs) == ("/elsewhere", "streets", 3)


@pytest.mark.parametrize(
    ("file", "settings", "words"),
    [
        ("a.onnx", {"runtime": "openvino"}, r"a\.onnx cannot run in test\.runtime=openvino"),
        ("a.xml", {"runtime": "pytorch"}, r"a\.xml cannot run in test\.runtime=pytorch"),
        ("a.xml", {"compile": "default"}, "cannot be compiled"),
        ("a.onnx", {"branches": True}, "cannot run single branches"),
        ("a.onnx", {"precision": "bf16"}, r"test\.precision=bf16 cannot change it"),
    ],
)
def test_settings_that_an_exported_file_cannot_follow_are_errors(file, settings, words):
    with pytest.raises(ValueError, match=words):
        opening.open_network(file, CPU, config.TestConfig(**settings))


@pytest.mark.parametrize("error", [ValueError("differs"), OSError("read-only"), RuntimeError("cannot be traced")])
def test_auto_falls_back_to_pytorch_where_the_export_fails(checkpoint_path, tmp_path, monkeypatch, capsys, error):
    def fail(checkpoint, path):
        raise error

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(opening, "export_openvino", fail)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(runtime, "installed", lambda *names: True)
    _, segment = opening.open_network(checkpoint_path, CPU, config.TestConfig())
    assert segment.runtime == "PyTorch"
    assert f"using PyTorch, as the network cannot run in openvino: {error}" in capsys.readouterr().err
    with pytest.raises(ValueError, match=f"^test.runtime=openvino: {error}$"):  # asked for by name, it is an error
        opening.open_network(checkpoint_path, CPU, config.TestConfig(runtime="openvino"))


@pytest.mark.parametrize("error", [RuntimeError("no such operator\nin torch"), ValueError("no such operator")])
def test_a_network_that_cannot_be_exported_is_one_line(checkpoint_path, tmp_path, monkeypatch, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(opening, "export_onnx", fail)
    with pytest.raises(ValueError, match=r"^test\.runtime=onnx: no such operator$"):
        opening.open_network(checkpoint_path, CPU, config.TestConfig(runtime="onnx"))


def test_without_a_cache_folder_nothing_is_exported(checkpoint_path, tmp_path, monkeypatch, capsys):
    (tmp_path / "icnet").touch()  # in the place of the folder
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(runtime, "choose_runtime", lambda *_: "onnx")
    monkeypatch.setattr(opening, "export_onnx", lambda *_, **options: pytest.fail("exported"))
    _, segmenter = opening.open_network(checkpoint_path, CPU, config.TestConfig())
    assert segmenter.runtime == "PyTorch" and "set XDG_CACHE_HOME to another folder" in capsys.readouterr().err


def test_a_precision_that_the_cpu_lacks_is_refused_before_the_export(checkpoint_path, monkeypatch, capsys):
    def lacking(precision):
        raise ValueError(f"no {precision}")

    monkeypatch.setattr(runtime, "choose_runtime", lambda *_: "openvino")
    monkeypatch.setattr(opening, "check_precision", lacking)
    monkeypatch.setattr(opening, "_export_once", lambda *_: pytest.fail("exported"))
    with pytest.raises(ValueError, match=r"^test\.runtime=openvino: no bf16$"):
        opening.open_network(checkpoint_path, CPU, config.TestConfig(runtime="openvino", precision="bf16"))
    _, segmenter = opening.open_network(checkpoint_path, CPU, config.TestConfig(precision="bf16"))
    assert segmenter.runtime == "PyTorch" and "cannot run in openvino: no bf16" in capsys.readouterr().err


@pytest.mark.parametrize("setting", [{"compile": "default"}, {"branches": True}])
def test_what_only_pytorch_can_do_is_done_in_pytorch(checkpoint_path, setting):
    with pytest.raises(ValueError, match=r"needs PyTorch; set test\.runtime=pytorch instead of onnx"):
        opening.open_network(checkpoint_path, CPU, config.TestConfig(runtime="onnx", **setting))
    _, segmenter = opening.open_network(checkpoint_path, CPU, config.TestConfig(**setting))
    assert segmenter.runtime == "PyTorch"


def test_automatic_precision_is_chosen_for_the_device_of_the_runtime(monkeypatch):
    opened = []
    monkeypatch.setattr(opening, "OpenVinoSegmenter", lambda path, precision, cache: opened.append(precision))
    monkeypatch.setattr(runtime, "choose_precision", lambda setting, device: f"{setting} on {device}")
    opening._open_exported(Path("a.xml"), torch.device("cuda"), "auto")
    assert opened == ["auto on cpu"]


def test_without_a_cache_folder_openvino_compiles_anew(tmp_path, monkeypatch):
    (tmp_path / "icnet").touch()  # in the place of the folder
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    caches = []
    monkeypatch.setattr(opening, "OpenVinoSegmenter", lambda path, *, precision, cache=None: caches.append(cache))
    opening._open_exported(Path("a.xml"), CPU, "fp32")
    assert caches == [None]


def test_a_checkpoint_in_openvino_has_the_precision_of_the_cpu(checkpoint_path, monkeypatch):
    asked = []
    monkeypatch.setattr(runtime, "choose_precision", lambda setting, device: asked.append(device.type) or "fp32")
    monkeypatch.setattr(opening, "check_precision", lambda precision: None)
    monkeypatch.setattr(opening, "_export_once", lambda *_: Path("a.xml"))
    monkeypatch.setattr(opening, "_open_exported", lambda *_: SimpleNamespace(gives_scores=True))
    settings = config.TestConfig(runtime="openvino", precision="auto")
    opening.open_network(checkpoint_path, torch.device("cuda"), settings)
    assert asked == ["cpu"]


@pytest.mark.parametrize(
    ("test", "resized"),
    [
        ({"input_size": (65, 97)}, "; images are resized to 97x65"),
        ({"short_side": 48}, "; images are resized to a short side of 48"),
        ({"short_side": 0}, ""),
    ],
)
def test_a_network_is_described_with_its_runtime_and_input_size(checkpoint_path, test, resized):
    checkpoint, segment = opening.open_network(checkpoint_path, CPU, config.TestConfig(runtime="pytorch"))
    described = opening.describe_network(checkpoint, segment, config.TestConfig(**test))
    assert described == f"{checkpoint_path} (published resnet18 width 0.25, 3 classes); PyTorch, fp32{resized}"
