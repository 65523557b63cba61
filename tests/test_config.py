import ast
import dataclasses
import math
import re
import typing
from pathlib import Path

import pytest
import yaml

from utils.config import Config, TrainConfig, load_config

REPO = Path(__file__).parent.parent
SHIPPED = sorted((REPO / "configs").glob("*.yaml"))

PUBLISHED = """
### 1.Model
model:
  name: "icnet"
  backbone: "resnet50"
  base_size: 1024
  crop_size: 960

### 2.Optimizer
optimizer:
  init_lr: 0.01
  momentum: 0.9
  weight_decay: 0.0001

### 3.Training
train:
  specific_gpu_num: "1"
  train_batch_size: 7
  valid_batch_size: 1
  cityscapes_root: "/data/Cityscapes/"
  epochs: 200
  log_iter: 40
  val_epoch: 5
  ckpt_dir: "./ckpt/"

### 4.Test
test:
  ckpt_path: "./ckpt/icnet_resnet50_197_0.710_best_model.pth"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_published_file_loads_unchanged(tmp_path):
    config = load_config(write(tmp_path, PUBLISHED))
    assert (config.model.name, config.model.backbone) == ("icnet", "resnet50")
    assert (config.model.base_size, config.model.crop_size) == (1024, 960)
    assert (config.optimizer.init_lr, config.optimizer.momentum, config.optimizer.weight_decay) == (0.01, 0.9, 1e-4)
    assert config.train.specific_gpu_num == "1"
    assert (config.train.train_batch_size, config.train.valid_batch_size) == (7, 1)
    assert config.train.cityscapes_root == "/data/Cityscapes/"
    assert (config.train.epochs, config.train.log_iter, config.train.val_epoch) == (200, 40, 5)
    assert config.train.ckpt_dir == "./ckpt/"
    assert config.test.ckpt_path == "./ckpt/icnet_resnet50_197_0.710_best_model.pth"


def test_command_line_beats_file_beats_default(tmp_path):
    path = write(tmp_path, "train: {epochs: 3, log_iter: 4}")
    config = load_config(path, ["train.epochs=5", "train.epochs=6"])
    assert config.train.epochs == 6  # the last one said
    assert config.train.log_iter == 4
    assert config.train.val_epoch == Config().train.val_epoch


def test_override_makes_a_section_that_the_file_lacks_or_leaves_empty(tmp_path):
    assert load_config(write(tmp_path, "train:"), ["train.epochs=5"]).train.epochs == 5
    assert load_config(write(tmp_path, ""), ["dataset.train.images=a/*.png"]).dataset.train.images == "a/*.png"


def test_source_is_not_changed_by_overrides():
    source = {"dataset": {"train": {"images": "a"}}}
    load_config(source, ["dataset.train.images=b", "train.epochs=1"])
    assert source == {"dataset": {"train": {"images": "a"}}}


def test_as_dict_goes_back_to_the_same_configuration():
    config = load_config({"dataset": {"classes": ["a", "b"], "colors": [[0, 1, 2], [3, 4, 5]]}}, ["train.epochs=5"])
    assert load_config(config.as_dict()) == config
    assert load_config(config.as_dict(), ["train.epochs=6"]).train.epochs == 6


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


@pytest.mark.parametrize(
    "override",
    [
        "optimizer.init_lr=-0.01",
        "optimizer.init_lr=0",
        "optimizer.init_lr=.nan",
        "optimizer.init_lr=nan",
        "optimizer.init_lr=.inf",
        "optimizer.init_lr=-.inf",
        "optimizer.momentum=1.5",
        "optimizer.weight_decay=-1e-4",
        "model.crop_size=0",
        "model.crop_size=-960",
        "model.crop_size=31",
        "model.base_size=0",
        "train.epochs=0",
        "train.epochs=.nan",
        "train.epochs=.inf",
        "train.train_batch_size=0",
        "train.valid_batch_size=0",
        "train.val_epoch=0",
        "train.log_iter=0",
        "train.num_workers=-1",
        "train.seed=-1",
        "augment.scale_min=0",
        "augment.mirror=1.1",
        "augment.blur=-0.1",
        "dataset.ignore_index=256",
        "dataset.ignore_index=-1",
        "dataset.streets.train=0",
        "loss.aux_weight=-1",
        "model.backbone=resnet5",
        "model.name=pspnet",
        "dataset.name=citiscapes",
    ],
)
def test_impossible_value_names_path_and_value(override):
    path, _, value = override.partition("=")
    with pytest.raises(ValueError) as error:
        load_config({}, [override])
    message = str(error.value)
    assert message.startswith(f"{path} must be ")
    got = message.partition("got ")[2]
    assert value.strip(".-") in got or float(got) == float(value)


def test_seed_that_the_generators_refuse():
    """NumPy's global generator takes 32 bits."""
    assert load_config({}, [f"train.seed={2**32 - 1}"]).train.seed == 2**32 - 1
    with pytest.raises(ValueError, match=r"train\.seed"):
        load_config({}, [f"train.seed={2**32}"])


def test_scales_in_the_wrong_order():
    assert load_config({"augment": {"scale_min": 1, "scale_max": 1}}).augment.scale_max == 1
    with pytest.raises(ValueError, match=r"augment\.scale_min \(2\.5\) is above augment\.scale_max \(2\.0\)"):
        load_config({"augment": {"scale_min": 2.5}})


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


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_configurations_load(path):
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    values = load_config(path).as_dict()
    for section, keys in given.items():
        for key, value in keys.items():
            if not isinstance(value, dict | list):
                assert values[section][key] == value, f"{section}.{key}"


def test_shipped_configurations_are_there():
    assert {path.name for path in SHIPPED} >= {"icnet.yaml", "quickstart.yaml", "camvid.yaml"}


def test_every_key_is_read_somewhere():
    """A key that no code reads would be a promise that nobody keeps."""
    sources = [REPO / f"{name}.py" for name in ("train", "evaluate", "inference")]
    sources += [path for path in (REPO / "utils").glob("*.py") if path.name != "config.py"]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sources]
    read = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    keys = set(leaves(Config, ""))
    assert "optimizer.init_lr" in keys
    assert not sorted(key for key in keys if key.rpartition(".")[2] not in read)


def test_every_key_is_documented_with_its_default():
    page = (REPO / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w.]+)` \| `([^`]+)` \| ", page, re.MULTILINE)
    assert sorted(key for key, _ in rows) == sorted(leaves(Config, ""))
    wrong = [key for key, default in rows if load_config({}, [f"{key}={default}"]) != Config()]
    assert not wrong
    assert "(docs/configuration.md)" in (REPO / "README.md").read_text(encoding="utf-8")


def leaves(kind: type, prefix: str) -> list[str]:
    found = []
    for name, sub in typing.get_type_hints(kind).items():
        section = dataclasses.is_dataclass(sub)
        found += leaves(sub, f"{prefix}{name}.") if section else [prefix + name]
    return found


@pytest.mark.parametrize("source", [{}, REPO / "configs" / "icnet.yaml"], ids=["defaults", "icnet.yaml"])
def test_recipe(source):
    config = load_config(source)
    assert (config.model.backbone, config.model.base_size, config.model.crop_size) == ("resnet50", 1024, 960)
    assert (config.train.train_batch_size, config.train.epochs) == (7, 200)
    optimizer = config.optimizer
    assert (optimizer.init_lr, optimizer.momentum, optimizer.weight_decay, optimizer.power) == (0.01, 0.9, 1e-4, 0.9)
    assert (optimizer.backbone_lr_factor, optimizer.sub1_lr_factor, optimizer.head_lr_factor) == (1, 10, 10)
    assert config.loss.aux_weight == 0.4
    augment = config.augment
    assert (augment.scale_min, augment.scale_max, augment.mirror, augment.blur) == (0.5, 2.0, 0.5, 0.5)
    assert config.dataset.name == "cityscapes" and config.dataset.ignore_index == 255
    assert (config.train.split, config.test.split) == ("train", "val")
    assert not math.isnan(optimizer.init_lr)


def test_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().train.epochs = 3
