import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import Cityscapes

from demo.streets import files, generate, render

SMALL = {"train": 2, "val": 1, "height": 64, "width": 128, "seed": 0}


def scene(seed, *, height=64, width=128):
    return render(np.random.default_rng(seed), height=height, width=width)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def many():
    return [scene(seed, height=96, width=192) for seed in range(30)]


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    """Generated streets of the size SMALL, to be read only."""
    folder = tmp_path_factory.mktemp("streets") / "streets"
    generate(folder, **SMALL)
    return folder


def test_scene_is_a_function_of_the_seed():
    for first, again, other in zip(scene(1), scene(1), scene(2), strict=True):
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()


@pytest.mark.parametrize("size", [(64, 128), (96, 288), (257, 300)])
def test_scenes_have_the_size_asked_for(size):
    image, label_ids, instance_ids = scene(0, height=size[0], width=size[1])
    assert (image.shape, image.dtype) == ((*size, 3), np.uint8)
    assert (label_ids.shape, label_ids.dtype) == (size, np.uint8)
    assert (instance_ids.shape, instance_ids.dtype) == (size, np.uint16)


def test_every_evaluated_class_occurs_often(many):
    evaluated = [c for c in Cityscapes.classes if not c.ignore_in_eval]
    assert len(evaluated) == 19
    for c in evaluated:
        share = np.mean([np.count_nonzero(label_ids == c.id) >= 8 for _, label_ids, _ in many])
        assert share >= 0.3, f"{c.name} occurs in {share:.0%} of the scenes"


def test_a_small_share_of_pixels_is_ignored(many):
    ignored = [c.id for c in Cityscapes.classes if c.ignore_in_eval]
    share = np.mean([np.isin(label_ids, ignored).mean() for _, label_ids, _ in many])
    assert 0.001 < share < 0.1


def test_label_ids_are_official_and_instance_ids_agree(many):
    table = {c.id: c for c in Cityscapes.classes}
    for _, label_ids, instance_ids in many:
        for label in np.unique(label_ids):
            instances = np.unique(instance_ids[label_ids == label]).astype(int)
            if table[int(label)].has_instances:
                assert set(instances // 1000) == {label}
            else:
                assert set(instances) == {label}


def test_cars_have_separate_instances(many):
    car = next(c.id for c in Cityscapes.classes if c.name == "car")
    assert max(len(np.unique(instance_ids[label_ids == car])) for _, label_ids, instance_ids in many) >= 2


def test_files_have_the_cityscapes_layout(streets):
    for split, count in (("train", 2), ("val", 1)):
        images = sorted((streets / "leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
        assert len(images) == count
        for path in images:
            city, sequence, frame, _ = path.stem.split("_")
            assert city == path.parent.name and len(sequence) == len(frame) == 6
            assert (streets / "gtFine" / split / city / f"{city}_{sequence}_{frame}_gtFine_labelIds.png").is_file()
        for kind, modes in (("semantic", {"L"}), ("instance", {"I", "I;16"})):
            official = Cityscapes(str(streets), split=split, mode="fine", target_type=kind)
            assert len(official) == count
            image, target = official[0]
            assert (image.mode, image.size) == ("RGB", (128, 64)) and target.mode in modes


def test_the_splits_have_no_scene_in_common(streets):
    first = [next(streets.glob(f"leftImg8bit/{split}/*/*_000000_*")).read_bytes() for split in files.SPLITS]
    assert len(set(first)) == len(files.SPLITS)


def test_files_contain_the_rendered_scene(streets):
    image, label_ids, instance_ids = scene((0, 0, 1))  # the second training scene
    for folder, array in (("leftImg8bit", image), ("gtFine", label_ids), ("gtFine", instance_ids)):
        suffix = {3: "leftImg8bit"}.get(array.ndim, "labelIds" if array.dtype == np.uint8 else "instanceIds")
        (path,) = (streets / folder / "train").glob(f"*/*_000001_*{suffix}.png")
        np.testing.assert_array_equal(np.asarray(Image.open(path)), array)


def test_scenes_do_not_depend_on_their_number(streets, tmp_path):
    generate(tmp_path / "more", **SMALL | {"train": 3})
    few, more = contents(streets), contents(tmp_path / "more")
    del few[files.RECORD]
    assert few.items() <= more.items() and len(more) == len(few) + 3 + 1


def test_a_dataset_that_another_process_has_finished_meanwhile_is_kept(tmp_path, monkeypatch):
    render = files.render

    def slowly(*arguments, **options):
        monkeypatch.setattr(files, "render", render)
        generate(tmp_path / "streets", **SMALL)
        (tmp_path / "streets" / "note").touch()
        return render(*arguments, **options)

    monkeypatch.setattr(files, "render", slowly)
    generate(tmp_path / "streets", **SMALL)
    assert (tmp_path / "streets" / "note").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["streets"]


def test_an_empty_folder_is_filled_and_stays(streets, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    before = empty.stat().st_ino  # perhaps that of a mount point
    generate(empty, **SMALL)
    assert empty.stat().st_ino == before and contents(empty) == contents(streets)


def test_what_a_killed_process_left_in_an_empty_folder_is_ignored(tmp_path):
    (tmp_path / f".{tmp_path.name}.abc123" / tmp_path.name).mkdir(parents=True)
    generate(tmp_path, **SMALL)
    assert (tmp_path / files.RECORD).exists()


def test_hidden_files_of_macos_do_not_count(tmp_path):
    (tmp_path / ".DS_Store").touch()
    generate(tmp_path, **SMALL)
    labels = next(tmp_path.glob("gtFine/val/*/*_labelIds.png"))
    labels.with_name(f"._{labels.name}").touch()
    generate(tmp_path, **SMALL)


def test_no_progress_bar_without_a_terminal(tmp_path, capsys):
    generate(tmp_path / "streets", **SMALL)
    assert capsys.readouterr() == ("", "")


def test_existing_dataset_is_not_generated_again(streets, monkeypatch):
    before = contents(streets)
    monkeypatch.setattr(files, "render", None)  # not called
    generate(str(streets), **SMALL)
    assert contents(streets) == before
    assert [path.name for path in streets.parent.iterdir()] == ["streets"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"train": 3}, {"height": 96}])
def test_dataset_with_other_parameters_is_an_error(streets, change):
    with pytest.raises(ValueError, match=r"streets contains .*; delete it or choose another dataset\.root"):
        generate(streets, **SMALL | change)


def test_folder_with_other_content_is_an_error_and_kept(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="something other than generated streets"):
        generate(tmp_path, **SMALL)
    with pytest.raises(ValueError, match="something other than generated streets"):
        generate(tmp_path / "notes.txt", **SMALL)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / files.RECORD).write_text("{damaged")
    with pytest.raises(ValueError, match="something other than generated streets"):
        generate(tmp_path, **SMALL)


def test_incomplete_dataset_is_an_error(streets, tmp_path):
    shutil.copytree(streets, tmp_path, dirs_exist_ok=True)
    next(tmp_path.glob("gtFine/val/*/*_labelIds.png")).unlink()
    with pytest.raises(ValueError, match="2 of 3"):
        generate(tmp_path, **SMALL)


def test_interrupted_generation_leaves_no_files(tmp_path, monkeypatch):
    calls = []

    def interrupted(rng, **size):
        calls.append(size)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return render(rng, **size)

    monkeypatch.setattr(files, "render", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "streets", **SMALL)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    generate(tmp_path / "streets", **SMALL)
    assert json.loads((tmp_path / "streets" / files.RECORD).read_text())["train"] == 2
