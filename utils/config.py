"""The configuration: typed sections, filled from their defaults, a YAML file and the command line, in this order."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from models import BACKBONES, POOLINGS, SUB4_INPUTS, VARIANTS
from utils.settings import copy_of, fill, option, override, read_yaml


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network and the size of the images it is trained on."""

    name: str = option("icnet", choices=("icnet",))
    backbone: str = option("resnet50", choices=BACKBONES)
    backbone_weights: str | None = (
        None  # torchvision's name (IMAGENET1K_V1, …), one of utils/weights/zoo.py, a file, or none
    )
    weights: str | None = (
        None  # a checkpoint to start from, also of another's layout, or a name of utils/weights/zoo.py
    )
    variant: str = option("published", choices=tuple(VARIANTS))  # psp: the structure of the best known results
    ppm: str | None = option(None, choices=POOLINGS)  # pyramid pooling; none of these: the variant's own
    sub4_input: str | None = option(None, choices=SUB4_INPUTS)  # what sub4 goes on from; likewise
    dropout: float = option(0.0, low=0, below=1)  # probability of dropping a channel in the heads
    base_size: int = option(1024, low=32)  # short side that augmentation's scale 1 stands for
    crop_size: int = option(960, low=32)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """SGD with a learning rate per branch: `init_lr` times the branch's factor, in poly decay."""

    init_lr: float = option(0.01, above=0)
    momentum: float = option(0.9, low=0, high=1)
    weight_decay: float = option(1e-4, low=0)
    power: float = option(0.9, low=0)  # of the poly decay, at every iteration
    min_lr: float = option(0.0, low=0)  # where the poly decay ends
    backbone_lr_factor: float = option(1.0, low=0)
    sub1_lr_factor: float = option(10.0, low=0)  # not pretrained, as is the head
    head_lr_factor: float = option(10.0, low=0)
    warmup_iters: int = option(0, low=0)  # the rate rises linearly over these first iterations
    decay_all: bool = True  # weight decay on norms and biases too, as published
    clip_norm: float | None = option(None, above=0)  # largest norm of all gradients together


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Cross-entropy of the cascade's three outputs."""

    class_weights: tuple[float, ...] = ()  # one per class; none: see balance
    balance: str = option("none", choices=("none", "log"))  # log: 1 / ln(1.05 + share of the training pixels)
    aux_weight: float = option(0.4, low=0)  # of the outputs at 1/8 and 1/16; the one at 1/4 has 1
    resolution: str = option("branch", choices=("branch", "full"))  # labels made smaller, or logits made larger
    label_smoothing: float = option(0.0, low=0, high=1)
    ohem: float | None = option(None, above=0, high=1)  # count only pixels whose class has a lower probability (0.7)
    ohem_keep: float = option(0.0625, above=0, high=1)  # but at least this share of the pixels


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes to training images."""

    scale_min: float = option(0.5, above=0)
    scale_max: float = option(2.0, above=0)
    mirror: float = option(0.5, low=0, high=1)  # probability
    blur: float = option(0.5, low=0, high=1)  # probability
    max_class_share: float | None = option(None, above=0, high=1)  # of a crop's labelled pixels (0.75), in ten tries
    photometric: float = option(0.0, low=0, high=1)  # probability of each change of brightness, contrast, colours (0.5)


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
    cache: bool = False  # keep decoded images in memory, in every loader process


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The training run."""

    specific_gpu_num: str = "0"  # CUDA device, or several as in "0, 1"; without CUDA the CPU is used
    train_batch_size: int = option(7, low=1)  # of all processes together
    valid_batch_size: int = option(1, low=1)
    cityscapes_root: str = "data/cityscapes"
    epochs: int = option(200, low=1)
    log_iter: int = option(10, low=1)  # iterations between updates of the progress bar's figures
    val_epoch: int = option(1, low=1)  # epochs between validations
    ckpt_dir: str = "ckpt"
    split: str = "train"
    resume: str | None = None  # a last.pth to go on from; auto: the one in ckpt_dir, if there is one
    save_iter: int | None = option(None, low=1)  # iterations between saves within an epoch; none: at its end only
    num_workers: int | None = option(None, low=0)  # loader processes; none: by the machine
    seed: int = option(0, low=0, high=2**32 - 1)  # what NumPy takes
    amp: str = option("off", choices=("auto", "off", "bf16", "fp16"))  # auto: what the GPU is fastest in
    accumulate: int = option(1, low=1)  # parts that a batch is computed in, to save memory
    ema: float | None = option(None, above=0, below=1)  # decay of the weights' running mean (0.999), used from then on
    freeze: tuple[str, ...] = ()  # parts of the network that stay as they are: backbone, sub1, …
    freeze_bn: bool = False  # batch norms keep the statistics that they have


@dataclass(frozen=True, kw_only=True)
class TtaConfig:
    """Test-time augmentation: views of an image whose probabilities are averaged."""

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False  # each scale mirrored too


@dataclass(frozen=True, kw_only=True)
class TestConfig:
    """Evaluation and inference."""

    ckpt_path: str | None = None  # none: the best in train.ckpt_dir
    split: str = "val"
    precision: str = option("fp32", choices=("auto", "fp32", "bf16", "fp16"))  # auto: what the GPU is fastest in
    compile: str = option("none", choices=("none", "default", "cuda_graphs"))  # through torch.compile
    short_side: int | None = option(None, low=0)  # that images are resized to; none: the checkpoint's; 0: as they are
    tta: TtaConfig = TtaConfig()
    window: int | None = option(None, low=32)  # side of the squares that larger images are cut into
    stride: int | None = option(None, low=1)  # from one square to the next; none: two thirds of window
    save: str = option("pred", choices=("none", "pred", "overlay"))  # what evaluation writes of each image
    submission: str | None = None  # folder for the files that the Cityscapes server takes
    branches: bool = False  # measure sub4, and sub4 with sub2, by themselves too


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

    def as_yaml(self) -> str:
        """Return the text of a YAML file with every key."""
        return yaml.safe_dump(json.loads(json.dumps(self.as_dict())), sort_keys=False)  # tuples as lists


def load_config(source: str | Path | Mapping, overrides: Sequence[str] = (), *, name: str | None = None) -> Config:
    """Build the configuration.

    Args:
        source: a YAML file, or what one holds.
        overrides: `section.key=value`, the value in YAML's notation.
        name: where a mapping came from, to be named in errors.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown key, a wrong type or an impossible value, by its dotted path.
    """
    values = copy_of(source) if isinstance(source, Mapping) else read_yaml(Path(source))
    for text in overrides:
        override(values, text)
    try:
        config = fill(Config, values)
    except ValueError as error:
        raise ValueError(f"{name}: {error}" if name else str(error)) from None
    if config.augment.scale_min > config.augment.scale_max:
        raise ValueError(
            f"augment.scale_min ({config.augment.scale_min}) is above augment.scale_max ({config.augment.scale_max})"
        )
    if config.optimizer.min_lr > config.optimizer.init_lr:
        raise ValueError(
            f"optimizer.min_lr ({config.optimizer.min_lr}) is above optimizer.init_lr ({config.optimizer.init_lr})"
        )
    return config
