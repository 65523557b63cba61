import os
import warnings
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dataset.images import read_header
from utils.io.sources import Source, find_sources, output_names, read_image, read_images
from utils.io.video import source_name

IMAGE = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)
GREY = IMAGE[..., 0]


def found(text: object, **options: bool) -> list[Path]:
    return [source.location for source in find_sources(str(text), **options)]


def save(path: Path, values: np.ndarray, mode: str | None = None, **options) -> Path:
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


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


def test_an_image_of_floats_is_refused(tmp_path):
    """Whether they go up to 1 or to 255 is not known."""
    Image.fromarray(np.ones((48, 64), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif cannot be read as an image: its pixels are floats"):
        read_image(tmp_path / "a.tif")


def test_a_tiff_of_32_bit_integers_is_refused(tmp_path):
    """Divided like 16-bit values, it would be black."""
    Image.fromarray(np.full((48, 64), 240, np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif cannot be read as an image: its pixels are 32-bit integers"):
        read_image(tmp_path / "a.tif")


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


def test_a_tiff_of_signed_16_bit_integers_is_scaled(tmp_path):
    cv2.imwrite(str(tmp_path / "a.tif"), np.full((48, 64), 20000, np.int16))
    assert Image.open(tmp_path / "a.tif").mode == "I" and read_image(tmp_path / "a.tif").mean() == 20000 // 257


def test_a_narrow_image_is_refused_with_its_name(tmp_path):
    Image.new("L", (510, 10)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png is too narrow to segment \(510x10 pixels\); crop it"):
        read_image(tmp_path / "a.png")
    Image.new("L", (500, 10)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (10, 500, 3)


def test_names_made_of_long_paths_are_shortened_and_stay_unique():
    folders = [f"{letter}/{'deep/' * 60}" for letter in "ab"]
    one, other = output_names([Path(folder, "0.png") for folder in folders])
    assert one != other and len(one) <= 102 and len(other) <= 102
    one, other = output_names([Path("\N{CJK UNIFIED IDEOGRAPH-8857}" * 80, letter, "0.png") for letter in "ab"])
    assert one != other and max(len(name.encode()) for name in (one, other)) <= 102


@pytest.mark.parametrize("secret", ["me:secret", "me:se@cret"])
def test_no_part_of_a_password_remains(secret):
    assert source_name(f"rtsp://{secret}@10.0.0.5/live") == "rtsp://10.0.0.5/live"


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


# --- reading


def test_rgb_is_unchanged(tmp_path):
    image = read_image(save(tmp_path / "a.png", IMAGE))
    assert image.dtype == np.uint8
    assert np.array_equal(image, IMAGE)


def test_grey_is_replicated(tmp_path):
    assert np.array_equal(read_image(save(tmp_path / "a.png", GREY)), np.dstack([GREY] * 3))


def test_alpha_is_dropped(tmp_path):
    half = np.full((24, 32), 128, np.uint8)
    assert np.array_equal(read_image(save(tmp_path / "a.png", np.dstack([IMAGE, half]))), IMAGE)
    grey = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(half)])
    grey.save(tmp_path / "b.png")
    assert np.array_equal(read_image(tmp_path / "b.png"), np.dstack([GREY] * 3))


@pytest.mark.filterwarnings("error::UserWarning")
def test_palette_is_resolved(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [2, 0]], np.uint8))
    image.putpalette([255, 0, 0, 0, 128, 0, 1, 2, 3])
    transparent = {"transparency": 0}, {"transparency": b"\0\xff\x80"}
    for name, options in (("a.png", {}), ("b.png", transparent[0]), ("c.png", transparent[1]), ("d.gif", {})):
        image.save(tmp_path / name, **options)
        expected = [[[255, 0, 0], [0, 128, 0]], [[1, 2, 3], [255, 0, 0]]]
        assert read_image(tmp_path / name).tolist() == expected, name


def test_bilevel_is_black_and_white(tmp_path):
    assert np.array_equal(read_image(save(tmp_path / "a.png", GREY > 99)), np.dstack([255 * (GREY > 99)] * 3))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, suffix):
    deep = np.array([[0, 257, 65535], [128 * 257, 128 * 257 + 100, 40]], np.uint16)
    image = read_image(save(tmp_path / f"a.{suffix}", deep))
    assert image.dtype == np.uint8
    assert image[..., 1].tolist() == [[0, 1, 255], [128, 128, 0]]


def test_sixteen_bit_rgb_is_scaled_to_eight(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), IMAGE[..., ::-1].astype(np.uint16) * 257)
    assert np.array_equal(read_image(tmp_path / "a.png"), IMAGE)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_jpeg_in_another_color_space(tmp_path, mode):
    uniform = np.full((24, 32, 3), (200, 100, 50), np.uint8)
    image = read_image(save(tmp_path / "a.jpg", uniform, mode, quality=100))
    assert image.shape == (24, 32, 3)
    assert np.abs(image.astype(int) - uniform).max() <= 4


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, IMAGE),
        (2, IMAGE[:, ::-1]),
        (3, IMAGE[::-1, ::-1]),
        (4, IMAGE[::-1]),
        (5, IMAGE.transpose(1, 0, 2)),
        (6, np.rot90(IMAGE, -1)),  # clockwise
        (7, np.rot90(IMAGE, 2).transpose(1, 0, 2)),
        (8, np.rot90(IMAGE)),
        (9, IMAGE),  # undefined
    ],
)
def test_exif_orientation_is_applied(tmp_path, orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a.png", "a.tif"):
        path = save(tmp_path / name, IMAGE, exif=exif)
        assert np.array_equal(read_image(path), upright)
        assert read_header(path)[0] == upright.shape[1::-1]


def test_orientation_of_a_png_in_xmp_alone(tmp_path):
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", '<rdf:Description tiff:Orientation="6"/>')
    path = save(tmp_path / "a.png", IMAGE, pnginfo=text)
    assert read_header(path, checksums=True)[0] == IMAGE.shape[:2]
    assert np.array_equal(read_image(path), np.rot90(IMAGE, -1))


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_damaged_metadata_do_not_matter(tmp_path, name):
    path = save(tmp_path / name, IMAGE, exif=b"Exif\0\0II*\0\x08")  # they end within their header
    assert read_image(path).shape == IMAGE.shape and read_header(path)[0] == IMAGE.shape[1::-1]


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1)])
def test_tiny_image(tmp_path, suffix, size):
    values = np.full((*size, 3), 77, np.uint8)
    assert np.array_equal(read_image(save(tmp_path / f"a.{suffix}", values)), values)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("part", [0, 1, 12, 40, 0.5, 0.9])
def test_truncated_image_is_an_error(tmp_path, suffix, part):
    path = save(tmp_path / f"a.{suffix}", IMAGE)
    content = path.read_bytes()
    path.write_bytes(content[: part if isinstance(part, int) else int(part * len(content))])
    with pytest.raises(ValueError, match=rf"a\.{suffix} cannot be read as an image"):
        read_image(path)


def test_corrupt_bytes_give_an_image_or_a_value_error(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "a"
    originals = [save(tmp_path / f"o.{s}", IMAGE).read_bytes() for s in ("png", "jpg", "tif", "bmp")]
    failed = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for turn in range(200):
            content = bytearray(originals[turn % 4])
            for place in rng.integers(0, 200, 4):
                content[place] = rng.integers(256)
            path.write_bytes(content)
            try:
                assert read_image(path).shape[2] == 3
            except ValueError as error:
                failed += 1
                assert str(path) in str(error)
    assert 50 < failed < 200


def test_what_is_not_an_image_is_an_error(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    for path in (tmp_path / "a.png", tmp_path):
        with pytest.raises(ValueError, match="cannot be read as an image"):
            read_image(path)
    with pytest.raises(FileNotFoundError, match="no image"):
        read_image(tmp_path / "b.png")


def test_decompression_bomb_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"a\.png has more than 0 million pixels; reduce it, or cut it into tiles"):
        read_image(save(tmp_path / "a.png", IMAGE))


def test_unreadable_images_are_reported_and_skipped(tmp_path):
    save(tmp_path / "b.png", IMAGE)
    (tmp_path / "c.png").touch()
    sources = [Source(tmp_path / f"{name}.png", "image", name) for name in "abc"]
    errors = []
    ((source, image),) = read_images(sources, errors.append)
    assert source.name == "b" and np.array_equal(image, IMAGE)
    assert [type(error) for error in errors] == [FileNotFoundError, ValueError]
