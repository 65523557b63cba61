"""What the files of a split hold, by hand."""

import numpy as np
from PIL import Image

from dataset.labels import class_table, lookup_table
from dataset.pairs import Pairs, Sample
from dataset.segmentation import SegmentationDataset
from tools.checking.inspection import inspect

CLASSES = class_table(["road", "sky"], ())
TRAIN_IDS = lookup_table({7: 0, 8: 1, 0: 255})


def sample(folder, name, mask, size=(4, 2)):
    """Write an image of that size (width, height), and a mask."""
    Image.new("RGB", size).save(folder / f"{name}.jpg")
    Image.fromarray(np.array(mask, np.uint8)).save(folder / f"{name}.png")
    return Sample(folder / f"{name}.jpg", folder / f"{name}.png")


def look(*samples, images=(), masks=()):
    dataset = SegmentationDataset(list(samples), CLASSES, TRAIN_IDS)
    return inspect(dataset, Pairs(list(samples), list(images), list(masks)), name="train")


def test_pixels_and_sizes_by_hand(tmp_path):
    found = look(
        sample(tmp_path, "a", [[7, 7, 7, 8], [0, 0, 0, 0]]),
        sample(tmp_path, "b", [[8, 8], [0, 7]], size=(2, 2)),
        sample(tmp_path, "c", [[7, 7, 7, 7], [7, 7, 7, 7]]),
    )
    assert found.faults == [] and found.sound == [0, 1, 2]
    assert found.sizes == {(4, 2): 2, (2, 2): 1}
    assert (found.pixels[0], found.pixels[1], found.pixels[255]) == (3 + 1 + 8, 1 + 2, 4 + 1)
    assert found.pixels.sum() == 20 and found.ignored == 5 / 20
    assert found.shares(2).tolist() == [12 / 15, 3 / 15]


def test_every_fault_of_every_file_is_listed(tmp_path):
    good = sample(tmp_path, "good", [[7, 7, 7, 8], [0, 0, 0, 0]])
    unknown = sample(tmp_path, "unknown", [[7, 9, 9, 8], [0, 255, 0, 0]])
    size = sample(tmp_path, "size", [[9, 7], [7, 7]])
    broken = sample(tmp_path, "broken", [[7]])
    broken.image.write_bytes(b"no picture")
    broken.mask.write_bytes(b"no picture")
    colour = Sample(good.image, good.image)
    found = look(good, unknown, size, broken, colour, images=[tmp_path / "alone.jpg"], masks=[tmp_path / "alone.png"])
    expected = [
        ("alone.jpg", "this image has no mask"),
        ("alone.png", "this mask has no image"),
        ("unknown.png", "9 (2 pixels), 255 (1 pixels)"),
        ("size.png", "9 (1 pixels)"),
        ("size.jpg is 4x2", "size.png is 2x2"),
        ("broken.jpg", "cannot be read"),
        ("broken.png", "cannot be read"),
        ("good.jpg", "is no mask"),
    ]
    assert len(found.faults) == len(expected)
    for fault, words in zip(found.faults, expected, strict=True):
        assert all(word in fault for word in words), fault
    assert found.sound == [0]
    assert found.unknown == {9: 3, 255: 1} and found.pixels[254] == 4


def test_a_split_without_labels(tmp_path):
    ignored = sample(tmp_path, "a", [[0, 0, 0, 0]] * 2)
    assert [fault.split(": ")[1] for fault in look(ignored).faults] == ["not one pixel is labelled"]
    assert look(ignored).shares(2).tolist() == [0, 0]
