"""Weights in and out: self-describing checkpoints, the published file, ImageNet backbones."""

import re
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights

from dataset.labels import ClassTable, cityscapes_classes, class_table
from dataset.transforms import IMAGENET_MEAN, IMAGENET_STD
from models import BACKBONES, ICNet
from utils import published
from utils.files import replacing

FORMAT = "icnet-checkpoint-1"


@dataclass(kw_only=True)
class Checkpoint:
    """A trained network and what is needed to use it.

    Attributes:
        state_dict: the weights.
        backbone: one of `models.BACKBONES`.
        classes: names and colours; their number is the network's.
        mean, std: of the images it was trained on, see `dataset.transforms.Normalize`.
        config: of the training run, as plain values; empty for the published file.
        epoch, iteration: how many were done.
        metrics: of the latest validation, see `ConfusionMatrix.summary`.
        training: what training goes on from (optimiser, schedule, …); None in weights that are to be used only.
        dropped: names of tensors of the file that nothing uses.
        named: whether the classes' names are the file's own, not assumed.
        source: the file it was read from, to be named in errors.
    """

    state_dict: dict[str, Tensor]
    backbone: str
    classes: ClassTable
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    config: dict[str, Any] = field(default_factory=dict)
    epoch: int = 0
    iteration: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] | None = None
    dropped: tuple[str, ...] = ()
    named: bool = True
    source: Path | None = None

    def build(self) -> ICNet:
        """Build the network with these weights, in evaluation mode.

        Raises:
            ValueError: weights that do not fit.
        """
        network = ICNet(num_classes=len(self.classes), backbone=self.backbone)
        try:
            load_state(network, self.state_dict, name_of=str if self.named else published.original_name)
        except ValueError as error:
            raise ValueError(f"{self.source}: {error}" if self.source else str(error)) from None
        return network.eval()

    def describe(self) -> str:
        """Say in a line what it is, and what of the file is not used."""
        unused = f"; of its tensors nothing uses {', '.join(self.dropped)}" if self.dropped else ""
        return f"{self.source} ({self.backbone}, {len(self.classes)} classes){unused}"


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; a kill or a full disk leaves what was at `path` before."""
    content = {
        "format": FORMAT,
        "state_dict": checkpoint.state_dict,
        "backbone": checkpoint.backbone,
        "classes": list(checkpoint.classes.names),
        "colors": [list(color) for color in checkpoint.classes.colors],
        "mean": list(checkpoint.mean),
        "std": list(checkpoint.std),
        "config": checkpoint.config,
        "epoch": checkpoint.epoch,
        "iteration": checkpoint.iteration,
        "metrics": checkpoint.metrics,
        "training": checkpoint.training,
    }
    with replacing(path) as temporary:
        torch.save(content, temporary)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of this project, or a bare state dict in the published layout.

    Only tensors and plain values are read: a file that would run code is refused.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is broken, or holds something else.
    """
    content = _load(Path(path))
    try:
        if isinstance(content, Mapping) and content.get("format") == FORMAT:
            return replace(_from_own(content), source=Path(path))
        state = _plain_state(content)
        if published.is_published(state):
            return replace(_from_published(state), source=Path(path))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is a damaged checkpoint: {error}") from None
    raise ValueError(
        f"{path} is no checkpoint of ICNet: neither one of this project nor in the published layout; "
        f"it holds {', '.join(map(str, list(state)[:3])) or 'no tensors'}"
    )


def load_model(path: str | Path) -> ICNet:
    """Read a checkpoint and return its network in evaluation mode, on the CPU."""
    return read_checkpoint(path).build()


def find_checkpoint(ckpt_path: str | None, ckpt_dir: str, *, name: str) -> Path:
    """Return the checkpoint to use: the one that is named, else the best in the folder.

    Args:
        name: how the file names of the configured network begin; others count only where it has none.

    Raises:
        FileNotFoundError: there is none.
    """
    if ckpt_path is not None:
        return Path(ckpt_path)
    found = [
        (path.name.startswith(name), float(match[1]), path)
        for path in Path(ckpt_dir).glob("*.pth")
        if (match := re.search(r"_(\d\.\d+)_best_model\.pth$", path.name))
    ]
    if not found:
        raise FileNotFoundError(
            f"no *_best_model.pth in {ckpt_dir}; train first, or set test.ckpt_path to a checkpoint"
        )
    return max(found)[2]


def find_last(resume: str | None, ckpt_dir: str) -> Checkpoint | None:
    """Read the checkpoint to go on from: the one that is named, for "auto" the folder's `last.pth` if it has one."""
    last = Path(ckpt_dir) / "last.pth"
    if resume is None or (resume == "auto" and not last.is_file()):
        return None
    return read_checkpoint(last if resume == "auto" else resume)


def load_state(module: nn.Module, state: Mapping[str, Tensor], *, name_of: Callable[[str], str] = str) -> None:
    """Load weights, every one of them.

    Args:
        name_of: what the file calls a tensor, for errors.

    Raises:
        ValueError: tensors that are missing, left over or of another shape, by name.
    """
    own = module.state_dict()
    faults = {
        "missing": [name_of(name) for name in own if name not in state],
        "unknown": [name_of(name) for name in state if name not in own],
        "of another shape": [
            f"{name_of(name)} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
            for name in own
            if name in state and state[name].shape != own[name].shape
        ],
    }
    words = [f"{len(names)} {kind}: {_brief(names)}" for kind, names in faults.items() if names]
    if words:
        raise ValueError(f"the weights do not fit the network; of {len(own)} tensors " + "; ".join(words))
    module.load_state_dict(dict(state))


def load_backbone(backbone: nn.Module, name: str, weights: str) -> None:
    """Load ImageNet weights into a backbone.

    Args:
        name: the backbone's name.
        weights: the name of weights in torchvision (`IMAGENET1K_V1`), which are fetched if they are not in its cache,
            or a file with a state dict of torchvision's layout.

    Raises:
        ValueError: no such weights, or they cannot be had or do not fit.
    """
    state = _plain_state(_load(Path(weights))) if Path(weights).is_file() else _fetch(name, weights)
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    try:
        load_state(backbone, state)
    except ValueError as error:
        raise ValueError(f"model.backbone_weights {weights}: {error}") from None


def _fetch(name: str, weights: str) -> dict[str, Tensor]:
    if name.endswith("_v1s"):
        raise ValueError(
            f"no file {weights}, and torchvision has no ImageNet weights for {name}; set model.backbone_weights to a "
            f"file or to null, or model.backbone to {name.removesuffix('_v1s')}"
        )
    known = get_model_weights(name).__members__
    if weights not in known:
        raise ValueError(f"model.backbone_weights {weights!r} is neither a file nor one of {', '.join(known)}")
    url = known[weights].url
    try:
        with redirect_stderr(sys.stdout):  # where torch.hub shows its progress
            return known[weights].get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network, or a broken download
        raise ValueError(
            f"could not fetch {url} ({error}); fetch it by other means and set model.backbone_weights to the file, "
            "or to null to train from scratch"
        ) from None


def _load(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}; name another (test.ckpt_path, train.resume), or train first")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an error says it all
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a broken file raises depends on where it is broken
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        if "Weights only load failed" in reason[0]:
            reason = ["it holds more than tensors and plain values, and none of that was run"]
        raise ValueError(f"{path} cannot be read as a checkpoint: {reason[0]}") from None


def _plain_state(content: Any) -> dict[str, Tensor]:
    """Return a bare state dict, without the `module.` that DataParallel puts before each name."""
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        return {}
    prefix = "module." if all(str(name).startswith("module.") for name in content) else ""
    return {str(name).removeprefix(prefix): tensor for name, tensor in content.items()}


def _from_own(content: Mapping[str, Any]) -> Checkpoint:
    if not content["state_dict"] or not _plain_state(content["state_dict"]):
        raise ValueError("its state_dict holds no tensors")
    if content["backbone"] not in BACKBONES or not isinstance(content["config"], Mapping):
        raise ValueError("its backbone or config is none")
    if not len(content["mean"]) == len(content["std"]) == 3:
        raise ValueError("its mean and std are not of three channels")
    return Checkpoint(
        state_dict=content["state_dict"],
        backbone=content["backbone"],
        classes=class_table(content["classes"], content["colors"]),
        mean=tuple(content["mean"]),
        std=tuple(content["std"]),
        config=content["config"],
        epoch=content["epoch"],
        iteration=content["iteration"],
        metrics=content["metrics"],
        training=content["training"],
    )


def _from_published(state: Mapping[str, Tensor]) -> Checkpoint:
    converted, dropped = published.convert(state)
    outputs = [converted[name] for name in converted if name.endswith("classifier.weight")]
    if not outputs:
        raise ValueError("missing: head.conv_cls.weight")
    count = len(outputs[-1])
    classes = cityscapes_classes()
    if count != len(classes):
        classes = class_table([f"class {index}" for index in range(count)], ())
    return Checkpoint(
        state_dict=converted,
        backbone=published.backbone_of(converted),
        classes=classes,
        dropped=tuple(dropped),
        named=False,
    )


def _brief(names: list[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
