"""The configuration's keys, defaults and limits, and the shipped YAML files."""

import ast
import pickle
import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from utils.config import Config, load_config
from utils.settings import flatten

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


def test_published_configuration_loads_unchanged(tmp_path):
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


def test_command_line_overrides_file_overrides_default(tmp_path):
    path = write(tmp_path, "train: {epochs: 3, log_iter: 4}")
    config = load_config(path, ["train.epochs=5", "train.epochs=6"])
    assert config.train.epochs == 6  # the last one wins
    assert config.train.log_iter == 4
    assert config.train.val_epoch == Config().train.val_epoch


def test_the_backbone_is_the_variants_own_unless_named():
    chosen = [load_config({}, overrides).model.backbone for overrides in ([], ["model.variant=psp"])]
    assert chosen == ["resnet50", "resnet50"]
    config = load_config({}, ["model.variant=paper", "model.width=1.0", "test.input_size=[1025, 2049]"])
    assert (config.model.backbone, config.model.width, config.test.input_size) == ("resnet50_v1s", 1.0, (1025, 2049))
    assert load_config(config.as_dict()) == config
    assert load_config({"model": {"variant": "paper", "backbone": "resnet18"}}).model.backbone == "resnet18"


@pytest.mark.parametrize("value", ["[1025]", "[1025, 16]", "1025", "[1, 2, 3]"])
def test_input_size_is_a_height_and_a_width_that_the_network_takes(value):
    with pytest.raises(ValueError, match=r"^test\.input_size(\[\d\])? must .*, got "):
        load_config({}, [f"test.input_size={value}"])


def test_round_trip_through_dict_yaml_and_pickle():
    config = load_config({"dataset": {"classes": ["a", "b"], "colors": [[0, 1, 2], [3, 4, 5]]}}, ["train.epochs=5"])
    assert load_config(config.as_dict()) == load_config(yaml.safe_load(config.as_yaml())) == config
    assert pickle.loads(pickle.dumps(config)) == config != Config()
    assert load_config(config.as_dict(), ["train.epochs=6"]).train.epochs == 6


@pytest.mark.parametrize(
    "override",
    [
        "optimizer.init_lr=-0.01",
        "optimizer.init_lr=nan",
        "optimizer.init_lr=inf",
        "optimizer.momentum=1.5",
        "optimizer.weight_decay=-1e-4",
        "model.width=1.5",
        "model.crop_size=31",
        "model.base_size=0",
        "train.epochs=nan",
        "train.epochs=inf",
        "train.train_batch_size=0",
        "train.valid_batch_size=0",
        "train.val_epoch=0",
        "train.log_iter=0",
        "train.num_workers=-1",
        "train.seed=-1",
        "augment.scale_min=0",
        "augment.blur=-0.1",
        "dataset.ignore_index=256",
        "dataset.ignore_index=-1",
        "dataset.streets.train=0",
        "loss.aux_weight=-1",
        "model.backbone=resnet5",
        "model.name=pspnet",
        "model.ppm=mean",
        "model.dropout=1",
        "loss.label_resize=cubic",
        "dataset.name=citiscapes",
    ],
)
def test_invalid_value_names_path_and_value(override):
    path, _, value = override.partition("=")
    with pytest.raises(ValueError) as error:
        load_config({}, [override])
    message = str(error.value)
    assert message.startswith(f"{path} must be ")
    got = message.partition("got ")[2]
    assert value.strip(".-") in got or float(got) == float(value)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("train.epochs=0", "train.epochs must be greater than or equal to 1, got 0"),
        ("optimizer.init_lr=0", "optimizer.init_lr must be greater than 0, got 0"),
        ("augment.mirror=1.1", "augment.mirror must be less than or equal to 1, got 1.1"),
        ("train.ema=1", "train.ema must be less than 1, got 1"),
        ("model.ppm=sums", "model.ppm must be 'sum', 'concat' or 'none', got 'sums'; did you mean 'sum'?"),
        ("train.amp=32", "train.amp must be 'auto', 'off', 'bf16' or 'fp16', got 32"),
        ("augment.scale_min=2.5", "augment.scale_min (2.5) must not exceed scale_max (2.0)"),
        ("optimizer.min_lr=0.02", "optimizer.min_lr (0.02) must not exceed init_lr (0.01)"),
        ("loss.class_weights=[1, -0.1]", "loss.class_weights[1] must be greater than or equal to 0, got -0.1"),
        ("test.tta.scales=[1, 0]", "test.tta.scales[1] must be greater than 0, got 0"),
        ("test.tta.scales=[]", "test.tta.scales must have at least 1 item, got []"),
    ],
)
def test_invalid_value_names_limit_or_choices(override, problem):
    with pytest.raises(ValueError) as error:
        load_config({}, [override], name="last.pth")
    assert str(error.value) == f"last.pth: {problem}"


def test_class_weights_are_given_or_counted():
    with pytest.raises(ValueError, match=r"loss\.class_weights cannot be combined with balance=log; set one of them"):
        load_config({}, ["loss.class_weights=[1, 2]", "loss.balance=log"])


def test_seed_has_32_bits():
    assert load_config({}, [f"train.seed={2**32 - 1}"]).train.seed == 2**32 - 1
    with pytest.raises(ValueError, match=r"train\.seed"):
        load_config({}, [f"train.seed={2**32}"])


def test_scale_and_learning_rate_can_be_constant():
    assert load_config({"augment": {"scale_min": 1, "scale_max": 1}}).augment.scale_max == 1
    assert load_config({"optimizer": {"min_lr": 0.01}}).optimizer.min_lr == 0.01


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_configurations_load(path):
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    values = load_config(path).as_dict()
    for section, keys in given.items():
        for key, value in keys.items():
            if not isinstance(value, dict | list):
                assert values[section][key] == value, f"{section}.{key}"


def test_the_recipes_name_their_networks_and_weights():
    """What would train without a word if it were lost."""
    models = {path.stem: load_config(path).model for path in SHIPPED}
    assert (models["icnet"].variant, models["icnet"].backbone_weights) == ("published", "IMAGENET1K_V1")
    assert (models["icnet_psp"].variant, models["icnet_psp"].backbone) == ("psp", "resnet50_v1c")
    assert (models["icnet_paper"].variant, models["icnet_paper"].width) == ("paper", 1)
    assert models["icnet_paper"].crop_size % 32 == 1  # as its evaluation's sides
    assert models["cityscapes_small"].backbone_weights == "IMAGENET1K_V1"


def test_every_key_is_read_somewhere():
    sources = [REPO / f"{name}.py" for name in ("train", "evaluate", "inference")]
    sources += [path for path in (REPO / "utils").rglob("*.py") if path.name != "config.py"]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sources]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    read = {(getattr(node.value, "attr", getattr(node.value, "id", "")), node.attr) for node in nodes}
    keys = [key.split(".")[-2:] for key in flatten(Config().as_dict()) if not key.startswith("dataset.streets.")]
    assert ["optimizer", "init_lr"] in keys  # those of streets are passed on as a whole
    for section, key in keys:
        names = section, f"{section}_config", "config", "own", "patterns"  # of variables that hold a section
        assert read & {(name, key) for name in names}, f"{section}.{key}"


def test_every_key_is_documented_with_its_default():
    page = (REPO / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w.]+)` \| `([^`]+)` \| ", page, re.MULTILINE)
    assert sorted(key for key, _ in rows) == sorted(flatten(Config().as_dict()))
    wrong = [key for key, default in rows if load_config({}, [f"{key}={default}"]) != Config()]
    assert not wrong
    assert "(docs/configuration.md)" in (REPO / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("source", [{}, REPO / "configs" / "icnet.yaml"], ids=["defaults", "icnet.yaml"])
def test_defaults_and_icnet_yaml_are_the_published_recipe(source):
    config = load_config(source)
    assert (config.model.backbone, config.model.base_size, config.model.crop_size) == ("resnet50", 1024, 960)
    assert (config.train.train_batch_size, config.train.epochs) == (7, 200)
    optimizer = config.optimizer
    assert (optimizer.init_lr, optimizer.momentum, optimizer.weight_decay, optimizer.power) == (0.01, 0.9, 1e-4, 0.9)
    assert (optimizer.backbone_lr_factor, optimizer.sub1_lr_factor, optimizer.head_lr_factor) == (1, 10, 10)
    assert config.loss.aux_weight == 0.4
    augment = config.augment
    assert (augment.scale_min, augment.scale_max, augment.mirror, augment.blur) == (0.5, 2.0, 0.5, 0.5)
    assert (augment.max_class_share, augment.class_uniform, augment.photometric) == (None, 0, 0)
    assert config.dataset.name == "cityscapes" and config.dataset.ignore_index == 255
    assert (config.train.split, config.test.split) == ("train", "val")


def test_configuration_is_immutable():
    with pytest.raises(ValidationError, match="frozen"):
        Config().train.epochs = 3


def test_names_of_timm_backbones_are_not_checked_here():
    config = load_config({}, ["model.backbone=timm/any_name"])
    assert load_config(config.as_dict()) == config and "backbone: timm/any_name" in config.as_yaml()


def test_only_one_input_size_can_be_set():
    with pytest.raises(ValueError, match=r"^test\.short_side \(0\) and input_size \(\[65, 97\]\) exclude each other"):
        load_config({"test": {"input_size": [65, 97]}}, ["test.short_side=0"])
