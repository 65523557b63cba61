"""Reading settings from YAML and the command line, type conversion, and error messages."""

import typing
from pathlib import Path

import pytest

from utils.config import Config, TrainConfig, load_config
from utils.settings import override, setting


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_override_creates_a_missing_or_empty_section(tmp_path):
    assert load_config(write(tmp_path, "train:"), ["train.epochs=5"]).train.epochs == 5
    assert load_config(write(tmp_path, ""), ["dataset.train.images=a/*.png"]).dataset.train.images == "a/*.png"


def test_overrides_do_not_modify_the_source():
    source = {"dataset": {"train": {"images": "a"}}}
    load_config(source, ["dataset.train.images=b", "train.epochs=1"])
    assert source == {"dataset": {"train": {"images": "a"}}}


def test_an_override_changes_one_of_two_sections_that_share_an_anchor(tmp_path):
    path = write(tmp_path, "dataset: {train: &both {images: a, masks: m}, val: *both}")
    data = load_config(path, ["dataset.val.images=b"]).dataset
    assert (data.train.images, data.val.images, data.val.masks) == ("a", "b", "m")


@pytest.mark.parametrize("text", ["1e-4", "0.0001", '"1e-4"', "1.0e-4"])
def test_float_in_any_notation(tmp_path, text):
    assert load_config(write(tmp_path, f"optimizer: {{weight_decay: {text}}}")).optimizer.weight_decay == 1e-4
    assert load_config({}, [f"optimizer.weight_decay={text}"]).optimizer.weight_decay == 1e-4


def test_numbers_are_converted_to_the_type_of_the_key():
    config = load_config({"optimizer": {"init_lr": 1}, "train": {"specific_gpu_num": 1, "epochs": 3.0}})
    assert config.train.epochs == 3 and isinstance(config.train.epochs, int)
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
        ("loss.lr=1", "optimizer.init_lr"),
    ],
)
def test_unknown_key_names_itself_and_the_nearest_key(key, nearest):
    with pytest.raises(ValueError, match="unknown key") as error:
        load_config({}, [key])
    unknown = key.partition("=")[0] if nearest != "model" else "modle"
    assert str(error.value) == f"unknown key {unknown}; did you mean {nearest}?"


def test_unknown_key_that_resembles_none():
    with pytest.raises(ValueError, match=r"^unknown key zzz; docs/configuration\.md lists them all$"):
        load_config({}, ["zzz.y=1"])


@pytest.mark.parametrize("text", ["1: 2", "~: 2", "true: {epochs: 1}", "train: {1: 2}", "train: {no: 2}", "2.5: {}"])
def test_key_that_is_not_a_string(tmp_path, text):
    with pytest.raises(ValueError, match="unknown key"):
        load_config(write(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    [
        "train: {epochs: 3}\nmodel: {crop_size: 64}\ntrain: {val_epoch: 2}\n",
        "train:\n  epochs: 3\n  val_epoch: 1\n  epochs: 4\n",
    ],
)
def test_duplicate_key_is_an_error(tmp_path, text):
    """PyYAML silently keeps the last."""
    with pytest.raises(ValueError, match=r"duplicate key (train|epochs) "):
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
        ("train.split", False),  # how YAML 1.1 reads `no`
        ("dataset.root", True),
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
    assert str(error.value).startswith(f"{path} must ")
    assert repr(value) in str(error.value)


def test_wrong_type_within_a_list_names_its_index():
    with pytest.raises(ValueError, match=r"dataset\.classes\[1\] must be a valid string, got False"):
        load_config({"dataset": {"classes": ["road", False]}})
    with pytest.raises(ValueError, match=r"dataset\.colors\[1\]\[2\] must be a valid integer, got 'x'"):
        load_config({"dataset": {"colors": [[1, 2, 3], [1, 2, "x"]]}})
    with pytest.raises(ValueError, match=r"dataset\.colors\[0\] must have at least 3 items, got \[1, 2\]"):
        load_config({"dataset": {"colors": [[1, 2]]}})


@pytest.mark.parametrize("text", ["- 1", "hello", "0", "false", "[]", "3.5"])
def test_file_without_sections(tmp_path, text):
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match="must contain sections") as error:
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
def test_file_that_is_not_yaml(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not valid YAML") as error:
        load_config(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no configuration file .*nothing\.yaml; see the folder configs"):
        load_config(tmp_path / "nothing.yaml")
    with pytest.raises(FileNotFoundError, match="no configuration file"):
        load_config(tmp_path)


@pytest.mark.parametrize("override", ["train.epochs", "epochs=3", "=3", "", "train=5", ".=3", "train.=3", ".epochs=3"])
def test_malformed_override_shows_the_syntax(override):
    with pytest.raises(ValueError, match=r"not a setting; write section\.key=value"):
        load_config({}, [override])


@pytest.mark.parametrize("override", ["dataset.classes.0=x", "dataset.colors.0.1=3", "train.epochs.more=3"])
def test_override_below_a_value(override):
    with pytest.raises(ValueError, match=r"^(dataset\.classes|dataset\.colors|train\.epochs)"):
        load_config({}, [override])
    with pytest.raises(ValueError, match="is a value, not a section"):
        load_config({"dataset": {"classes": ["a"], "colors": [[0, 0, 0]]}, "train": {"epochs": 1}}, [override])


@pytest.mark.parametrize("text", ["[", "*.png", "@x", "a: b: c", "\0"])
def test_override_whose_value_is_not_yaml(text):
    with pytest.raises(ValueError, match=r"dataset\.train\.images: .* not a valid YAML value; put it in quotes"):
        load_config({}, [f"dataset.train.images={text}"])


def test_override_without_a_value():
    for text in ("", " "):
        with pytest.raises(ValueError, match=r"model\.weights has no value; write model\.weights=VALUE"):
            load_config({}, [f"model.weights={text}"])


@pytest.mark.parametrize("path", ["runs #2/a", "a: b", "*.png", "null", "1e3", 'say "x"', "café", "\\", "[a"])
def test_a_setting_holds_any_text(path):
    assert load_config({}, [setting("train.ckpt_dir", path)]).train.ckpt_dir == path


def test_a_tilde_is_the_home_folder(monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, "/home/someone")
    overrides = ["train.ckpt_dir=~/runs", "train.cityscapes_root=~/data", "model.weights=a~b.pth"]
    config = load_config({"dataset": {"root": "~/streets"}}, overrides)
    assert config.train.cityscapes_root == "/home/someone/data"
    assert (config.dataset.root, config.train.ckpt_dir) == ("/home/someone/streets", "/home/someone/runs")
    assert config.model.weights == "a~b.pth"


def test_override_values_are_yaml():
    config = load_config(
        {"test": {"ckpt_path": "x"}},
        ["test.ckpt_path=null", "dataset.classes=[a, b]", "dataset.train.images='*.png'", "train.ckpt_dir=a=b"],
    )
    assert config.test.ckpt_path is None
    assert config.dataset.classes == ("a", "b")
    assert config.dataset.train.images == "*.png"
    assert config.train.ckpt_dir == "a=b"


@pytest.mark.parametrize("text", ["2024_01_15", "2024-01-15", "010", "1:30", "1.10", "0x10", ".5", "1__0", "1.0", "7"])
def test_names_that_look_like_numbers_or_dates_stay_as_they_are(text):
    assert load_config({}, [f"train.ckpt_dir={text}"]).train.ckpt_dir == text
    assert load_config({}, [f"dataset.classes=[{text}, b]"]).dataset.classes == (text, "b")


@pytest.mark.parametrize(
    ("text", "value"), [("0x80", 128), ("0b11", 3), ("1_000", 1000), ("+5", 5), ("1.0e+2", 100), ("5.", 5), ("010", 10)]
)
def test_numbers_in_any_notation(text, value):
    assert load_config({}, [f"train.epochs={text}", f"dataset.colors=[[{text}, 0, 0]]"]).train.epochs == value


def test_a_comment_in_an_override_is_refused():
    with pytest.raises(ValueError, match=r"dataset\.root: in '2024_01_15 #2', YAML takes .* put the value in quotes"):
        load_config({}, ["dataset.root=2024_01_15 #2"])
    with pytest.raises(ValueError, match=r"dataset\.root: in '/data/set #1', YAML takes .* put the value in quotes"):
        load_config({}, ["dataset.root=/data/set #1"])
    assert load_config({}, ["dataset.root='/data/set #1'"]).dataset.root == "/data/set #1"
    assert load_config({}, ["optimizer.init_lr=1.0e-3 # lower"]).optimizer.init_lr == 0.001  # which is no mistake


@pytest.mark.parametrize("text", ["off", "no", "yes", "On"])
def test_only_true_and_false_are_booleans(tmp_path, text):
    """In YAML 1.1, `train.amp: off` and a class named `no` are booleans."""
    assert load_config({}, [f"dataset.classes=[{text}, other]"]).dataset.classes == (text, "other")
    with pytest.raises(ValueError, match=rf"train\.freeze_bn must be true or false, got '{text}'"):
        load_config({}, [f"train.freeze_bn={text}"])
    (tmp_path / "amp.yaml").write_text("train: {amp: off, freeze_bn: True, resume: null}")
    assert load_config(tmp_path / "amp.yaml").train == TrainConfig(amp="off", freeze_bn=True)


def test_a_pattern_that_the_shell_expanded_is_explained(tmp_path):
    (tmp_path / "b.png").touch()
    with pytest.raises(ValueError, match=r"b\.png' is not a setting.*; a pattern for --input must be quoted"):
        override({}, str(tmp_path / "b.png"))
    with pytest.raises(ValueError, match=r"as in train\.epochs=10$"):
        override({}, str(tmp_path / "c.png"))
