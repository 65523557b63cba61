"""Checkpoints in and out: this project's, which describe themselves, the published one and mmsegmentation's."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dataset.labels import ClassTable, cityscapes_classes, class_table
from dataset.transforms import IMAGENET_MEAN, IMAGENET_STD
from models import BACKBONES, ICNet
from utils.io.files import replacing
from utils.weights.layouts import MMSEG, PUBLISHED, Layout

FORMAT = "icnet-checkpoint-1"
STRUCTURE = {"variant", "ppm", "sub4_input", "dropout"}


@dataclass(kw_only=True)
class Checkpoint:
    """A trained network and what is needed to use it.

    Attributes:
        state_dict: the weights.
        backbone: one of `models.BACKBONES`.
        classes: names and colours; their number is the network's.
        structure: what else the network is built with, see `models.ICNet`; what is not said is as published.
        mean, std: of the images it was trained on, see `dataset.transforms.Normalize`.
        config: of the training run, as plain values; empty for the published file.
        epoch, iteration: how many were done.
        metrics: of the latest validation, see `ConfusionMatrix.summary`.
        training: what training goes on from (optimiser, schedule, …); None in weights that are to be used only.
        dropped: names of tensors of the file that nothing uses.
        named: whether the classes' names are the file's own, not assumed.
        name_of: what the file calls a tensor, for errors.
        source: the file it was read from, to be named in errors.
    """

    state_dict: dict[str, Tensor]
    backbone: str
    classes: ClassTable
    structure: dict[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    config: dict[str, Any] = field(default_factory=dict)
    epoch: int = 0
    iteration: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] | None = None
    dropped: tuple[str, ...] = ()
    named: bool = True
    name_of: Callable[[str], str] = str
    source: Path | None = None

    def build(self) -> ICNet:
        """Build the network with these weights, in evaluation mode.

        Raises:
            ValueError: weights that do not fit.
        """
        try:
            network = ICNet(num_classes=len(self.classes), backbone=self.backbone, **self.structure)
            load_state(network, self.state_dict, name_of=self.name_of)
        except ValueError as error:
            raise ValueError(f"{self.source}: {error}" if self.source else str(error)) from None
        return network.eval()

    def describe(self) -> str:
        """Say in a line what it is, and what of the file is not used."""
        unused = f"; of its tensors nothing uses {', '.join(self.dropped)}" if self.dropped else ""
        network = " ".join(filter(None, (self.structure.get("variant"), self.backbone)))
        return f"{self.source} ({network}, {len(self.classes)} classes){unused}"


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; a kill or a full disk leaves what was at `path` before."""
    content = {
        "format": FORMAT,
        "state_dict": checkpoint.state_dict,
        "backbone": checkpoint.backbone,
        "structure": checkpoint.structure,
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
    """Read a checkpoint of this project, a bare state dict in the published layout, or a file of mmsegmentation.

    Only tensors and plain values are read: a file that would run code is refused.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is broken, or holds something else.
    """
    content = read_weights(Path(path))
    try:
        if isinstance(content, Mapping) and content.get("format") == FORMAT:
            return replace(_from_own(content), source=Path(path))
        state = plain_state(content) or inner_state(content)
        for layout in (PUBLISHED, MMSEG):
            if layout.recognises(state):
                return replace(_from_layout(layout, state), source=Path(path))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is a damaged checkpoint: {error}") from None
    raise ValueError(
        f"{path} is no checkpoint of ICNet: neither of this project nor in the layout of the published one or "
        "mmsegmentation's; "
        f"it holds {', '.join(map(str, list(state)[:3])) or 'no tensors'}"
    )


def _from_own(content: Mapping[str, Any]) -> Checkpoint:
    if not content["state_dict"] or not plain_state(content["state_dict"]):
        raise ValueError("its state_dict holds no tensors")
    if content["backbone"] not in BACKBONES or not isinstance(content["config"], Mapping):
        raise ValueError("its backbone or config is none")
    structure = content.get("structure", {})  # checkpoints before there were variants do not say
    plain = isinstance(structure, Mapping) and all(isinstance(value, str | float | int) for value in structure.values())
    if not plain or not set(structure) <= STRUCTURE:
        raise ValueError(f"its structure is none: {structure!r:.80}")
    if not len(content["mean"]) == len(content["std"]) == 3:
        raise ValueError("its mean and std are not of three channels")
    return Checkpoint(
        state_dict=content["state_dict"],
        backbone=content["backbone"],
        structure=dict(structure),
        classes=class_table(content["classes"], content["colors"]),
        mean=tuple(content["mean"]),
        std=tuple(content["std"]),
        config=dict(content["config"]),
        epoch=content["epoch"],
        iteration=content["iteration"],
        metrics=content["metrics"],
        training=content["training"],
    )


def _from_layout(layout: Layout, state: Mapping[str, Tensor]) -> Checkpoint:
    """Rename the tensors of a file that says nothing else."""
    converted, dropped = layout.convert(state)
    if layout.classifier not in converted:
        raise ValueError(f"missing: {layout.original_name(layout.classifier)}")
    count, classes = len(converted[layout.classifier]), cityscapes_classes()
    if count != len(classes):
        classes = class_table([f"class {index}" for index in range(count)], ())
    return Checkpoint(
        state_dict=converted,
        backbone=layout.backbone_of(converted),
        classes=classes,
        structure=dict(layout.structure),
        dropped=tuple(dropped),
        named=False,
        name_of=layout.original_name,
    )


def read_weights(path: Path) -> Any:
    """Read tensors and plain values from a file, and nothing that would run code.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is broken, or holds something else.
    """
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


def plain_state(content: Any) -> dict[str, Tensor]:
    """Return a bare state dict, without the `module.` that DataParallel puts before each name."""
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        return {}
    prefix = "module." if all(str(name).startswith("module.") for name in content) else ""
    return {str(name).removeprefix(prefix): tensor for name, tensor in content.items()}


def inner_state(content: Any) -> dict[str, Tensor]:
    """Return the state dict in a file that holds more beside it, as those of OpenMMLab's projects do."""
    return plain_state(content.get("state_dict")) if isinstance(content, Mapping) else {}


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


def _brief(names: list[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
