"""The configuration: typed sections with defaults, overridden by a YAML file, overridden by the command line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, PlainSerializer, StrictBool, ValidationError, WrapValidator, model_validator

from models import BACKBONES, POOLINGS, SUB4_INPUTS, TIMM, VARIANTS
from models.icnet import MIN_SIZE
from utils.settings import Float, Int, PathText, Section, describe, flatten, override, read_yaml

PositiveInt = Annotated[Int, Field(ge=1)]
NonNegativeInt = Annotated[Int, Field(ge=0)]
InputSize = Annotated[Int, Field(ge=MIN_SIZE)]  # pixels
PositiveFloat = Annotated[Float, Field(gt=0)]
NonNegativeFloat = Annotated[Float, Field(ge=0)]
Probability = Annotated[Float, Field(ge=0, le=1)]
Fraction = Annotated[Float, Field(gt=0, le=1)]
Size = Annotated[tuple[InputSize, ...], Field(min_length=2, max_length=2)]  # height and width
Backbone = Annotated[  # names after timm/ are checked by timm, when the network is built
    Literal[BACKBONES],  # type: ignore[valid-type]
    WrapValidator(lambda value, check: value if str(value).startswith(TIMM) else check(value)),
    PlainSerializer(str),
]
Color = Annotated[tuple[Int, ...], Field(min_length=3, max_length=3)]


class ModelConfig(Section):
    """The network, its initial weights and its training input size."""

    name: Literal["icnet"] = "icnet"
    backbone: Backbone = "resnet50"  # one of models.BACKBONES, or timm/NAME
    backbone_weights: PathText | None = None  # ImageNet's, by name (docs/configuration.md) or file; null: random
    weights: PathText | None = None  # checkpoint to fine-tune, or a name in utils/weights/zoo.py
    variant: Literal[tuple(VARIANTS)] = "published"  # type: ignore[valid-type]  # psp: the best results; paper: the paper's
    ppm: Literal[POOLINGS] | None = None  # type: ignore[valid-type]  # pyramid pooling; null: the variant's own
    sub4_input: Literal[SUB4_INPUTS] | None = None  # type: ignore[valid-type]  # input of sub4; null: the variant's own
    dropout: Annotated[Float, Field(ge=0, lt=1)] = 0.0  # channel dropout in the classifiers
    width: Fraction | None = None  # share of each layer's channels; null: as in `weights`, or else the variant's own
    base_size: InputSize = 1024  # short side in pixels at augmentation scale 1
    crop_size: InputSize = 960

    @model_validator(mode="before")
    @classmethod
    def _choose_backbone(cls, values: Any) -> Any:
        """Default to the variant's own backbone."""
        own = VARIANTS.get(str(values.get("variant"))) if isinstance(values, Mapping) else None
        return values if own is None else {"backbone": own.backbone, **values}


class OptimizerConfig(Section):
    """SGD with poly decay and a learning rate per branch: `init_lr` times the branch's factor."""

    init_lr: PositiveFloat = 0.01
    momentum: Probability = 0.9
    weight_decay: NonNegativeFloat = 1e-4
    power: NonNegativeFloat = 0.9  # of the poly decay, applied every iteration
    min_lr: NonNegativeFloat = 0.0  # final learning rate
    backbone_lr_factor: NonNegativeFloat = 1.0
    sub1_lr_factor: NonNegativeFloat = 10.0  # not pretrained, like the head
    head_lr_factor: NonNegativeFloat = 10.0
    warmup_iters: NonNegativeInt = 0  # linear warm-up
    decay_all: StrictBool = True  # weight decay on norms and biases too, as published
    clip_norm: PositiveFloat | None = None  # gradient clipping by global norm

    @model_validator(mode="after")
    def _check_order(self) -> "OptimizerConfig":
        if self.min_lr > self.init_lr:
            raise ValueError(f"min_lr ({self.min_lr}) must not exceed init_lr ({self.init_lr})")
        return self


class LossConfig(Section):
    """Cross-entropy over the three cascade outputs, and knowledge distillation."""

    class_weights: tuple[NonNegativeFloat, ...] = ()  # one per class; empty: see balance
    balance: Literal["none", "log"] = "none"  # log: 1 / ln(balance_offset + share of training pixels), mean 1
    balance_offset: Annotated[Float, Field(gt=1)] = 1.05  # the higher, the less the weights differ
    aux_weight: NonNegativeFloat = 0.4  # of the outputs at 1/8 and 1/16; the main loss has weight 1
    resolution: Literal["branch", "full"] = "branch"  # branch: downsample labels; full: upsample logits
    label_resize: Literal["nearest", "bilinear"] = "nearest"  # bilinear: as published, interpolates class ids
    label_smoothing: Probability = 0.0
    ohem: Fraction | None = None  # only pixels whose true class has a probability below this (try 0.7)
    ohem_keep: Fraction = 0.0625  # but at least this fraction of the pixels
    distill: PathText | None = None  # checkpoint of a teacher, whose soft labels the main output learns too; null: none
    distill_temperature: PositiveFloat = 2.0  # divides the logits of both; higher: softer
    distill_weight: NonNegativeFloat = 1.0

    @model_validator(mode="after")
    def _check_weights(self) -> "LossConfig":
        if self.class_weights and self.balance != "none":
            raise ValueError(f"class_weights cannot be combined with balance={self.balance}; set one of them")
        return self


class AugmentConfig(Section):
    """Random augmentation of training images."""

    scale_min: PositiveFloat = 0.5
    scale_max: PositiveFloat = 2.0
    mirror: Probability = 0.5
    blur: Probability = 0.5
    class_uniform: Probability = 0.0  # share of crops around a pixel of a uniformly drawn class (try 0.5)
    max_class_share: Fraction | None = None  # re-crop, up to ten times, above this share of one class (try 0.75)
    photometric: Probability = 0.0  # of each change: brightness, contrast, saturation, hue (try 0.5)
    photometric_strength: Annotated[Float, Field(gt=0, le=2)] = 1.0  # scales these ranges; at 2, factors from 0 to 2

    @model_validator(mode="after")
    def _check_order(self) -> "AugmentConfig":
        if self.scale_min > self.scale_max:
            raise ValueError(f"scale_min ({self.scale_min}) must not exceed scale_max ({self.scale_max})")
        return self


class SplitConfig(Section):
    """One split of a `folder` dataset: glob patterns relative to `dataset.root`."""

    images: str | None = None
    masks: str | None = None


class StreetsConfig(Section):
    """Number and size of the generated streets."""

    train: PositiveInt = 200
    val: PositiveInt = 50
    height: Annotated[Int, Field(ge=64)] = 256
    width: Annotated[Int, Field(ge=128)] = 512
    seed: NonNegativeInt = 0


class DatasetConfig(Section):
    """Images and labels."""

    name: Literal["cityscapes", "folder", "streets"] = "cityscapes"
    root: PathText | None = None  # of `folder` and `streets`; for Cityscapes see train.cityscapes_root
    train: SplitConfig = SplitConfig()  # `folder` only, like the keys up to ignore_index
    val: SplitConfig = SplitConfig()
    test: SplitConfig = SplitConfig()
    classes: tuple[str, ...] = ()  # names, in the order of the mask values
    colors: tuple[Color, ...] = ()  # RGB per class; empty: chosen automatically
    ignore_index: Annotated[Int, Field(ge=0, le=255)] = 255  # mask value of unlabelled pixels
    streets: StreetsConfig = StreetsConfig()
    cache: StrictBool = False  # keep decoded images in memory, in every loader worker


class TrainConfig(Section):
    """The training run."""

    specific_gpu_num: str = "0"  # CUDA device or devices ("0, 1"); without CUDA the CPU is used
    train_batch_size: PositiveInt = 7  # over all GPUs
    valid_batch_size: PositiveInt = 1  # per GPU
    cityscapes_root: PathText = "data/cityscapes"
    epochs: PositiveInt = 200
    log_iter: PositiveInt = 10  # iterations between progress bar updates and checks for a non-finite loss
    val_epoch: PositiveInt = 1  # epochs between validations
    ckpt_dir: PathText = "ckpt"
    split: str = "train"
    oversample: Fraction | None = None  # images with a class that occurs in less than this share are drawn more often
    resume: PathText | None = None  # path of a last.pth; auto: the one in ckpt_dir, if it exists
    save_iter: PositiveInt | None = None  # iterations between saves of last.pth; null: after epochs, before validations
    num_workers: NonNegativeInt | None = None  # loader workers; null: chosen for the machine
    seed: Annotated[Int, Field(ge=0, le=2**32 - 1)] = 0
    amp: Literal["auto", "off", "bf16", "fp16"] = "off"  # auto: the fastest on this hardware
    accumulate: PositiveInt = 1  # gradient accumulation steps per batch
    ema: Annotated[Float, Field(gt=0, lt=1)] | None = None  # decay of the EMA of the weights (try 0.999)
    freeze: tuple[str, ...] = ()  # modules to freeze: backbone, sub1, …
    freeze_bn: StrictBool = False  # keep batch norm statistics fixed


class TtaConfig(Section):
    """Test-time augmentation: predictions averaged over scaled and mirrored views."""

    scales: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (1.0,)
    flip: StrictBool = False  # add the mirror image at each scale


class TestConfig(Section):
    """Evaluation and inference."""

    ckpt_path: PathText | None = None  # null: the best in train.ckpt_dir
    split: str = "val"
    runtime: Literal["auto", "pytorch", "onnx", "openvino"] = "auto"  # auto: the fastest installed one
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"  # auto: the fastest on this hardware
    compile: Literal["none", "default", "cuda_graphs"] = "none"  # torch.compile
    short_side: NonNegativeInt | None = None  # input size; null: the checkpoint's own; 0: images are not resized
    input_size: Size | None = None  # instead of short_side; null: the checkpoint's own, unless short_side is set
    resize_probabilities: StrictBool | None = None  # rather than logits; null: the checkpoint's own
    tta: TtaConfig = TtaConfig()
    window: InputSize | None = None  # side of sliding windows over larger images
    stride: PositiveInt | None = None  # of the sliding windows; null: two thirds of window
    save: Literal["none", "pred", "overlay"] = "pred"  # what evaluation writes for each image
    submission: PathText | None = None  # folder for label images in the Cityscapes server's format
    branches: StrictBool = False  # also measure sub4 alone and sub4 with sub2

    @model_validator(mode="after")
    def _check_size(self) -> "TestConfig":
        if self.short_side is not None and self.input_size is not None:
            raise ValueError(
                f"short_side ({self.short_side}) and input_size ({list(self.input_size)}) exclude each other; "
                "set one of them to null"
            )
        return self


class Config(Section):
    """The whole configuration."""

    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = AugmentConfig()
    dataset: DatasetConfig = DatasetConfig()
    train: TrainConfig = TrainConfig()
    test: TestConfig = TestConfig()

    def as_dict(self) -> dict[str, Any]:
        """Return nested dicts of plain values, which `load_config` takes."""
        return self.model_dump()

    def as_yaml(self) -> str:
        """Return the text of a YAML file with every key."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_config(source: str | Path | Mapping, overrides: Sequence[str] = (), *, name: str | None = None) -> Config:
    """Build the configuration.

    Args:
        source: a YAML file or its contents.
        overrides: `section.key=value`, the value in YAML syntax.
        name: origin of a mapping, for error messages.

    Raises:
        FileNotFoundError: no such file.
        ValueError: invalid YAML, an unknown key, a wrong type or an invalid value; one line with the dotted path.
    """
    values = dict(source) if isinstance(source, Mapping) else read_yaml(Path(source))
    for setting in overrides:
        override(values, setting)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problem = describe(error, [*Config.model_fields, *flatten(Config().as_dict())])
        raise ValueError(f"{name}: {problem}" if name else problem) from None
