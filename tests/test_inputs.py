from pathlib import Path

import pytest

from utils.inputs import find_inputs, is_video, output_names


@pytest.fixture
def folder(tmp_path):
    for name in ("b.PNG", "a.jpg", "c.mp4", "notes.txt", "sub/d.png", "sub/deep/e.jpeg", "[1].png", "é.webp"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "in" / "folder.png").mkdir()
    return tmp_path / "in"


def test_inputs_of_a_folder(folder):
    assert [p.name for p in find_inputs(str(folder))] == ["[1].png", "a.jpg", "b.PNG", "c.mp4", "é.webp"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.jpg", ["a.jpg"]),
        ("[1].png", ["[1].png"]),  # a file of that name comes before the pattern
        ("[ab].*", ["a.jpg", "b.PNG"]),
        ("*", ["[1].png", "a.jpg", "b.PNG", "c.mp4", "é.webp"]),
        ("**/*.png", ["[1].png", "d.png"]),
        ("sub/**/*.jp*g", ["e.jpeg"]),
        ("[é].webp", ["é.webp"]),
    ],
)
def test_inputs_of_a_name_or_pattern(folder, pattern, names):
    assert sorted(p.name for p in find_inputs(f"{folder}/{pattern}")) == names


def test_no_input(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no image or video in the folder .*empty; known are \.jpg"):
        find_inputs(str(tmp_path / "empty"))
    with pytest.raises(ValueError, match=r"notes\.txt is neither an image nor a video"):
        find_inputs(str(folder / "notes.txt"))
    for name in ("nothing.png", "*.bmp", "nothing/*.png"):
        with pytest.raises(FileNotFoundError) as error:
            find_inputs(str(folder / name))
        assert str(folder / name) in str(error.value)


def test_video_by_its_name():
    assert is_video(Path("a.MP4")) and is_video(Path("b/c.avi"))
    assert not is_video(Path("a.jpg")) and not is_video(Path("mp4"))


def test_output_is_named_after_the_stem():
    assert output_names([Path("x/a.jpg"), Path("y/b.tar.png"), Path("c")]) == ["a", "b.tar", "c"]


@pytest.mark.parametrize(
    "inputs",
    [
        ["x/a.jpg", "y/a.jpg"],
        ["a.jpg", "a.png", "a.mp4"],
        ["x/a.jpg", "x/a.png", "b.png"],
        ["x/a.jpg", "x/a.png", "x_a_jpg.png"],
        ["x.y/a.jpg", "x_y/a.jpg"],
        ["x_y/a.jpg", "x/y_a.jpg", "x/y/a.jpg", "y_a.jpg"],
        ["../a.jpg", "a.jpg", "/a.jpg", "_a.jpg"],
        ["é/a.jpg", "e/a.jpg"],
    ],
)
def test_outputs_never_collide(inputs):
    names = output_names([Path(name) for name in inputs])
    assert len(set(names)) == len(inputs), names
    assert all("/" not in name and name.strip(".") for name in names)
