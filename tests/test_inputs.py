from pathlib import Path

import pytest

from utils.io.sources import find_inputs, find_sources, is_video, output_names


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
    (folder / "notes.md").touch()
    with pytest.raises(ValueError, match=r"notes\.md is neither an image nor a video"):
        find_inputs(str(folder / "notes.md"))
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


def test_recursive(folder):
    found = find_inputs(str(folder), recursive=True)
    assert {p.name for p in found} == {"[1].png", "a.jpg", "b.PNG", "c.mp4", "é.webp", "d.png", "e.jpeg"}
    (folder / "nest" / "more").mkdir(parents=True)
    with pytest.raises(ValueError, match="--recursive looks into its folders"):
        find_inputs(str(folder / "nest"))


def test_text_file_of_paths_in_its_order_from_here_or_from_its_folder(folder, monkeypatch):
    (folder / "list.txt").write_text("\ufeffsub/d.png\n\n  a.jpg \nno.png\nsub/d.png\n", encoding="utf-8")
    assert find_inputs(str(folder / "list.txt")) == [folder / "sub/d.png", folder / "a.jpg", Path("no.png")]
    monkeypatch.chdir(folder)
    assert find_inputs("list.txt")[:2] == [Path("sub/d.png"), Path("a.jpg")]


def test_text_file_that_is_no_list(folder):
    (folder / "list.txt").write_text("a.jpg\nsome words\n")
    with pytest.raises(ValueError, match=r"list\.txt, line 2: 'some words' is neither an image nor a video"):
        find_inputs(str(folder / "list.txt"))
    (folder / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="no text file"):
        find_inputs(str(folder / "list.txt"))
    (folder / "list.txt").write_text("\n \n")
    with pytest.raises(ValueError, match="lists no image or video"):
        find_inputs(str(folder / "list.txt"))


def test_kinds_of_sources(folder):
    kinds = {source.name: source.kind for source in find_sources(str(folder))}
    assert kinds == {"[1]": "image", "a": "image", "b": "image", "c": "video", "é": "image"}
    (standard,) = find_sources("-")
    assert (standard.kind, standard.name, str(standard)) == ("image", "stdin", "standard input")
    (camera,) = find_sources("0")
    assert (camera.place, camera.kind, str(camera)) == (0, "live", "camera 0")
    assert camera.name.startswith("camera_0_")


def test_stream_is_named_without_its_password():
    (stream,) = find_sources("rtsp://me:secret@10.0.0.5:554/live?x=1")
    assert stream.kind == "live" and stream.place == "rtsp://me:secret@10.0.0.5:554/live?x=1"
    assert stream.name.startswith("rtsp_10_0_0_5_554_live_x_1_")


def test_a_file_or_folder_comes_before_a_camera(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "a.png").touch()
    assert [source.place for source in find_sources("0")] == [Path("0/a.png")]


def test_names_differ_where_the_disk_knows_no_upper_and_lower_case():
    names = output_names([Path("x/a.jpg"), Path("y/A.jpg")])
    assert len({name.casefold() for name in names}) == 2
