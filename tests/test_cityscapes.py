import re

import numpy as np
import pytest
from PIL import Image

from dataset.cityscapes import find_cityscapes
from dataset.labels import cityscapes_train_ids
from utils.config import load_config
from utils.data import build_dataset


def names(samples):
    return [sample.image.name for sample in samples]


@pytest.mark.parametrize(
    ("split", "cities"),
    [
        ("train", ["aachen_000000", "aachen_000001", "bochum_000000"]),
        ("val", ["munster_000000"]),
        ("trainval", ["aachen_000000", "aachen_000001", "bochum_000000", "munster_000000"]),
        ("test", ["berlin_000000"]),
    ],
)
def test_splits(cityscapes_data, split, cities):
    samples = find_cityscapes(cityscapes_data, split).complete()
    assert names(samples) == [f"{city}_000019_leftImg8bit.png" for city in cities]
    for sample in samples:
        if split == "test":
            assert sample.mask is None
        else:
            assert sample.mask.is_file()
            assert sample.mask.name == sample.image.name.replace("leftImg8bit", "gtFine_labelIds")
            assert sample.mask.parent.name == sample.image.parent.name


def test_other_files_are_ignored(cityscapes_data):
    city = cityscapes_data / "leftImg8bit" / "train" / "aachen"
    (city / "notes.txt").write_text("x")
    (city / "aachen_000000_000019_rightImg8bit.png").write_bytes(b"x")
    (cityscapes_data / "gtFine" / "train" / "aachen" / "aachen_000000_000019_gtFine_color.png").write_bytes(b"x")
    assert len(find_cityscapes(cityscapes_data, "train").complete()) == 3


def test_label_ids_are_mapped_to_train_ids(cityscapes_data):
    config = load_config({"dataset": {"name": "cityscapes"}})
    data = build_dataset(config.dataset, "train", cityscapes_root=str(cityscapes_data))
    stored = np.asarray(Image.open(data.samples[0].mask))
    target = data[0]["target"].numpy()
    assert len(data) == 3 and len(data.classes) == 19
    assert np.array_equal(target, cityscapes_train_ids()[stored])
    assert (target[stored == 26] == 13).all() and (stored == 26).any()  # car
    assert (target[stored == 9] == 255).all() and (stored == 9).any()  # parking is ignored


def test_undefined_label_id_is_an_error(cityscapes_data):
    path = find_cityscapes(cityscapes_data, "val").samples[0].mask
    labels = np.array(Image.open(path))
    labels[0, 0] = 34
    Image.fromarray(labels).save(path)
    data = build_dataset(load_config({}).dataset, "val", cityscapes_root=str(cityscapes_data))
    with pytest.raises(ValueError, match=r"labelIds\.png contains the value 34"):
        data[0]


def test_unknown_split_lists_the_available_ones(cityscapes_data):
    with pytest.raises(ValueError, match="no split 'valid'; available: train, val, trainval, test"):
        find_cityscapes(cityscapes_data, "valid")


def test_missing_root_is_named(tmp_path):
    for root in (tmp_path / "nothing", tmp_path):
        with pytest.raises(FileNotFoundError, match=re.escape(str(root))) as error:
            find_cityscapes(root, "train")
        assert "train.cityscapes_root" in str(error.value)


@pytest.mark.parametrize("split", ["train", "trainval"])
def test_split_without_images_is_an_error(cityscapes_data, split):
    for image in (cityscapes_data / "leftImg8bit" / "train").rglob("*.png"):
        image.unlink()
    with pytest.raises(ValueError, match=r"no images in .*leftImg8bit/train"):
        find_cityscapes(cityscapes_data, split)


def test_missing_masks_are_counted_and_the_first_named(cityscapes_data):
    masks = sorted((cityscapes_data / "gtFine" / "train").rglob("*labelIds.png"))
    for mask in masks[:2]:
        mask.unlink()
    pairs = find_cityscapes(cityscapes_data, "train")
    with pytest.raises(ValueError, match=r"2 of 3 images have no \*_gtFine_labelIds.png in .* \(extract") as error:
        pairs.complete()
    assert [image.name in str(error.value) for image in pairs.unpaired_images] == [True, True]
    assert [sample.mask for sample in pairs.samples] == masks[2:]
    assert find_cityscapes(cityscapes_data, "val").complete()


def test_hidden_files_are_left_out(cityscapes_data):
    before = find_cityscapes(cityscapes_data, "train")
    for sample in before.samples:
        sample.image.with_name(f"._{sample.image.name}").touch()
    assert find_cityscapes(cityscapes_data, "train") == before


def test_masks_without_an_image_are_listed(cityscapes_data):
    image = cityscapes_data / "leftImg8bit" / "train" / "aachen" / "aachen_000001_000019_leftImg8bit.png"
    image.unlink()
    pairs = find_cityscapes(cityscapes_data, "trainval")
    assert [mask.name for mask in pairs.unpaired_masks] == ["aachen_000001_000019_gtFine_labelIds.png"]
    assert len(pairs.complete()) == 3
