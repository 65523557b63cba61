"""Inputs and outputs of inference."""

import shutil

import pytest

from tests.bad_input.conftest import has


@pytest.fixture
def infer(refused, folder_data, checkpoint_path, tmp_path):
    """Return a function that runs inference on something that it must refuse."""

    def run(source: object, *more: object) -> str:
        given = ["--config", folder_data.config, f"test.ckpt_path={checkpoint_path}", "--output", tmp_path / "out"]
        return refused("inference", *given, "--input", source, *more)

    return run


def test_missing_input(infer, tmp_path):
    for name in ("no.png", "no.mp4", "no", "*.png", "no/*.jpg"):
        assert has(infer(tmp_path / name), tmp_path / name)
    (tmp_path / "empty").mkdir()
    assert has(infer(tmp_path / "empty"), tmp_path / "empty", ".jpg")
    assert has(infer(""), "no input given")
    assert has(infer("20240501120000"), "no image, video or folder 20240501120000")


@pytest.mark.parametrize("name", ["a.png", "a.mp4", "a.txt", "a"])
def test_input_that_is_no_image_or_video(infer, tmp_path, name):
    path = tmp_path / "in" / name
    path.parent.mkdir()
    path.write_bytes(b"hello")
    assert has(infer(path), path)
    assert not (tmp_path / "out").exists()


def test_output_that_is_a_file(refused, folder_data, checkpoint_path, tmp_path, monkeypatch):
    monkeypatch.setattr("inference.Predictor", lambda *arguments, **options: pytest.fail("the network was loaded"))
    (tmp_path / "out").write_text("mine")
    given = ["--config", folder_data.config, f"test.ckpt_path={checkpoint_path}", "--output", tmp_path / "out"]
    line = refused("inference", *given, "--input", folder_data.root / "val")
    assert has(line, tmp_path / "out", "--output")


def test_broken_inputs_among_good_ones_are_reported_and_skipped(run_script, folder_data, checkpoint_path, tmp_path):
    source = tmp_path / "in"
    shutil.copytree(folder_data.root / "val", source)
    for name in ("broken.png", "empty.jpg", "broken.mp4"):
        (source / name).write_bytes(b"" if name == "empty.jpg" else b"no picture")
    (source / "notes.txt").write_text("not meant")
    result = run_script(
        "inference",
        *("--config", folder_data.config, f"test.ckpt_path={checkpoint_path}"),
        *("--input", source, "--output", tmp_path / "out"),
    )
    assert result.code == 1
    lines = result.err.splitlines()
    assert len(lines) == 3 and all(line.startswith("skipped: ") for line in lines), result.err
    for name in ("broken.png", "empty.jpg", "broken.mp4"):
        assert sum(str(source / name) in line for line in lines) == 1
    assert "2 of 5" in result.out
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["0_overlay.png", "0_pred.png", "1_overlay.png", "1_pred.png"]
