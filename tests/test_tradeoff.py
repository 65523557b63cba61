"""tools/tradeoff.py, with evaluate.py and tools/export.py replaced by their results."""

import sys
import time
from pathlib import Path

import pytest
import torch

from tools import export as export_tool
from tools import tradeoff
from utils import runtime
from utils.config import load_config
from utils.io import sources
from utils.weights import checkpoint

MILLISECONDS = {"pytorch-fp32": 200.0, "pytorch-bf16": 100.0, "onnx-fp32": 160.0, "openvino-fp32": 125.0}
MILLISECONDS |= {"openvino-bf16": 50.0, "openvino-int8": 40.0}


@pytest.fixture
def run_tool(tmp_path, monkeypatch):
    """Run the tool in tmp_path on a machine with bf16 and all packages; return the commands that it ran."""
    monkeypatch.chdir(tmp_path)
    Path("a.pth").touch()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(runtime, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(runtime, "installed", lambda *packages: True)
    commands = []

    def evaluate(path: Path, folder: Path, config: str, overrides: list[str]) -> dict:
        commands.append([str(path), config, *overrides])
        load_config({}, overrides)
        folder.mkdir(parents=True, exist_ok=True)
        speed = {"latency_median_ms": MILLISECONDS["-".join(folder.name.split("-")[-2:])]}
        return {"miou": 0.5, "device": "CPU, 2 threads", "runtime": "OpenVINO", "speed": speed}

    def export(folder: Path, *command: str) -> None:
        commands.append(list(command))
        monkeypatch.setattr(sys, "argv", list(command))
        export_tool.parse_arguments()
        folder.mkdir(parents=True, exist_ok=True)
        Path(command[command.index("--target") + 1]).touch()

    monkeypatch.setattr(tradeoff, "run_evaluation", evaluate)
    monkeypatch.setattr(tradeoff, "run_script", export)
    monkeypatch.setattr(tradeoff, "read_checkpoint", lambda path: None)
    monkeypatch.setattr(tradeoff, "find_sources", lambda text, recursive: None)

    def run(*arguments: object) -> list[list[str]]:
        monkeypatch.setattr(sys, "argv", ["tradeoff.py", *map(str, arguments)])
        tradeoff.main()
        return commands

    return run


def test_every_network_is_measured_in_every_runtime(run_tool, capsys):
    commands = run_tool("--ckpt", "a.pth", "b.pth", "--config", "c.yaml", "--out", "out", "dataset.root=data")
    assert [command[0] for command in commands] == 5 * ["a.pth"] + 5 * ["b.pth"]
    options = ["dataset.root=data", "test.runtime=pytorch", "test.precision=bf16", "train.valid_batch_size=1"]
    assert commands[1] == ["a.pth", "c.yaml", *options]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert rows[2] == ["a", "pytorch fp32", "200.0", "5.0", "50.00"]
    assert rows[-1] == ["b", "openvino bf16", "50.0", "20.0", "50.00"]
    assert Path("out/tradeoff.svg").read_text().startswith("<?xml")


def test_int8_is_exported_first_and_leaves_the_rest_in_bf16(run_tool):
    *_, export, evaluation = run_tool("--ckpt", "a.pth", "--config", "c.yaml", "--calibrate", "images", "--out", "out")
    target = "out/a-openvino-int8/a.xml"
    assert export[:5] == ["tools/export.py", "--ckpt", "a.pth", "--target", target]
    assert export[-2:] == ["--calibrate", "images"]
    options = ["test.runtime=openvino", "test.precision=bf16", "train.valid_batch_size=1"]
    assert evaluation == [target, "c.yaml", *options]


def test_int8_is_exported_again_for_other_calibration_images(run_tool):
    exports = []
    for images in ("images", "images", "\N{HIRAGANA LETTER A}\udcff"):  # of any name
        commands = run_tool("--ckpt", "a.pth", "--config", "c.yaml", "--calibrate", images, "--out", "out")
        exports.append(any(command[0] == "tools/export.py" for command in commands))
        commands.clear()
    assert exports == [True, False, True]


def test_int8_is_exported_again_for_another_network(run_tool, tmp_path):
    target = tmp_path / "out/a-openvino-int8/a.xml"
    target.parent.mkdir(parents=True)
    (target.parent / "calibrated_with.txt").write_text("images")
    options = ["--config", "c.yaml", "--calibrate", "images", "--out", "out"]
    for first, exports in (("a.pth", False), ("a.xml", True)):  # what was written first
        for path in sorted((tmp_path / "a.pth", target), key=lambda path: path.name != first):
            path.touch()
            time.sleep(0.02)
        commands = run_tool("--ckpt", "a.pth", *options)
        assert any(command[0] == "tools/export.py" for command in commands) == exports
        commands.clear()


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--ckpt", "a.pth", "b.pth"], "a.pth"), (["--ckpt", "a.pth", "--calibrate", "nowhere"], "nowhere")],
)
def test_wrong_files_are_refused_before_the_first_evaluation(run_tool, monkeypatch, options, words):
    if "--calibrate" in options:
        monkeypatch.setattr(tradeoff, "find_sources", sources.find_sources)
    else:
        monkeypatch.setattr(tradeoff, "read_checkpoint", checkpoint.read_checkpoint)
    monkeypatch.setattr(tradeoff, "run_evaluation", lambda *arguments: pytest.fail("evaluated"))
    with pytest.raises((ValueError, OSError), match=words):
        run_tool(*options, "--config", "c.yaml", "--out", "out")


def test_int8_without_its_packages_is_refused(run_tool, monkeypatch):
    monkeypatch.setattr(runtime, "installed", lambda *packages: "nncf" not in packages)
    with pytest.raises(ValueError, match=r"--calibrate needs OpenVINO and NNCF: pip install -r requirements-openvino"):
        run_tool("--ckpt", "a.pth", "--calibrate", "images", "--config", "c.yaml", "--out", "out")


def test_networks_of_one_name_are_refused(run_tool, capsys):
    with pytest.raises(SystemExit):
        run_tool("--ckpt", "a/last.pth", "b/last.pth", "--config", "c.yaml", "--out", "out")
    assert "two files have the same name" in capsys.readouterr().err


def test_rows_measured_on_a_gpu_are_marked(run_tool, monkeypatch, capsys):
    metrics = {"miou": 0.5, "speed": {"latency_median_ms": 10.0}}
    devices = {"onnx": "CPU, 2 threads", "openvino": "CPU, 2 threads", "pytorch": "cuda:0 (a GPU)"}
    monkeypatch.setattr(
        tradeoff, "run_evaluation", lambda path, folder, *_: metrics | {"device": devices[folder.name.split("-")[1]]}
    )
    run_tool("--ckpt", "a.pth", "--config", "c.yaml", "--out", ".")
    rows = [line.split("|")[2].strip() for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows == ["pytorch fp32, GPU", "pytorch bf16, GPU", "onnx fp32", "openvino fp32", "openvino bf16"]
