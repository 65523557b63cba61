import errno
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from dataset.labels import ClassTable
from utils.io.files import (
    check_folder,
    growing,
    locked,
    remove_leftovers,
    replacing,
    save_image,
    save_labels,
    write_json,
)
from utils.io.sources import read_image

CLASSES = ClassTable(("a", "b", "c"), ((255, 0, 0), (0, 200, 0), (1, 2, 3)))
LABELS = np.array([[0, 1, 2], [2, 255, 0]], dtype=np.uint8)


def test_new_content_replaces_the_old_and_leaves_no_other_file(tmp_path):
    path = tmp_path / "deep" / "folder" / "a.txt"
    for text in ("one", "two"):
        with replacing(path) as temporary:
            assert temporary.parent == path.parent
            assert temporary.suffix == ".txt"  # from which Pillow and OpenCV infer the format
            temporary.write_text(text)
        assert path.read_text() == text
        assert list(path.parent.iterdir()) == [path]


def test_a_drive_that_does_not_exist_is_named(monkeypatch):
    for question in ("exists", "is_dir"):
        monkeypatch.setattr(Path, question, lambda self: False)
    with pytest.raises(ValueError, match=r"cannot write to the folder /z/run: / does not exist; set --output to"):
        check_folder(Path("/z/run"), "--output")


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
def test_failure_keeps_the_old_file(tmp_path, error):
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


def test_new_content_is_on_the_disk_before_the_old_file_goes(tmp_path, monkeypatch):
    path, seen = tmp_path / "a.txt", []
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", lambda file: seen.append(path.read_text()))
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert seen == ["old"] and path.read_text() == "new"


def test_two_writers_of_a_file_do_not_disturb_each_other(tmp_path):
    with replacing(tmp_path / "a.txt") as first, replacing(tmp_path / "a.txt") as second:
        first.write_text("one")
        second.write_text("two")
    assert os.listdir(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "one"


@pytest.mark.parametrize("name", ["last.pth", "icnet_3_0.512_best_model.pth", "no_suffix"])
def test_leftovers_of_a_killed_process_are_removed(tmp_path, name):
    child = os.fork()
    if not child:
        with replacing(tmp_path / name) as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(os.listdir(tmp_path)) == 1
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == []


def test_other_files_are_not_removed(tmp_path):
    token = "0123abcd"
    names = [f"{token}.part.pth", f".{token}.pth", f".{token}.part.pth.bak", "last.pth", f".last.{token}.part.pth"]
    names += [".part.pth", ".x.part.pth", ".7.part.pth"]
    for name in (*names, f"below/.{token}.part.pth"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("kept")
    (tmp_path / f".{token}.part").mkdir()
    before = sorted(tmp_path.rglob("*"))
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    remove_leftovers(tmp_path / "missing")


def test_growing_file_is_renamed_once_complete(tmp_path):
    (tmp_path / "a.part.txt").write_text("of an earlier run")
    with growing(tmp_path / "a.txt") as part:
        assert list(tmp_path.iterdir()) == []
        part.write_text("all")
        assert list(tmp_path.iterdir()) == [tmp_path / "a.part.txt"]
    assert list(tmp_path.iterdir()) == [tmp_path / "a.txt"]


@pytest.mark.parametrize(("written", "left"), [("half", ["a.part.txt", "a.txt"]), ("", ["a.txt"])])
def test_interrupted_growing_file_keeps_the_part_unless_empty(tmp_path, written, left):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(KeyboardInterrupt), growing(tmp_path / "a.txt") as part:
        part.write_text(written)
        raise KeyboardInterrupt
    assert sorted(os.listdir(tmp_path)) == left
    assert (tmp_path / "a.txt").read_text() == "old"


def test_json_is_read_back_as_written(tmp_path):
    value = {"miou": 0.5, "class_iou": {"Straße": None}, "images": 3}
    write_json(tmp_path / "a" / "metrics.json", value)
    assert json.loads((tmp_path / "a" / "metrics.json").read_text(encoding="utf-8")) == value


def test_unserializable_json_keeps_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == 1
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("shape", [(1, 1), (5, 3)])
def test_image_round_trip(tmp_path, shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    save_image(tmp_path / "image.png", image)
    assert np.array_equal(read_image(tmp_path / "image.png"), image)


def test_pixel_values_of_a_saved_label_map_are_class_indices(tmp_path):
    save_labels(tmp_path / "deep" / "pred.png", LABELS, CLASSES)
    with Image.open(tmp_path / "deep" / "pred.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "P", (3, 2))
        assert np.array_equal(np.asarray(image), LABELS)
        colors = [[[255, 0, 0], [0, 200, 0], [1, 2, 3]], [[1, 2, 3], [0, 0, 0], [255, 0, 0]]]
        assert np.asarray(image.convert("RGB")).tolist() == colors
        assert image.getpalette()[:9] == [255, 0, 0, 0, 200, 0, 1, 2, 3]


def test_label_map_may_be_a_strided_view(tmp_path):
    view = np.ascontiguousarray(LABELS.T).T[:, ::-1]
    save_labels(tmp_path / "pred.png", view, CLASSES)
    with Image.open(tmp_path / "pred.png") as image:
        assert np.array_equal(np.asarray(image), view)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_systems_without_locks_are_usable(tmp_path, monkeypatch, number):
    def fail(self, **options):
        raise OSError(number, "no locks here")

    monkeypatch.setattr(FileLock, "acquire", fail)
    with locked(tmp_path / ".lock"):
        (tmp_path / "written").touch()
