"""How settings are read: from YAML, from the command line, into types; and what is said where they cannot be."""

import typing
from pathlib import Path

import pytest

from utils.config import Config, TrainConfig, load_config


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_override_makes_a_section_that_the_file_lacks_or_leaves_empty(tmp_path):
    assert load_config(write(tmp_path, "train:"), ["train.epochs=5"]).train.epochs == 5
    assert load_config(write(tmp_path, ""), ["dataset.train.images=a/*.png"]).dataset.train.images == "a/*.png"


def test_source_is_not_changed_by_overrides():
    source = {"dataset": {"train": {"images": "a"}}}
    load_config(source, ["dataset.train.images=b", "train.epochs=1"])
    assert source == {"dataset": {"train": {"images": "a"}}}


@pytest.mark.parametrize("text", ["1e-4", "0.0001", '"1e-4"', "1.0e-4"])
def test_rate_in_any_notation(tmp_path, text):
    assert load_config(write(tmp_path, f"optimizer: {{weight_decay: {text}}}")).optimizer.weight_decay == 1e-4
    assert load_config({}, [f"optimizer.weight_decay={text}"]).optimizer.weight_decay == 1e-4


def test_whole_number_becomes_float_and_text_where_these_are_wanted():
    config = load_config({"optimizer": {"init_lr": 1}, "train": {"specific_gpu_num": 1}})
    assert config.optimizer.init_lr == 1.0 and isinstance(config.optimizer.init_lr, float)
    assert config.train.specific_gpu_num == "1"


@pytest.mark.parametrize("text", ["", "model:", "# nothing\n", "model:\ntrain:\ntest:\n", "---\n"])
def test_empty_file_or_section_means_the_defaults(tmp_path, text):
    assert load_config(write(tmp_path, text)) == Config()


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("train.epoch=1", "train.epochs"),
        ("optimizer.lr=1", "optimizer.init_lr"),
        ("model.backbon=resnet18", "model.backbone"),
        ("train.ckpt_path=x", "test.ckpt_path"),  # the right key in the wrong section
        ("model.epochs=1", "train.epochs"),
        ("dataset.train.image=x", "dataset.train.images"),
        ("modle.crop_size=64", "model"),
    ],
)
def test_unknown_key_names_itself_and_the_nearest(key, nearest):
    with pytest.raises(ValueError, match="unknown key") as error:
        load_config({}, [key])
    words = str(error.value).replace(";", "").split()
    wrong = key.partition("=")[0]
    assert wrong in words or wrong.partition(".")[0] in words
    assert words[-1] == nearest


@pytest.mark.parametrize("text", ["1: 2", "~: 2", "true: {epochs: 1}", "train: {1: 2}", "train: {no: 2}", "2.5: {}"])
def test_key_that_is_no_text(tmp_path, text):
    with pytest.raises(ValueError, match="unknown key"):
        load_config(write(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    [
        "train: {epochs: 3}\nmodel: {crop_size: 64}\ntrain: {val_epoch: 2}\n",
        "train:\n  epochs: 3\n  val_epoch: 1\n  epochs: 4\n",
    ],
)
def test_key_given_twice_is_an_error(tmp_path, text):
    """PyYAML keeps the last and drops the others without a word."""
    with pytest.raises(ValueError, match=r"(train|epochs)\b.* twice"):
        load_config(write(tmp_path, text))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("train.epochs", True),
        ("train.epochs", "many"),
        ("train.epochs", 1.5),
        ("train.epochs", None),
        ("train.epochs", [3]),
        ("train.epochs", {"a": 1}),
        ("train.num_workers", False),
        ("optimizer.init_lr", "fast"),
        ("optimizer.init_lr", True),
        ("optimizer.init_lr", None),
        ("optimizer.init_lr", [0.1]),
        ("train.ckpt_dir", None),
        ("train.ckpt_dir", ""),
        ("train.ckpt_dir", ["a"]),
        ("train.split", False),  # what YAML makes of `no`
        ("dataset.root", 2 > 1),
        ("dataset.classes", "road"),
        ("dataset.classes", {"road": 0}),
        ("dataset.train", "train/*.png"),
        ("dataset.streets", 5),
        ("train", 5),
        ("train", [1]),
        ("train", "x"),
        ("model", False),
    ],
)
def test_wrong_type_names_path_and_value(path, value):
    source: typing.Any = value
    for name in reversed(path.split(".")):
        source = {name: source}
    with pytest.raises(ValueError) as error:
        load_config(source)
    assert str(error.value).startswith(f"{path} must be ")
    assert repr(value) in str(error.value)


def test_wrong_type_within_a_list_names_its_place():
    with pytest.raises(ValueError, match=r"dataset\.classes\[1\] must be a text, got False"):
        load_config({"dataset": {"classes": ["road", False]}})
    with pytest.raises(ValueError, match=r"dataset\.colors\[1\]\[2\] must be a whole number, got 'x'"):
        load_config({"dataset": {"colors": [[1, 2, 3], [1, 2, "x"]]}})
    with pytest.raises(ValueError, match=r"dataset\.colors\[0\] must have 3 values, got \[1, 2\]"):
        load_config({"dataset": {"colors": [[1, 2]]}})


@pytest.mark.parametrize("text", ["- 1", "hello", "0", "false", "[]", "3.5"])
def test_file_that_holds_no_mapping(tmp_path, text):
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match="must hold sections") as error:
        load_config(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        b"train:\n\tepochs: 3",
        b"train: {epochs: 3",
        b"\xff\xfe\x00",
        b"\x00",
        b"? [1, 2]\n: 3",
        b"a: 1\n---\nb: 2",
        b"train: !!python/object/apply:os.system ['true']",
        b"train: *nothing",
    ],
)
def test_file_that_is_no_yaml(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no valid YAML") as error:
        load_config(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no configuration file"):
        load_config(tmp_path / "nothing.yaml")
    with pytest.raises(FileNotFoundError, match="no configuration file"):
        load_config(tmp_path)


@pytest.mark.parametrize("override", ["train.epochs", "epochs=3", "=3", "", "train=5", ".=3", "train.=3", ".epochs=3"])
def test_override_that_is_no_setting_shows_how_to_write_one(override):
    with pytest.raises(ValueError, match=r"no setting; write section\.key=value"):
        load_config({}, [override])


@pytest.mark.parametrize("override", ["dataset.classes.0=x", "dataset.colors.0.1=3", "train.epochs.more=3"])
def test_override_below_a_value(override):
    with pytest.raises(ValueError, match=r"^(dataset\.classes|dataset\.colors|train\.epochs)"):
        load_config({}, [override])
    with pytest.raises(ValueError, match="is a value, not a section"):
        load_config({"dataset": {"classes": ["a"], "colors": [[0, 0, 0]]}, "train": {"epochs": 1}}, [override])


@pytest.mark.parametrize("text", ["[", "*.png", "@x", "a: b: c", "\0"])
def test_override_whose_value_is_no_yaml(text):
    with pytest.raises(ValueError, match=r"dataset\.train\.images: .* no valid YAML value; put it in quotes"):
        load_config({}, [f"dataset.train.images={text}"])


def test_override_takes_the_values_as_yaml_writes_them():
    config = load_config(
        {"test": {"ckpt_path": "x"}},
        ["test.ckpt_path=null", "dataset.classes=[a, b]", "dataset.train.images='*.png'", "train.ckpt_dir=a=b"],
    )
    assert config.test.ckpt_path is None
    assert config.dataset.classes == ("a", "b")
    assert config.dataset.train.images == "*.png"
    assert config.train.ckpt_dir == "a=b"


def test_text_that_yaml_would_take_for_a_number_stays_as_it_was_typed():
    """A folder named after a date must not become another folder."""
    assert load_config({}, ["train.ckpt_dir=2024_01_15"]).train.ckpt_dir == "2024_01_15"


@pytest.mark.parametrize("text", ["off", "no", "yes", "On"])
def test_only_true_and_false_are_truth_values(tmp_path, text):
    """YAML 1.1 has twelve more ways to write them, among them `train.amp: off` and a class named `no`."""
    assert load_config({}, [f"dataset.classes=[{text}, other]"]).dataset.classes == (text, "other")
    with pytest.raises(ValueError, match=rf"train\.freeze_bn must be true or false, got '{text}'"):
        load_config({}, [f"train.freeze_bn={text}"])
    (tmp_path / "amp.yaml").write_text("train: {amp: off, freeze_bn: True, resume: null}")
    assert load_config(tmp_path / "amp.yaml").train == TrainConfig(amp="off", freeze_bn=True)
