import re
from pathlib import Path

import pytest

from dataset.folder import find_folder
from utils.config import load_config
from utils.data import build_dataset


@pytest.fixture
def tree(tmp_path):
    """Give a function that makes empty files below a folder and returns that folder."""

    def make(*names: str) -> Path:
        for name in names:
            path = tmp_path / "tree" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / "tree"

    return make


def pairs(root: Path, images: str, masks: str | None) -> list[tuple[str, str | None]]:
    return [
        (s.image.relative_to(root).as_posix(), s.mask and s.mask.relative_to(root).as_posix())
        for s in find_folder(root, images=images, masks=masks).complete()
    ]


def test_pairs_by_what_the_wildcard_stands_for(tree):
    root = tree("frames/7.jpg", "frames/10.jpg", "labels/10_mask.png", "labels/7_mask.png", "labels/8_mask.png")
    assert pairs(root, "frames/*.jpg", "labels/*_mask.png") == [
        ("frames/10.jpg", "labels/10_mask.png"),
        ("frames/7.jpg", "labels/7_mask.png"),
    ]


def test_without_masks(tree):
    assert pairs(tree("a/1.jpg", "a/2.jpg"), "a/*.jpg", None) == [("a/1.jpg", None), ("a/2.jpg", None)]


def test_only_what_matches_is_taken(tree):
    root = tree("a/1.jpg", "a/1.txt", "a/b/2.jpg", "c/1.jpg")
    (root / "a" / "folder.jpg").mkdir()
    assert pairs(root, "a/*.jpg", None) == [("a/1.jpg", None)]


def test_several_wildcards(tree):
    root = tree("berlin/cam0/1.jpg", "berlin/cam1/1.jpg", "bonn/cam0/1.jpg")
    tree("gt/berlin_cam0_1.png", "gt/berlin_cam1_1.png", "gt/bonn_cam0_1.png")
    assert pairs(root, "*/*/*.jpg", "gt/*_*_*.png") == [
        ("berlin/cam0/1.jpg", "gt/berlin_cam0_1.png"),
        ("berlin/cam1/1.jpg", "gt/berlin_cam1_1.png"),
        ("bonn/cam0/1.jpg", "gt/bonn_cam0_1.png"),
    ]


def test_two_stars_stand_for_any_folders(tree):
    root = tree("i/1.jpg", "i/x/1.jpg", "i/x/y/1.jpg", "m/1.png", "m/x/1.png", "m/x/y/1.png")
    assert pairs(root, "i/**/*.jpg", "m/**/*.png") == [
        ("i/1.jpg", "m/1.png"),
        ("i/x/1.jpg", "m/x/1.png"),
        ("i/x/y/1.jpg", "m/x/y/1.png"),
    ]


def test_question_mark_and_brackets(tree):
    root = tree("i/a1.jpg", "i/b1.jpg", "i/c1.jpg", "i/a22.jpg", "m/a1.png", "m/b1.png", "m/c1.png")
    assert pairs(root, "i/[ab]?.jpg", "m/[ab]?.png") == [("i/a1.jpg", "m/a1.png"), ("i/b1.jpg", "m/b1.png")]
    assert pairs(root, "i/[a-b]?.jpg", "m/[a-b]?.png") == [("i/a1.jpg", "m/a1.png"), ("i/b1.jpg", "m/b1.png")]


def test_brackets_that_exclude(tree):
    root = tree("i/a1.jpg", "i/b1.jpg", "i/c1.jpg", "m/a1.png", "m/b1.png", "m/c1.png")
    assert pairs(root, "i/[!a]1.jpg", "m/[!a]1.png") == [("i/b1.jpg", "m/b1.png"), ("i/c1.jpg", "m/c1.png")]


def test_pattern_without_wildcard(tree):
    root = tree("i.jpg", "m.png")
    assert pairs(root, "i.jpg", "m.png") == [("i.jpg", "m.png")]


def test_pattern_that_begins_at_the_folder_itself(tree):
    root = tree("i/1.jpg", "m/1.png")
    assert pairs(root, "./i/*.jpg", "./m/*.png") == [("i/1.jpg", "m/1.png")]
    assert pairs(root, "i//*.jpg", "m//*.png") == [("i/1.jpg", "m/1.png")]


def test_names_with_characters_that_mean_something_elsewhere(tree):
    root = tree("i/a+b (1).jpg", "i/ü 日本.jpg", "i/x.y$.jpg", "m/a+b (1).png", "m/ü 日本.png", "m/x.y$.png")
    assert [mask for _, mask in pairs(root, "i/*.jpg", "m/*.png")] == ["m/a+b (1).png", "m/x.y$.png", "m/ü 日本.png"]


def test_dot_in_a_pattern_is_a_dot(tree):
    assert pairs(tree("i/1.jpg", "i/2xjpg"), "i/*.jpg", None) == [("i/1.jpg", None)]


def test_missing_masks_are_counted_and_the_first_named(tree):
    root = tree(*(f"i/{n}.jpg" for n in range(6)), "m/0.png")
    with pytest.raises(ValueError, match=r"5 of 6 images .* have no mask that matches 'm/\*\.png'") as error:
        find_folder(root, images="i/*.jpg", masks="m/*.png").complete()
    assert [name for name in ("0", "1", "2", "3", "4", "5") if f"i/{name}.jpg" in str(error.value)] == ["1", "2", "3"]


def test_files_without_a_partner_are_listed(tree):
    root = tree("i/1.jpg", "i/2.jpg", "m/2.png", "m/3.png")
    found = find_folder(root, images="i/*.jpg", masks="m/*.png")
    assert [s.image.name for s in found.samples] == ["2.jpg"]
    assert (found.images, found.masks) == ([root / "i" / "1.jpg"], [root / "m" / "3.png"])


def test_no_image(tree):
    root = tree("i/1.png")
    with pytest.raises(ValueError, match=re.escape(f"no file in {root} matches the images' pattern 'i/*.jpg'")):
        find_folder(root, images="i/*.jpg", masks=None)


def test_no_folder(tree, tmp_path):
    for root in (tmp_path / "nothing", tree("i/1.png") / "i" / "1.png"):
        with pytest.raises(FileNotFoundError, match=rf"no folder {re.escape(str(root))}; set dataset\.root"):
            find_folder(root, images="*", masks=None)


@pytest.mark.parametrize("pattern", ["/i/*.jpg", "a**.jpg", "i/[z-a].jpg"])
def test_impossible_pattern_is_named(tree, pattern):
    root = tree("i/1.jpg")
    with pytest.raises(ValueError, match=re.escape(pattern)):
        find_folder(root, images=pattern, masks=None)


@pytest.mark.parametrize("pattern", ["../i/*.jpg"])
def test_patterns_above_the_root(tree, pattern):
    root = tree("i/1.jpg", "below/x.png") / "below"
    (sample,) = find_folder(root, images=pattern, masks=None).complete()
    assert sample.image.resolve() == root.parent / "i" / "1.jpg"


def test_built_from_a_configuration(folder_data):
    config = load_config(folder_data.config)
    data = build_dataset(config.dataset, "val", cityscapes_root="")
    assert data.classes.names == ("road", "sky", "car")
    assert len(data) == 2
    assert set(data[0]["target"].unique().tolist()) == {0, 1, 2, 255}


def test_ignore_index_of_the_masks(folder_data):
    """What was class 2 is now "not labelled"; 255 is unknown then."""
    config = load_config(folder_data.config, ["dataset.ignore_index=2", "dataset.classes=[a, b]", "dataset.colors=[]"])
    data = build_dataset(config.dataset, "val", cityscapes_root="")
    with pytest.raises(ValueError, match=r"holds the value 255, .*\(0-2\)"):
        data[0]


@pytest.mark.parametrize("split", ["test", "trainval", "vla", "classes", "root"])
def test_split_that_is_not_described_names_what_can_be_set(folder_data, split):
    config = load_config(folder_data.config)
    with pytest.raises(ValueError, match=repr(split)) as error:
        build_dataset(config.dataset, split, cityscapes_root="")
    keys = re.findall(r"dataset\.\w+\.images", str(error.value))
    for key in keys:
        load_config({}, [f"{key}=x"])  # is a key that exists


@pytest.mark.parametrize("name", ["folder", "streets"])
def test_root_that_is_not_set(folder_data, name):
    config = load_config(folder_data.config, ["dataset.root=null", f"dataset.name={name}"])
    with pytest.raises(ValueError, match=r"dataset\.root is not set"):
        build_dataset(config.dataset, "train", cityscapes_root="")


def test_no_classes(folder_data):
    config = load_config(folder_data.config, ["dataset.classes=[]", "dataset.colors=[]"])
    with pytest.raises(ValueError, match=r"dataset\.classes is empty"):
        build_dataset(config.dataset, "train", cityscapes_root="")
