import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.labels import class_table, lookup_table
from dataset.pairs import Sample
from dataset.segmentation import SegmentationDataset
from utils.io.sources import read_image

CLASSES = class_table(["road", "sky", "car"], ())
TRAIN_IDS = lookup_table({0: 0, 1: 1, 2: 2, 255: 255})
MASK = np.random.default_rng(1).choice([0, 1, 2, 255], (48, 64)).astype(np.uint8)


@pytest.fixture
def image_path(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)).save(path)
    return path


def dataset_of(image, mask=None, *, train_ids=TRAIN_IDS, **kwargs) -> SegmentationDataset:
    return SegmentationDataset([Sample(image, mask)], CLASSES, train_ids, **kwargs)


def test_sample_has_the_contents_of_the_files(image_path, tmp_path):
    Image.fromarray(MASK).save(tmp_path / "mask.png")
    sample = dataset_of(image_path, tmp_path / "mask.png")[0]
    assert sample["index"] == 0
    assert sample["image"].dtype == sample["target"].dtype == torch.uint8
    assert np.array_equal(sample["image"].permute(1, 2, 0).numpy(), np.asarray(Image.open(image_path)))
    assert np.array_equal(sample["target"].numpy(), MASK)


def test_sample_without_mask_has_no_target(image_path):
    assert dataset_of(image_path)[0].keys() == {"index", "image"}


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_masks_with_one_8_bit_channel_are_read_as_stored(image_path, tmp_path, mode):
    """Palette images give their indices, not their colours."""
    values = MASK if mode != "1" else MASK == 1
    mask = Image.fromarray(values)
    if mode == "P":
        mask.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
    assert mask.mode == mode
    mask.save(tmp_path / "mask.png")
    assert np.array_equal(dataset_of(image_path, tmp_path / "mask.png")[0]["target"].numpy(), values)


@pytest.mark.parametrize("bits", [2, 4])
def test_masks_of_few_bits_are_rejected(image_path, tmp_path, bits):
    """Pillow, as the PNG format asks, stretches their greys to 0 … 255."""
    header, row = struct.pack(">IIBBBBB", 64, 48, bits, 0, 0, 0, 0), b"\0" + bytes(64 * bits // 8)
    parts = {b"IHDR": header, b"IDAT": zlib.compress(48 * row), b"IEND": b""}
    chunks = [struct.pack(">I", len(p)) + n + p + struct.pack(">I", zlib.crc32(n + p)) for n, p in parts.items()]
    (tmp_path / "mask.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    data = dataset_of(image_path, tmp_path / "mask.png")
    for check in (data.check_headers, lambda: data[0]):
        with pytest.raises(ValueError, match=rf"mask\.png .* one 8-bit channel, got mode 'L;{bits}'"):
            check()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "I;16", "I", "F"])
def test_masks_of_other_modes_are_rejected(image_path, tmp_path, mode):
    deep = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
    path = tmp_path / "mask.tif"
    (Image.fromarray(MASK.astype(deep[mode])) if mode in deep else Image.fromarray(MASK).convert(mode)).save(path)
    with pytest.raises(ValueError, match="expected class indices in one 8-bit channel") as error:
        dataset_of(image_path, path)[0]
    assert str(path) in str(error.value) and repr(mode) in str(error.value)


def test_jpeg_masks_are_rejected(image_path, tmp_path):
    Image.new("L", (64, 48)).save(tmp_path / "mask.jpg")
    data = SegmentationDataset([Sample(image_path, tmp_path / "mask.jpg")], CLASSES, np.arange(256, dtype=np.uint8))
    for check in (data.check_headers, lambda: data[0]):
        with pytest.raises(ValueError, match=r"mask\.jpg is a JPEG file, .*; save masks as PNG"):
            check()


@pytest.mark.parametrize("value", [3, 100, 254])
def test_undefined_mask_value_is_an_error(image_path, tmp_path, value):
    """254 is UNKNOWN in the lookup table itself."""
    mask = MASK.copy()
    mask[7, 9] = value
    Image.fromarray(mask).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=rf"mask\.png contains the value {value}.*\(0-2, 255\)"):
        dataset_of(image_path, tmp_path / "mask.png")[0]


def test_mask_is_mapped_by_the_lookup_table(image_path, tmp_path):
    Image.fromarray(np.where(MASK == 255, 11, MASK).astype(np.uint8)).save(tmp_path / "mask.png")
    table = lookup_table({0: 2, 1: 0, 2: 1, 11: 255})
    target = dataset_of(image_path, tmp_path / "mask.png", train_ids=table)[0]["target"].numpy()
    for stored, wanted in ((0, 2), (1, 0), (2, 1), (255, 255)):
        assert (target[stored == MASK] == wanted).all()


def test_different_sizes_of_image_and_mask_are_an_error(image_path, tmp_path):
    Image.fromarray(MASK[:, :63]).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=r"image\.png is 64x48, .*mask\.png is 63x48$"):
        dataset_of(image_path, tmp_path / "mask.png")[0]
    Image.fromarray(MASK.T).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=r"mask\.png is 48x64; if EXIF data turn the image, save it upright"):
        dataset_of(image_path, tmp_path / "mask.png")[0]


@pytest.mark.parametrize("broken", ["empty", "text", "half", "header"])
@pytest.mark.parametrize("part", ["image", "mask"])
def test_corrupt_file_is_named(image_path, tmp_path, broken, part):
    whole = image_path.read_bytes()
    content = {"empty": b"", "text": b"hello", "half": whole[: len(whole) // 2], "header": whole[:20]}[broken]
    bad = tmp_path / "bad.png"
    bad.write_bytes(content)
    files = (bad, None) if part == "image" else (image_path, bad)
    with pytest.raises(ValueError, match=r"bad\.png cannot be read as an image"):
        dataset_of(*files)[0]


def test_missing_file_is_named(image_path, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no image .*mask\.png"):
        dataset_of(image_path, tmp_path / "mask.png")[0]


def test_training_decodes_images_as_inference_does(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21
    Image.fromarray(deep).save(tmp_path / "image.png", exif=exif)
    seen = dataset_of(tmp_path / "image.png")[0]["image"].permute(1, 2, 0).numpy()
    assert seen.shape == (64, 48, 3) and np.array_equal(seen, read_image(tmp_path / "image.png"))


def test_labelled_pixels_of_each_mask_are_counted(image_path, tmp_path):
    Image.fromarray(MASK).save(tmp_path / "mask.png")
    samples = [Sample(image_path, tmp_path / "mask.png"), Sample(image_path, None)]
    counts = SegmentationDataset(samples, CLASSES, TRAIN_IDS).pixel_counts
    assert counts.tolist() == [[(label == MASK).sum() for label in range(3)], [0, 0, 0]]
