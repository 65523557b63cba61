"""Decoding images of any kind, for inference. As a dataset reads them: test_segmentation.py."""

import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dataset.images import read_header
from utils.io.sources import read_image

IMAGE = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)
GREY = IMAGE[..., 0]


def save(path: Path, values: np.ndarray, mode: str | None = None, **options) -> Path:
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


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


def test_an_image_of_floats_is_refused(tmp_path):
    """Whether they go up to 1 or to 255 is not known."""
    Image.fromarray(np.ones((48, 64), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif cannot be read as an image: the image's pixels are floats"):
        read_image(tmp_path / "a.tif")


def test_a_tiff_of_32_bit_integers_is_refused(tmp_path):
    """Divided like 16-bit values, it would be black."""
    Image.fromarray(np.full((48, 64), 240, np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif cannot be read as an image: the image's pixels are 32-bit integers"):
        read_image(tmp_path / "a.tif")


def test_a_tiff_of_signed_16_bit_integers_is_scaled(tmp_path):
    cv2.imwrite(str(tmp_path / "a.tif"), np.full((48, 64), 20000, np.int16))
    assert Image.open(tmp_path / "a.tif").mode == "I" and read_image(tmp_path / "a.tif").mean() == 20000 // 257


def test_a_narrow_image_is_refused_with_its_name(tmp_path):
    Image.new("L", (510, 10)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png is too narrow to segment \(510x10 pixels\); crop it"):
        read_image(tmp_path / "a.png")
    Image.new("L", (500, 10)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (10, 500, 3)
