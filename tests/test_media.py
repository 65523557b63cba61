import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from utils.io.sources import read_image

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
