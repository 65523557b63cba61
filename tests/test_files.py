import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from utils.io.files import remove_leftovers, replacing, write_json


def test_new_content_is_in_place_and_nothing_else(tmp_path):
    path = tmp_path / "deep" / "folder" / "a.txt"
    for text in ("one", "two"):
        with replacing(path) as temporary:
            assert temporary.parent == path.parent
            assert temporary.suffix == ".txt"  # Pillow and OpenCV choose the format by it
            temporary.write_text(text)
        assert path.read_text() == text
        assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
def test_failure_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as temporary:
        temporary.write_text("ha")
        raise error("half-way")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_failure_before_the_first_byte_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="early"), replacing(tmp_path / "a.txt"):
        raise ValueError("early")
    assert list(tmp_path.iterdir()) == []


def test_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_json(tmp_path):
    value = {"miou": 0.5, "class_iou": {"Straße": None}, "images": 3}
    write_json(tmp_path / "a" / "metrics.json", value)
    assert json.loads((tmp_path / "a" / "metrics.json").read_text(encoding="utf-8")) == value


def test_json_that_cannot_be_written_leaves_the_old(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == 1
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["last.pth", "icnet_3_0.512_best_model.pth", "curves.png", "no_suffix"])
def test_what_a_kill_leaves_is_removed(tmp_path, name):
    code = f"from utils.io.files import replacing\nwith replacing({str(tmp_path / name)!r}) as t: t.write_text('ha'); "
    command = [sys.executable, "-c", code + "import os; os.kill(os.getpid(), 9)"]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent)
    assert done.returncode == -9 and len(os.listdir(tmp_path)) == 1
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == []


def test_other_files_are_left_alone(tmp_path):
    names = [".last.part.pth", "last.7.part.pth", ".last.7.pth", ".last.x.part.pth", ".last.7.part.pth.bak", "last.pth"]
    for name in (*names, "below/.last.7.part.pth"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("kept")
    (tmp_path / ".folder.7.part").mkdir()
    before = sorted(tmp_path.rglob("*"))
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    remove_leftovers(tmp_path / "not there")
