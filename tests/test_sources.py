"""The inputs of inference: found and named. How images are decoded: test_images.py."""

import os
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from utils.io.sources import Source, find_sources, output_names, read_images

IMAGE = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)


def found(text: object, **options: bool) -> list[Path]:
    return [source.location for source in find_sources(str(text), **options)]


@pytest.fixture
def folder(tmp_path):
    for name in ("b.PNG", "a.jpg", "c.mp4", "notes.txt", "sub/d.png", "sub/deep/e.jpeg", "[1].png", "é.webp"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "in" / "folder.png").mkdir()
    return tmp_path / "in"


# --- finding


def test_folder(folder):
    assert [p.name for p in found(folder)] == ["[1].png", "a.jpg", "b.PNG", "c.mp4", "é.webp"]


def test_folder_with_subfolders(folder):
    names = {p.name for p in found(folder, recursive=True)}
    assert names == {"[1].png", "a.jpg", "b.PNG", "c.mp4", "é.webp", "d.png", "e.jpeg"}
    (folder / "nest" / "more").mkdir(parents=True)
    with pytest.raises(ValueError, match="--recursive includes subfolders"):
        found(folder / "nest")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.jpg", ["a.jpg"]),
        ("[1].png", ["[1].png"]),  # an existing file takes precedence over the pattern
        ("[ab].*", ["a.jpg", "b.PNG"]),
        ("*", ["[1].png", "a.jpg", "b.PNG", "c.mp4", "é.webp"]),
        ("**/*.png", ["[1].png", "d.png"]),
        ("sub/**/*.jp*g", ["e.jpeg"]),
        ("[é].webp", ["é.webp"]),
    ],
)
def test_file_or_glob_pattern(folder, pattern, names):
    assert sorted(p.name for p in found(folder / pattern)) == names


def test_missing_or_unsupported_input_is_an_error(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no image or video in .*empty; supported suffixes: \.jpg"):
        found(tmp_path / "empty")
    (folder / "notes.md").touch()
    with pytest.raises(ValueError, match=r"no image or video in .*notes\.md; supported suffixes: \.jpg .* \.mpeg$"):
        found(folder / "notes.md")
    for name in ("nothing.png", "*.bmp", "nothing/*.png"):
        with pytest.raises(FileNotFoundError) as error:
            found(folder / name)
        assert str(folder / name) in str(error.value)


def test_list_file_keeps_its_order_and_resolves_against_the_working_directory_or_its_own_folder(folder, monkeypatch):
    (folder / "list.txt").write_text("\ufeffsub/d.png\n\n  a.jpg \nno.png\nsub/d.png\n", encoding="utf-8")
    assert found(folder / "list.txt") == [folder / "sub/d.png", folder / "a.jpg", Path("no.png")]
    monkeypatch.chdir(folder)
    assert found("list.txt")[:2] == [Path("sub/d.png"), Path("a.jpg")]


def test_malformed_list_file_is_an_error(folder):
    (folder / "list.txt").write_text("a.jpg\nsome words\n")
    with pytest.raises(ValueError, match=r"list\.txt, line 2: 'some words' is neither an image nor a video"):
        found(folder / "list.txt")
    (folder / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not a UTF-8 text file of paths"):
        found(folder / "list.txt")
    (folder / "list.txt").write_text("\n \n")
    with pytest.raises(ValueError, match="lists no image or video"):
        found(folder / "list.txt")


def test_kind_follows_from_the_input(folder, monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False))
    kinds = {source.name: source.kind for source in find_sources(str(folder))}
    assert kinds == {"[1]": "image", "a": "image", "b": "image", "c": "video", "é": "image"}
    (stdin,) = find_sources("-")
    assert (stdin.kind, str(stdin)) == ("image", "standard input") and stdin.name.startswith("stdin_2")
    (camera,) = find_sources("0")
    assert (camera.location, camera.kind, str(camera)) == (0, "live", "camera 0")
    assert camera.name.startswith("camera_0_")


@pytest.mark.parametrize("stdin", [None, SimpleNamespace(isatty=lambda: True)])
def test_standard_input_needs_a_pipe(monkeypatch, stdin):
    monkeypatch.setattr("sys.stdin", stdin)
    with pytest.raises(ValueError, match="no image on standard input: pipe one, or name a file"):
        find_sources("-")


def test_an_unreadable_subfolder_is_not_left_out_silently(tmp_path, monkeypatch):
    def scan(folder):
        if os.fspath(folder).endswith("closed"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    scandir = os.scandir
    (tmp_path / ".closed").mkdir()  # hidden, and thus left out anyway
    Image.new("L", (64, 48)).save(tmp_path / "a.png")
    monkeypatch.setattr(os, "scandir", scan)
    assert found(tmp_path, recursive=True) == [tmp_path / "a.png"]
    (tmp_path / "closed").mkdir()
    with pytest.raises(PermissionError, match="closed"):
        find_sources(str(tmp_path), recursive=True)


def test_names_made_of_long_paths_are_shortened_and_stay_unique():
    folders = [f"{letter}/{'deep/' * 60}" for letter in "ab"]
    one, other = output_names([Path(folder, "0.png") for folder in folders])
    assert one != other and len(one) <= 102 and len(other) <= 102
    one, other = output_names([Path("\N{CJK UNIFIED IDEOGRAPH-8857}" * 80, letter, "0.png") for letter in "ab"])
    assert one != other and max(len(name.encode()) for name in (one, other)) <= 102


def test_a_shortened_name_does_not_depend_on_the_other_inputs():
    paths = [Path(letter, "x" * 110, "0.png") for letter in "abc"]
    assert dict(zip(paths, output_names(paths), strict=True))[paths[1]] == output_names(paths[1:])[0]


def test_names_differ_even_where_composed_and_separate_accents_are_the_same():
    names = output_names([Path("a/\N{LATIN SMALL LETTER E WITH ACUTE}.jpg"), Path("b/e\N{COMBINING ACUTE ACCENT}.jpg")])
    assert [name[:2] for name in names] == ["a_", "b_"]


def test_long_names_leave_room_for_endings():
    (name,) = output_names([Path("\N{CJK UNIFIED IDEOGRAPH-8857}" * 80 + ".png")])
    assert len(name.encode()) <= 100


def test_password_of_a_stream_is_neither_in_its_name_nor_in_messages():
    (stream,) = find_sources("rtsp://me:secret@10.0.0.5:554/live?x=1")
    assert stream.kind == "live" and stream.location == "rtsp://me:secret@10.0.0.5:554/live?x=1"
    assert stream.name.startswith("rtsp_10_0_0_5_554_live_x_1_")
    assert str(stream) == "rtsp://10.0.0.5:554/live?x=1"


def test_hidden_files_and_folders_are_left_out(tmp_path):
    for name in ("a.png", "._a.png", ".hidden/b.png", "sub/.c.png", "sub/d.png"):
        (tmp_path / ".parent" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / ".parent" / name).touch()
    sources = find_sources(str(tmp_path / ".parent"), recursive=True)
    assert [source.name for source in sources] == ["a", "d"]
    assert [source.name for source in find_sources(str(tmp_path / ".parent"))] == ["a"]


def test_existing_folder_takes_precedence_over_a_camera(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "a.png").touch()
    assert found("0") == [Path("0/a.png")]


# --- naming


def test_output_is_named_after_the_stem():
    assert output_names([Path("x/a.jpg"), Path("y/b.tar.png"), Path("c")]) == ["a", "b.tar", "c"]


@pytest.mark.parametrize(
    "inputs",
    [
        ["x/a.jpg", "y/a.jpg"],
        ["x/a.jpg", "y/A.jpg"],
        ["a.jpg", "a.png", "a.mp4"],
        ["x/a.jpg", "x/a.png", "b.png"],
        ["x/a.jpg", "x/a.png", "x_a_jpg.png"],
        ["x.y/a.jpg", "x_y/a.jpg"],
        ["x_y/a.jpg", "x/y_a.jpg", "x/y/a.jpg", "y_a.jpg"],
        ["../a.jpg", "a.jpg", "/a.jpg", "_a.jpg"],
        ["é/a.jpg", "e/a.jpg"],
    ],
)
def test_output_names_never_collide_even_where_case_is_ignored(inputs):
    names = output_names([Path(name) for name in inputs])
    assert len({name.casefold() for name in names}) == len(inputs), names
    assert all("/" not in name and name.strip(".") for name in names)


def test_output_names_are_no_paths_on_windows():
    names = output_names([PureWindowsPath(name) for name in (r"C:\a\1.jpg", r"C:\b\1.jpg", r"\\server\share\1.jpg")])
    assert names == ["C__a_1_jpg", "C__b_1_jpg", "server_share__1_jpg"]


def test_unreadable_images_are_reported_and_skipped(tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "b.png")
    (tmp_path / "c.png").touch()
    sources = [Source(tmp_path / f"{name}.png", "image", name) for name in "abc"]
    errors = []
    ((source, image),) = read_images(sources, errors.append)
    assert source.name == "b" and np.array_equal(image, IMAGE)
    assert [type(error) for error in errors] == [FileNotFoundError, ValueError]
