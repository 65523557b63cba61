import re
from pathlib import Path

import pytest

from dataset.folder import find_folder, folder_classes
from dataset.labels import IGNORE_INDEX, UNKNOWN
from utils.config import load_config
from utils.data import build_dataset


@pytest.fixture
def tree(tmp_path):
    """Return a function that creates empty files in a folder and returns the folder."""

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


def test_pairs_by_the_text_that_wildcards_match(tree):
    root = tree("frames/7.jpg", "frames/10.jpg", "labels/10_mask.png", "labels/7_mask.png", "labels/8_mask.png")
    assert pairs(root, "frames/*.jpg", "labels/*_mask.png") == [
        ("frames/10.jpg", "labels/10_mask.png"),
        ("frames/7.jpg", "labels/7_mask.png"),
    ]


def test_without_mask_pattern_samples_are_unlabelled(tree):
    assert pairs(tree("a/1.jpg", "a/2.jpg"), "a/*.jpg", None) == [("a/1.jpg", None), ("a/2.jpg", None)]


def test_only_matching_files_are_taken(tree):
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


def test_double_star_matches_any_folders(tree):
    root = tree("i/1.jpg", "i/x/1.jpg", "i/x/y/1.jpg", "m/1.png", "m/x/1.png", "m/x/y/1.png")
    assert pairs(root, "i/**/*.jpg", "m/**/*.png") == [
        ("i/1.jpg", "m/1.png"),
        ("i/x/1.jpg", "m/x/1.png"),
        ("i/x/y/1.jpg", "m/x/y/1.png"),
    ]


def test_question_mark_and_character_set(tree):
    root = tree("i/a1.jpg", "i/b1.jpg", "i/c1.jpg", "i/a22.jpg", "m/a1.png", "m/b1.png", "m/c1.png")
    assert pairs(root, "i/[ab]?.jpg", "m/[ab]?.png") == [("i/a1.jpg", "m/a1.png"), ("i/b1.jpg", "m/b1.png")]
    assert pairs(root, "i/[a-b]?.jpg", "m/[a-b]?.png") == [("i/a1.jpg", "m/a1.png"), ("i/b1.jpg", "m/b1.png")]


def test_negated_character_set(tree):
    root = tree("i/a1.jpg", "i/b1.jpg", "i/c1.jpg", "m/a1.png", "m/b1.png", "m/c1.png")
    assert pairs(root, "i/[!a]1.jpg", "m/[!a]1.png") == [("i/b1.jpg", "m/b1.png"), ("i/c1.jpg", "m/c1.png")]


def test_pattern_without_wildcard(tree):
    root = tree("i.jpg", "m.png")
    assert pairs(root, "i.jpg", "m.png") == [("i.jpg", "m.png")]


def test_redundant_dots_and_slashes_in_patterns(tree):
    root = tree("i/1.jpg", "m/1.png")
    assert pairs(root, "./i/*.jpg", "./m/*.png") == [("i/1.jpg", "m/1.png")]
    assert pairs(root, "i//*.jpg", "m//*.png") == [("i/1.jpg", "m/1.png")]


def test_file_names_with_regex_characters_and_unicode(tree):
    root = tree("i/a+b (1).jpg", "i/ü 日本.jpg", "i/x.y$.jpg", "m/a+b (1).png", "m/ü 日本.png", "m/x.y$.png")
    assert [mask for _, mask in pairs(root, "i/*.jpg", "m/*.png")] == ["m/a+b (1).png", "m/x.y$.png", "m/ü 日本.png"]


def test_dot_in_a_pattern_is_literal(tree):
    assert pairs(tree("i/1.jpg", "i/2xjpg"), "i/*.jpg", None) == [("i/1.jpg", None)]


def test_hidden_files_and_folders_match_only_patterns_that_name_them(tmp_path):
    for name in ("a/1.jpg", "a/._1.jpg", "a/.thumbs/1.jpg", ".b/2.jpg", "a.bak/3.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def names(pattern):
        pairs = find_folder(tmp_path, images=pattern, masks=None)
        return [sample.image.relative_to(tmp_path).as_posix() for sample in pairs.samples]

    assert names("**/*.jpg") == ["a/1.jpg", "a.bak/3.jpg"]
    assert names("a*/*.jpg") == ["a/1.jpg", "a.bak/3.jpg"]
    assert names(".b/*.jpg") == [".b/2.jpg"]


def test_letters_with_composed_and_separate_accents_are_the_same(tree):
    composed, separate = "\N{LATIN SMALL LETTER U WITH DIAERESIS}", "u\N{COMBINING DIAERESIS}"  # as macOS writes it
    root = tree(f"i/{separate}.jpg", f"m/{composed}.png")
    (sample,) = find_folder(root, images="i/*.jpg", masks="m/*.png").complete()
    assert (sample.image.stem, sample.mask.stem) == (separate, composed)
    (sample,) = find_folder(root, images=f"i/{composed}*.jpg", masks=f"m/{separate}*.png").complete()
    assert (sample.image.stem, sample.mask.stem) == (separate, composed)


def test_a_link_to_a_missing_file_is_not_left_out_silently(tmp_path):
    (tmp_path / "a.jpg").symlink_to(tmp_path / "not fetched.jpg")
    (sample,) = find_folder(tmp_path, images="*.jpg", masks=None).samples
    assert sample.image.name == "a.jpg"  # whose absence is an error once it is read


def test_missing_masks_are_counted_and_the_first_named(tree):
    root = tree(*(f"i/{n}.jpg" for n in range(6)), "m/0.png")
    with pytest.raises(ValueError, match=r"5 of 6 images have no mask matching 'm/\*\.png'") as error:
        find_folder(root, images="i/*.jpg", masks="m/*.png").complete()
    assert [name for name in ("0", "1", "2", "3", "4", "5") if f"i/{name}.jpg" in str(error.value)] == ["1", "2", "3"]


def test_unpaired_files_are_listed(tree):
    root = tree("i/1.jpg", "i/2.jpg", "m/2.png", "m/3.png")
    found = find_folder(root, images="i/*.jpg", masks="m/*.png")
    assert [s.image.name for s in found.samples] == ["2.jpg"]
    assert (found.unpaired_images, found.unpaired_masks) == ([root / "i" / "1.jpg"], [root / "m" / "3.png"])


def test_no_matching_image_is_an_error(tree):
    root = tree("i/1.png")
    with pytest.raises(ValueError, match=re.escape(f"no file in {root} matches the image pattern 'i/*.jpg'")):
        find_folder(root, images="i/*.jpg", masks=None)


def test_missing_folder_is_named(tree, tmp_path):
    for root in (tmp_path / "nothing", tree("i/1.png") / "i" / "1.png"):
        with pytest.raises(FileNotFoundError, match=rf"no folder {re.escape(str(root))}; set dataset\.root"):
            find_folder(root, images="*", masks=None)


@pytest.mark.parametrize("pattern", ["/i/*.jpg", "a**.jpg", "i/[z-a].jpg", "."])
def test_invalid_pattern_is_named(tree, pattern):
    root = tree("i/1.jpg")
    with pytest.raises(ValueError, match=re.escape(pattern)):
        find_folder(root, images=pattern, masks=None)


def test_pattern_above_the_root(tree):
    root = tree("i/1.jpg", "below/x.png") / "below"
    (sample,) = find_folder(root, images="../i/*.jpg", masks=None).complete()
    assert sample.image.resolve() == root.parent / "i" / "1.jpg"


def test_dataset_from_a_configuration(folder_data):
    config = load_config(folder_data.config)
    data = build_dataset(config.dataset, "val", cityscapes_root="")
    assert data.classes.names == ("road", "sky", "car")
    assert len(data) == 2
    assert set(data[0]["target"].unique().tolist()) == {0, 1, 2, 255}


def test_ignore_index_replaces_255(folder_data):
    config = load_config(folder_data.config, ["dataset.ignore_index=2", "dataset.classes=[a, b]", "dataset.colors=[]"])
    data = build_dataset(config.dataset, "val", cityscapes_root="")
    with pytest.raises(ValueError, match=r"contains the value 255, .*\(0-2\)"):
        data[0]


@pytest.mark.parametrize("split", ["trainval", "vla", "classes", "root"])
def test_impossible_split_lists_those_of_folder_data(folder_data, split):
    config = load_config(folder_data.config)
    with pytest.raises(ValueError, match=f"folder data has no split '{split}'; use train, val, test"):
        build_dataset(config.dataset, split, cityscapes_root="")


def test_split_without_images_names_the_keys_that_define_it(folder_data):
    config = load_config(folder_data.config)
    with pytest.raises(ValueError, match=r"'test' has no images; set dataset\.test\.images .* dataset\.test\.masks"):
        build_dataset(config.dataset, "test", cityscapes_root="")
    load_config({}, ["dataset.test.images=x", "dataset.test.masks=x"])  # existing keys


@pytest.mark.parametrize("name", ["folder", "streets"])
def test_missing_root_setting_is_an_error(folder_data, name):
    config = load_config(folder_data.config, ["dataset.root=null", f"dataset.name={name}"])
    with pytest.raises(ValueError, match=r"dataset\.root is not set"):
        build_dataset(config.dataset, "train", cityscapes_root="")


def test_empty_class_list_is_an_error(folder_data):
    config = load_config(folder_data.config, ["dataset.classes=[]", "dataset.colors=[]"])
    with pytest.raises(ValueError, match=r"dataset\.classes is empty"):
        build_dataset(config.dataset, "train", cityscapes_root="")


def test_ignore_index_that_is_a_class_is_an_error():
    with pytest.raises(ValueError, match=r"dataset\.ignore_index is 1, the index of class 'sky'"):
        folder_classes(["road", "sky"], [], ignore_index=1)
    _, train_ids = folder_classes(["road", "sky"], [], ignore_index=2)
    assert train_ids[:4].tolist() == [0, 1, IGNORE_INDEX, UNKNOWN]


def test_colors_that_do_not_fit_the_classes_are_an_error():
    with pytest.raises(ValueError, match=r"dataset\.colors has 1 colours for 2 dataset\.classes; omit it"):
        folder_classes(["road", "sky"], [[1, 2, 3]], ignore_index=2)
