"""The configuration: typed sections, filled from their defaults, a YAML file and the command line, in this order."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from models import BACKBONES


def option(default: Any, **limits: Any) -> Any:
    """Declare a key with its limits: `low`, `high` (both allowed), `above` (not itself allowed), `choices`."""
    return field(default=default, metadata=limits)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network and the size of the images it is trained on."""

    name: str = option("icnet", choices=("icnet",))
    backbone: str = option("resnet50", choices=BACKBONES)
    backbone_weights: str | None = None  # torchvision's name (IMAGENET1K_V1, …), a file, or none
    base_size: int = option(1024, low=32)  # short side that augmentation's scale 1 stands for
    crop_size: int = option(960, low=32)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """SGD with a learning rate per branch: `init_lr` times the branch's factor, in poly decay."""

    init_lr: float = option(0.01, above=0)
    momentum: float = option(0.9, low=0, high=1)
    weight_decay: float = option(1e-4, low=0)
    power: float = option(0.9, low=0)  # of the poly decay, at every iteration
    backbone_lr_factor: float = option(1.0, low=0)
    sub1_lr_factor: float = option(10.0, low=0)  # not pretrained, as is the head
    head_lr_factor: float = option(10.0, low=0)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Cross-entropy of the cascade's three outputs."""

    aux_weight: float = option(0.4, low=0)  # of the outputs at 1/8 and 1/16; the one at 1/4 has 1


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes to training images."""

    scale_min: float = option(0.5, above=0)
    scale_max: float = option(2.0, above=0)
    mirror: float = option(0.5, low=0, high=1)  # probability
    blur: float = option(0.5, low=0, high=1)  # probability


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Where a split of a `folder` dataset lies: glob patterns below `dataset.root`."""

    images: str | None = None
    masks: str | None = None


@dataclass(frozen=True, kw_only=True)
class StreetsConfig:
    """How many streets to generate, and how large."""

    train: int = option(200, low=1)
    val: int = option(50, low=1)
    height: int = option(256, low=64)
    width: int = option(512, low=128)
    seed: int = option(0, low=0)


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """The images and labels."""

    name: str = option("cityscapes", choices=("cityscapes", "folder", "streets"))
    root: str | None = None  # of `folder` and `streets`; Cityscapes has train.cityscapes_root
    train: SplitConfig = SplitConfig()  # `folder` only, as all up to `ignore_index`
    val: SplitConfig = SplitConfig()
    test: SplitConfig = SplitConfig()
    classes: tuple[str, ...] = ()
    colors: tuple[tuple[int, int, int], ...] = ()  # one per class; none: chosen
    ignore_index: int = option(255, low=0, high=255)  # the masks' value for "not labelled"
    streets: StreetsConfig = StreetsConfig()


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The training run."""

    specific_gpu_num: str = "0"  # number of the CUDA device; without CUDA the CPU is used
    train_batch_size: int = option(7, low=1)
    valid_batch_size: int = option(1, low=1)
    cityscapes_root: str = "data/cityscapes"
    epochs: int = option(200, low=1)
    log_iter: int = option(10, low=1)  # iterations between updates of the progress bar's figures
    val_epoch: int = option(1, low=1)  # epochs between validations
    ckpt_dir: str = "ckpt"
    split: str = "train"
    num_workers: int | None = option(None, low=0)  # loader processes; none: by the machine
    seed: int = option(0, low=0)


@dataclass(frozen=True, kw_only=True)
class TestConfig:
    """Evaluation and inference."""

    ckpt_path: str | None = None  # none: the best in train.ckpt_dir
    split: str = "val"


@dataclass(frozen=True, kw_only=True)
class Config:
    """The whole configuration; only the scripts' `main` sees it."""

    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = AugmentConfig()
    dataset: DatasetConfig = DatasetConfig()
    train: TrainConfig = TrainConfig()
    test: TestConfig = TestConfig()

    def as_dict(self) -> dict[str, Any]:
        """Return nested dicts of plain values, as a YAML file would give them."""
        return dataclasses.asdict(self)


def load_config(source: str | Path | Mapping, overrides: Sequence[str] = ()) -> Config:
    """Build the configuration.

    Args:
        source: a YAML file, or what one holds.
        overrides: `section.key=value`, the value in YAML's notation.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown key, a wrong type or an impossible value, by its dotted path.
    """
    values = _copy(source) if isinstance(source, Mapping) else _read(Path(source))
    for override in overrides:
        _set(values, override)
    config = _convert(values, Config, "")
    if config.augment.scale_min > config.augment.scale_max:
        raise ValueError(
            f"augment.scale_min ({config.augment.scale_min}) is above augment.scale_max ({config.augment.scale_max})"
        )
    return config


def _read(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"no configuration file {path}; see the folder configs")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict | None):
        raise ValueError(f"{path} must hold sections (model, train, …), not {values!r:.60}")
    return values or {}


def _copy(values: Mapping) -> dict:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def _set(values: dict, override: str) -> None:
    """Put one `section.key=value` into nested dicts."""
    dotted, equals, text = override.partition("=")
    if not equals or "." not in dotted:
        raise ValueError(f"{override!r} is no setting; write section.key=value, as in train.epochs=10")
    *parents, key = dotted.strip().split(".")
    for parent in parents:
        if values.get(parent) is None:
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict):
            raise ValueError(f"{dotted}: {parent} is a value, not a section")
    try:
        values[key] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(f"{dotted}: {text!r} is no valid YAML value; put it in quotes") from None


def _convert(value: Any, kind: Any, path: str) -> Any:
    """Turn what YAML gave into the type that the key has."""
    if dataclasses.is_dataclass(kind):
        return _convert_section({} if value is None else value, kind, path)
    if isinstance(kind, types.UnionType):  # X | None
        return None if value is None else _convert(value, typing.get_args(kind)[0], path)
    if typing.get_origin(kind) is tuple:
        return _convert_list(value, typing.get_args(kind), path)
    plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    try:
        if kind is str and plain and value != "":
            return str(value)
        if kind is int and plain and not (isinstance(value, float) and value != int(value)):
            return int(value)
        if kind is float and plain and math.isfinite(number := float(value)):  # YAML reads 1e-4 as a string
            return number
    except (ValueError, OverflowError):
        pass
    wanted = {str: "a text", int: "a whole number", float: "a finite number"}[kind]
    raise ValueError(f"{path} must be {wanted}, got {value!r}")


def _convert_section(values: Any, kind: type, path: str) -> Any:
    if not isinstance(values, Mapping):
        raise ValueError(f"{path} must be a section with keys, got {values!r}")
    kinds = typing.get_type_hints(kind)
    prefix = f"{path}." if path else ""
    for key in values:
        if key not in kinds:
            raise ValueError(f"unknown key {prefix}{key}{_hint(f'{prefix}{key}')}")
    result = {key: _convert(value, kinds[key], prefix + key) for key, value in values.items()}
    for key in dataclasses.fields(kind):
        if key.name in result:
            _check_limits(result[key.name], prefix + key.name, **key.metadata)
    return kind(**result)


def _convert_list(value: Any, kinds: tuple, path: str) -> tuple:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{path} must be a list, got {value!r}")
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(value) != len(kinds):
        raise ValueError(f"{path} must have {len(kinds)} values, got {value!r}")
    return tuple(_convert(v, k, f"{path}[{i}]") for i, (v, k) in enumerate(zip(value, kinds, strict=True)))


def _check_limits(value: Any, path: str, *, low=-math.inf, high=math.inf, above=-math.inf, choices=None) -> None:
    if choices is not None and value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        raise ValueError(
            f"{path} must be one of {', '.join(choices)}, got {value!r}" + (f" (nearest: {near[0]})" if near else "")
        )
    if isinstance(value, int | float) and not (low <= value <= high and value > above):
        limits = [f"at least {low}"] if low > -math.inf else [f"above {above}"] if above > -math.inf else []
        limits += [f"at most {high}"] if high < math.inf else []
        raise ValueError(f"{path} must be {' and '.join(limits)}, got {value}")


def _hint(path: str) -> str:
    """Name the existing key nearest to one that does not exist."""
    keys = _dotted_keys(Config, "")
    leaf = path.rpartition(".")[2]
    same = [key for key in keys if key.rpartition(".")[2] == leaf]
    near = same or difflib.get_close_matches(path, keys, n=1, cutoff=0)
    return f"; the nearest that exists is {near[0]}"


def _dotted_keys(kind: type, prefix: str) -> list[str]:
    keys = []
    for name, sub in typing.get_type_hints(kind).items():
        keys += [prefix + name] + (_dotted_keys(sub, f"{prefix}{name}.") if dataclasses.is_dataclass(sub) else [])
    return keys
