"""tools/export.py. What it writes: test_export.py and test_openvino.py."""

from dataclasses import replace
from functools import partial

import pytest
from PIL import Image

from tools import export
from utils import config
from utils.weights.checkpoint import read_checkpoint, save_checkpoint


@pytest.fixture
def run_export(run_script):
    """Return a function that runs the tool; it returns the exit code, output and errors."""
    return partial(run_script, "tools.export")


def test_the_difference_is_printed_and_another_ending_refused(checkpoint_path, tmp_path, monkeypatch, run_export):
    target = tmp_path / "net.onnx"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(export, "export_onnx", lambda _, path, **options: path.touch() or 2e-6)
    code, out, err = run_export("--ckpt", checkpoint_path, "--target=~/net.onnx")
    assert code == 0 and target.exists() and "3 classes" in out and "difference 2.0e-06" in out
    code, out, err = run_export("--ckpt", checkpoint_path, "--target", tmp_path / "net.bin")
    assert code == 2 and "must end in .onnx" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--precision", "int8"], "--precision int8 and --calibrate IMAGES go together"),
        (["--precision", "int8", "--calibrate", "VIDEO"], "has no images; name a folder of images"),
        (["--format", "openvino", "--precision", "fp16"], "cannot be combined with --precision fp16"),
        (["test.split=train"], "test.split=train overrides a key of --config, which is missing"),
    ],
)
def test_a_wrong_argument_is_one_line(checkpoint_path, video, tmp_path, run_export, arguments, words):
    given = [video if argument == "VIDEO" else argument for argument in arguments]
    suffix = ".xml" if "openvino" in arguments else ".onnx"
    code, _, err = run_export("--ckpt", checkpoint_path, "--target", tmp_path / f"net{suffix}", *given)
    assert code == 2 and words in err and err.count("\n") == 1
    assert not (tmp_path / f"net{suffix}").exists()


def test_missing_packages_are_named_before_images_are_read(checkpoint_path, tmp_path, monkeypatch, run_export):
    monkeypatch.setattr("utils.inference.export.installed", lambda name: name != "nncf")
    options = ["--format", "openvino", "--precision", "int8", "--calibrate", "missing"]
    code, _, err = run_export("--ckpt", checkpoint_path, "--target", tmp_path / "net.xml", *options)
    assert code == 2 and "export needs nncf: pip install -r requirements-openvino.txt" in err


def test_options_reach_openvinos_export(checkpoint_path, pictures, tmp_path, monkeypatch, run_export):
    def export_openvino(checkpoint, path, **options):
        given.update(options)
        path.with_suffix(".bin").write_bytes(bytes(2_000_000))
        return {}

    given: dict = {}
    monkeypatch.setattr(export, "check_packages", lambda *_, **options: None)
    monkeypatch.setattr(export, "export_openvino", export_openvino)
    monkeypatch.setattr(export, "label_agreement", lambda *_: 0.75)
    options = ["--format", "openvino", "--target", tmp_path / "net.xml", "--precision", "int8", "--calibrate", pictures]
    code, out, _ = run_export("--ckpt", checkpoint_path, *options)
    assert code == 0 and "2.0 MB" in out and "75.00% of the labels" in out
    assert len(given.pop("calibration")) == 3 and given == {"output": "logits", "normalized_inside": False}


def test_an_export_does_not_overwrite_its_checkpoint(checkpoint_path, tmp_path, run_export, monkeypatch):
    source = tmp_path / "pytorch_model.bin"
    source.write_bytes(checkpoint_path.read_bytes())
    code, _, err = run_export("--ckpt", source, "--format", "openvino")
    assert code == 2 and f"--ckpt {source} would be overwritten" in err
    assert source.read_bytes() == checkpoint_path.read_bytes()
    monkeypatch.setattr(export, "export_onnx", lambda *a, **k: (tmp_path / "pytorch_model.onnx").touch() or 0)
    assert run_export("--ckpt", source).code == 0  # writes no .bin


@pytest.mark.parametrize(
    ("test", "size"),
    [
        ({}, (40, 60)),
        ({"short_side": 0}, (40, 60)),
        ({"short_side": 64}, (64, 96)),
        ({"input_size": (33, 65)}, (33, 65)),
    ],
)
def test_calibration_images_are_spread_and_have_the_input_size(tmp_path, monkeypatch, test, size):
    monkeypatch.setattr(export, "CALIBRATION_IMAGES", 4)
    for number in range(7):
        Image.new("RGB", (60, 40), (10 * number, 0, 0)).save(tmp_path / f"{number}.png")
    images = export.read_calibration(str(tmp_path), config.TestConfig(**test))
    assert [image.shape for image in images] == [(*size, 3)] * 4
    assert [image[0, 0, 0] // 10 for image in images] == [0, 2, 4, 6]


def test_options_reach_the_export(checkpoint_path, tmp_path, monkeypatch, run_export):
    given, target = {}, tmp_path / "net.onnx"

    def export_onnx(_, path, **options):
        given.update(options)
        path.touch()
        return 0

    monkeypatch.setattr(export, "export_onnx", export_onnx)
    options = ["--output", "labels", "--normalize", "--precision", "fp16"]
    assert run_export("--ckpt", checkpoint_path, "--target", target, *options).code == 0
    assert given == {"output": "labels", "normalized_inside": True, "precision": "fp16", "calibration": []}


def test_figures_are_of_the_exported_file_and_of_pytorch(
    checkpoint_path, folder_data, tmp_path, monkeypatch, run_export
):
    monkeypatch.setattr(export, "export_onnx", lambda _, path, **options: path.touch() or 0.25)
    monkeypatch.setattr(export, "miou", lambda path, *_: 0.5 if path.suffix == ".onnx" else 0.75)
    given = ["--ckpt", checkpoint_path, "--target", tmp_path / "x.onnx", "--output", "labels"]
    out = run_export(*given, "--config", folder_data.config).out
    assert "75.000% of the labels agree" in out and "val: 50.00% (PyTorch in fp32: 75.00%)" in out


def test_calibration_images_have_the_checkpoints_own_size(checkpoint_path, pictures, tmp_path, monkeypatch, run_export):
    own, given = replace(read_checkpoint(checkpoint_path), config={"test": {"short_side": 96}}), {}
    save_checkpoint(tmp_path / "own.pth", own)
    monkeypatch.setattr(export, "export_onnx", lambda _, path, **options: path.touch() or given.update(options) or {})
    monkeypatch.setattr(export, "label_agreement", lambda *_: 1.0)
    assert run_export("--ckpt", tmp_path / "own.pth", "--precision", "int8", "--calibrate", pictures).code == 0
    assert {image.shape for image in given["calibration"]} == {(96, 128, 3)}
