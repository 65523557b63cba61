import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from utils.media import VideoReader, find_inputs, is_video, output_names, read_image, writing_video

PICTURE = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)
GREY = PICTURE[..., 0]


def save(path: Path, values: np.ndarray, mode: str | None = None, **options) -> Path:
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def test_rgb_is_read_as_it_is(tmp_path):
    image = read_image(save(tmp_path / "a.png", PICTURE))
    assert image.dtype == np.uint8
    assert np.array_equal(image, PICTURE)


def test_grey_is_on_all_channels(tmp_path):
    assert np.array_equal(read_image(save(tmp_path / "a.png", GREY)), np.dstack([GREY] * 3))


def test_alpha_is_left_out(tmp_path):
    half = np.full((24, 32), 128, np.uint8)
    assert np.array_equal(read_image(save(tmp_path / "a.png", np.dstack([PICTURE, half]))), PICTURE)
    grey = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(half)])
    grey.save(tmp_path / "b.png")
    assert np.array_equal(read_image(tmp_path / "b.png"), np.dstack([GREY] * 3))


def test_palette_is_resolved(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [2, 0]], np.uint8))
    image.putpalette([255, 0, 0, 0, 128, 0, 1, 2, 3])
    for name, options in (("a.png", {}), ("b.png", {"transparency": 0}), ("c.gif", {})):
        image.save(tmp_path / name, **options)
        wanted = [[[255, 0, 0], [0, 128, 0]], [[1, 2, 3], [255, 0, 0]]]
        assert read_image(tmp_path / name).tolist() == wanted, name


def test_black_and_white(tmp_path):
    assert np.array_equal(read_image(save(tmp_path / "a.png", GREY > 99)), np.dstack([255 * (GREY > 99)] * 3))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_become_eight(tmp_path, suffix):
    deep = np.array([[0, 257, 65535], [128 * 257, 128 * 257 + 100, 40]], np.uint16)
    image = read_image(save(tmp_path / f"a.{suffix}", deep))
    assert image.dtype == np.uint8
    assert image[..., 1].tolist() == [[0, 1, 255], [128, 128, 0]]


def test_sixteen_bit_colors_become_eight(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), PICTURE[..., ::-1].astype(np.uint16) * 257)
    assert np.array_equal(read_image(tmp_path / "a.png"), PICTURE)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_jpeg_in_another_color_space(tmp_path, mode):
    smooth = np.full((24, 32, 3), (200, 100, 50), np.uint8)
    image = read_image(save(tmp_path / "a.jpg", smooth, mode, quality=100))
    assert image.shape == (24, 32, 3)
    assert np.abs(image.astype(int) - smooth).max() <= 4


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, PICTURE),
        (2, PICTURE[:, ::-1]),
        (3, PICTURE[::-1, ::-1]),
        (4, PICTURE[::-1]),
        (5, PICTURE.transpose(1, 0, 2)),
        (6, np.rot90(PICTURE, -1)),  # clockwise
        (7, np.rot90(PICTURE, 2).transpose(1, 0, 2)),
        (8, np.rot90(PICTURE)),
        (9, PICTURE),  # does not exist
    ],
)
def test_turned_upright_by_its_exif_data(tmp_path, orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(read_image(save(tmp_path / "a.png", PICTURE, exif=exif)), upright)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1)])
def test_tiny(tmp_path, suffix, size):
    values = np.full((*size, 3), 77, np.uint8)
    assert np.array_equal(read_image(save(tmp_path / f"a.{suffix}", values)), values)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("part", [0, 1, 12, 40, 0.5, 0.9])
def test_truncated(tmp_path, suffix, part):
    path = save(tmp_path / f"a.{suffix}", PICTURE)
    content = path.read_bytes()
    path.write_bytes(content[: part if isinstance(part, int) else int(part * len(content))])
    with pytest.raises(ValueError, match=rf"a\.{suffix} cannot be read as an image"):
        read_image(path)


def test_damaged_anywhere_is_a_picture_or_a_value_error(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "a"
    originals = [save(tmp_path / f"o.{s}", PICTURE).read_bytes() for s in ("png", "jpg", "tif", "bmp")]
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


def test_no_picture(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    for path in (tmp_path / "a.png", tmp_path):
        with pytest.raises(ValueError, match="cannot be read as an image"):
            read_image(path)
    with pytest.raises(FileNotFoundError, match="no image"):
        read_image(tmp_path / "b.png")


def test_picture_too_large_to_be_true(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"a\.png cannot be read"):
        read_image(save(tmp_path / "a.png", PICTURE))


def frames(count: int, width: int, height: int) -> list[np.ndarray]:
    """Frames of one colour each, which a lossy codec keeps nearly as it is."""
    return [np.full((height, width, 3), (200, 30 * n, 60), np.uint8) for n in range(count)]


def write(path: Path, fps: float, pictures: list[np.ndarray]) -> Path:
    with writing_video(path, fps) as writer:
        for picture in pictures:
            writer.write(picture)
    return path


@pytest.mark.parametrize(
    ("width", "height", "fps"), [(64, 48, 25), (64, 48, 12.5), (96, 64, 29.97), (64, 48, 1), (1280, 720, 60)]
)
def test_video_round_trip(tmp_path, width, height, fps):
    written = frames(5, width, height)
    video = VideoReader(write(tmp_path / "a.mp4", fps, written))
    assert video.fps == pytest.approx(fps, abs=0.01)
    assert video.frames == 5
    read = list(video)
    assert len(read) == 5
    for before, after in zip(written, read, strict=True):
        assert after.shape == (height, width, 3) and after.dtype == np.uint8
        assert np.abs(after.astype(int) - before).max() < 12  # in RGB order


@pytest.mark.parametrize(("width", "height"), [(63, 47), (64, 47), (63, 48)])
def test_video_of_odd_size_differs_by_no_more_than_a_row_and_a_column(tmp_path, width, height):
    """OpenCV writes even sizes only."""
    read = list(VideoReader(write(tmp_path / "a.mp4", 25, frames(3, width, height))))
    assert len(read) == 3
    assert abs(read[0].shape[0] - height) == height % 2 and abs(read[0].shape[1] - width) == width % 2
    assert np.abs(read[2].astype(int) - (200, 60, 60)).max() < 12


def test_video_is_in_place_only_when_it_is_whole(tmp_path):
    path = write(tmp_path / "a.mp4", 25, frames(2, 64, 48))
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), writing_video(path, 25) as writer:
        writer.write(frames(1, 64, 48)[0])
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_video_whose_frames_change_size_is_no_silent_loss(tmp_path):
    with pytest.raises((ValueError, AssertionError)):
        write(tmp_path / "a.mp4", 25, frames(1, 64, 48) + frames(1, 64, 32))
    assert list(tmp_path.iterdir()) == []


def test_video_that_cannot_be_written_names_the_file_that_was_asked_for(tmp_path, capfd):
    with pytest.raises(ValueError, match=r"[/\\]a\.mp4 cannot be written"):
        write(tmp_path / "a.mp4", 1e9, frames(1, 64, 48))
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("content", [b"", b"hello", b"half"])
def test_broken_video_is_named_and_nothing_else_is_printed(tmp_path, capfd, content):
    whole = write(tmp_path / "whole.mp4", 25, frames(3, 64, 48)).read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole[: len(whole) // 2] if content == b"half" else content)
    with pytest.raises(ValueError, match=r"a\.mp4 cannot be read as a video"):
        VideoReader(tmp_path / "a.mp4")
    assert capfd.readouterr().err == ""  # OpenCV and FFmpeg have words of their own


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
