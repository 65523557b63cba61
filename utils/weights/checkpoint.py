"""Checkpoint files: reading, writing, and building the network they hold."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dataset.labels import ClassTable, cityscapes_classes, class_table
from dataset.transforms import IMAGENET, Normalization
from models import BACKBONES, TIMM, ICNet
from models.variants import complete_structure
from utils.weights import caffe
from utils.weights.layouts import MMSEG, PAPER, PUBLISHED, Layout
from utils.weights.tensors import load_state, read_tensors, state_dict_of, write_tensors

FORMAT = "icnet-checkpoint-1"
PAPER_TEST = {"input_size": [1025, 2049], "resize_probabilities": True}  # how the paper's release evaluates


@dataclass(kw_only=True)
class Checkpoint:
    """A trained network with everything needed to use it.

    Attributes:
        state_dict: the weights; empty for an exported network, which has them in its own file.
        backbone: one of `models.BACKBONES`, or timm/NAME.
        classes: class names and colours; their number is the network's.
        structure: the arguments of `models.ICNet` from `variant` on; missing ones are filled in with its defaults.
        normalization: of the input.
        config: configuration of the training run as plain values; empty for files of other projects.
        epoch, iteration: completed epochs and iterations.
        metrics: of the latest validation, see `ConfusionMatrix.summary`.
        training: optimiser, scheduler and other state to resume from; None for weights only.
        unused: names of the file's tensors that the network does not use.
        named: whether the class names come from the file rather than being assumed.
        name_of: maps a tensor's name to that in the file, for error messages.
        source: the file it was read from.
    """

    state_dict: dict[str, Tensor]
    backbone: str
    classes: ClassTable
    structure: dict[str, Any] = field(default_factory=dict)
    normalization: Normalization = IMAGENET
    config: dict[str, Any] = field(default_factory=dict)
    epoch: int = 0
    iteration: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] | None = None
    unused: tuple[str, ...] = ()
    named: bool = True
    name_of: Callable[[str], str] = str
    source: Path | None = None

    def __post_init__(self) -> None:
        self.structure = complete_structure(**self.structure)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], **others: Any) -> "Checkpoint":
        """Build from what `metadata` returned; `others` are the remaining attributes.

        Raises:
            ValueError, KeyError, TypeError: damaged metadata.
        """
        try:
            structure = complete_structure(**metadata["structure"])
        except TypeError:
            raise ValueError(f"its structure is invalid: {metadata['structure']!r:.80}") from None
        known = metadata["backbone"] in BACKBONES or str(metadata["backbone"]).startswith(TIMM)
        if not known or not isinstance(metadata["config"], Mapping):
            raise ValueError("its backbone or config is invalid")
        if not len(metadata["mean"]) == len(metadata["std"]) == 3:
            raise ValueError("its mean and std do not have three channels")
        return cls(
            backbone=metadata["backbone"],
            structure=structure,
            classes=class_table(metadata["classes"], metadata["colors"]),
            normalization=Normalization(tuple(metadata["mean"]), tuple(metadata["std"])),
            named=metadata.get("named", True),  # absent from files of earlier versions
            config=dict(metadata["config"]),
            **others,
        )

    def metadata(self) -> dict[str, Any]:
        """Return what describes the network, as plain values for a checkpoint or an exported file."""
        return {
            "backbone": self.backbone,
            "structure": self.structure,
            "classes": list(self.classes.names),
            "colors": [list(color) for color in self.classes.colors],
            "mean": list(self.normalization.mean),
            "std": list(self.normalization.std),
            "named": self.named,
            "config": self.config,
        }

    def build(self) -> ICNet:
        """Build the network with these weights, in evaluation mode.

        Raises:
            ValueError: the weights do not fit.
        """
        try:
            network = ICNet(num_classes=len(self.classes), backbone=self.backbone, **self.structure)
            load_state(network, self.state_dict, name_of=self.name_of)
        except ValueError as error:
            raise ValueError(f"{self.source}: {error}" if self.source else str(error)) from None
        return network.eval()

    def describe(self) -> str:
        """Describe file, network and unused tensors in one line."""
        unused = f"; unused tensors: {', '.join(self.unused)}" if self.unused else ""
        width = self.structure["width"]
        network = f"{self.structure['variant']} {self.backbone}" + (f" width {width}" if width != 1 else "")
        return f"{self.source} ({network}, {len(self.classes)} classes){unused}"


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; a kill or a full disk leaves the previous file at `path` intact."""
    progress = {name: getattr(checkpoint, name) for name in ("epoch", "iteration", "metrics", "training")}
    content = {"format": FORMAT, "state_dict": checkpoint.state_dict, **checkpoint.metadata(), **progress}
    write_tensors(path, content)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of this project, a state dict in the published layout, or a file of mmsegmentation or Caffe.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or one that holds something else.
    """
    path = Path(path)
    if path.suffix.lower() == ".caffemodel":
        return replace(_from_caffe(caffe.read_layers(path), path), source=path)
    content = read_tensors(path)
    try:
        if isinstance(content, Mapping) and content.get("format") == FORMAT:
            return _from_own(content, path)
        state = state_dict_of(content)
        for layout in (PUBLISHED, MMSEG):
            if layout.recognises(state):
                return replace(_from_layout(layout, state), source=path)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is a damaged checkpoint: {error}") from None
    raise ValueError(
        f"{path} is not an ICNet checkpoint of this project, the published code or mmsegmentation; "
        f"it holds {', '.join(map(str, list(state)[:3])) or 'no tensors'}"
    )


def _from_own(content: Mapping[str, Any], path: Path) -> Checkpoint:
    if not state_dict_of(content):
        raise ValueError("its state_dict holds no tensors")
    progress = {name: content[name] for name in ("epoch", "iteration", "metrics", "training")}
    return Checkpoint.from_metadata(content, state_dict=content["state_dict"], source=path, **progress)


def _from_layout(layout: Layout, state: Mapping[str, Tensor]) -> Checkpoint:
    """Rename the tensors of a file without metadata, and infer the rest from them."""
    converted, unused = layout.convert(state)
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
        unused=tuple(unused),
        named=False,
        name_of=layout.original_name,
    )


def _from_caffe(layers: Mapping[str, list[Tensor]], path: Path) -> Checkpoint:
    """Arrange the layers of the paper's own network; the auxiliary classifiers, which its release lacks, are zero."""
    unused = [name for name in layers if not f"{name}.".startswith((*PAPER.prefixes, "data_sub1."))]
    try:
        if len(unused) == len(layers):
            raise ValueError(f"it holds {', '.join(unused[:3]) or 'no weights'}, none of them the paper's layers")
        known = {name: blobs for name, blobs in layers.items() if name not in unused}
        checkpoint = _from_layout(PAPER, caffe.as_state(known))
        stem, *projections = "backbone.conv1.0.weight", "cff_24.conv_low.0.weight", "cff_12.conv_low.0.weight"
        for name in (stem, *projections):
            if name not in checkpoint.state_dict:
                raise ValueError(f"missing: {PAPER.original_name(name)}")
    except ValueError as error:
        raise ValueError(f"{path} does not hold the paper's ICNet: {error}") from None
    state, classes = checkpoint.state_dict, len(checkpoint.classes)
    for name in projections:
        cff, channels = name.partition(".")[0], state[name].shape[1]
        zeros = {"weight": torch.zeros(classes, channels, 1, 1), "bias": torch.zeros(classes)}
        state |= {f"{cff}.aux_classifier.{kind}": tensor for kind, tensor in zeros.items()}
    width = len(state[stem]) / 64
    return replace(
        checkpoint,
        structure={**PAPER.structure, "width": width},
        normalization=Normalization(caffe.MEAN, IMAGENET.std),
        config={"test": PAPER_TEST},
        unused=tuple(unused),
    )
