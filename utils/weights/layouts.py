"""How files of others, the published checkpoint and mmsegmentation's, name the tensors of this project's networks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

_RESNETS = {  # (blocks in layer3, with a third conv in each block)
    (2, False): "resnet18",
    (6, False): "resnet34",
    (6, True): "resnet50",
    (23, True): "resnet101",
    (36, True): "resnet152",
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The names of one kind of file, and those they have here.

    Attributes:
        beginnings: what its names begin with, to recognise it.
        renamed: pairs (theirs, ours) of what a name begins with; the first that fits.
        unused: how the names begin of what the files carry along and nothing uses.
        classifier: this project's name of the weights that the logits come from.
        structure: what its networks are built with, see `models.ICNet`.
        deep_stem: the suffix of a backbone whose stem is three convs, see `models.resnet`.
    """

    beginnings: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]
    classifier: str
    structure: Mapping[str, str]
    deep_stem: str
    unused: tuple[str, ...] = ()

    def recognises(self, state: Mapping[str, Tensor]) -> bool:
        """Tell whether most of these tensors are named as in this layout."""
        return 2 * sum(name.startswith(self.beginnings) for name in state) > len(state)

    def convert(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Rename the tensors; also return the names of those that are left out because nothing uses them.

        A name that is not of the layout is put in brackets, so that it can be no other tensor's.
        """
        dropped = [name for name in state if name.startswith(self.unused)]
        kept = {name: tensor for name, tensor in state.items() if name not in dropped}
        return {rename(name, self.renamed, otherwise=f"({name})"): tensor for name, tensor in kept.items()}, dropped

    def original_name(self, name: str) -> str:
        """Return what the files call a tensor of this project."""
        return rename(name, ((ours, theirs) for theirs, ours in self.renamed), otherwise=name.strip("()"))

    def backbone_of(self, state: Mapping[str, Tensor]) -> str:
        """Read off the backbone from the tensors as this project names them.

        Raises:
            ValueError: no known ResNet.
        """
        blocks = {name.split(".")[2] for name in state if name.startswith("backbone.layer3.")}
        bottleneck = any(name.startswith("backbone.layer") and ".conv3." in name for name in state)
        name = _RESNETS.get((len(blocks), bottleneck))
        if name is None:
            raise ValueError(f"its backbone is no known ResNet (layer3 has {len(blocks)} blocks)")
        deep_stem = any(name.startswith("backbone.conv1.") and name != "backbone.conv1.weight" for name in state)
        return name + (self.deep_stem if deep_stem else "")


def rename(name: str, prefixes: Iterable[tuple[str, str]], *, otherwise: str) -> str:
    """Replace how a name begins by the first of the pairs (old, new) that fits; `otherwise` where none does."""
    for old, new in prefixes:
        if name.startswith(old):
            return new + name[len(old) :]
    return otherwise


# Of icnet_resnet50_197_0.710_best_model.pth, a bare state dict.
PUBLISHED = Layout(
    beginnings=("pretrained.", "conv_sub1.", "head."),
    renamed=(
        ("head.cff_12.conv_low_cls.", "cff_12.aux_classifier."),
        ("head.cff_24.conv_low_cls.", "cff_24.aux_classifier."),
        ("head.conv_cls.", "classifier."),
        ("head.cff_", "cff_"),
        ("pretrained.", "backbone."),
        ("conv_sub1.", "sub1."),
    ),
    classifier="classifier.weight",
    structure={"variant": "published"},
    deep_stem="_v1s",
    unused=("pretrained.fc.",),  # the classifier of the ImageNet weights, carried along
)

# Of icnet_r50-d8_in1k-pre_832x832_160k_cityscapes_20210926_042715-ce310aea.pth, a dict with the tensors in `state_dict`
# that says in `meta` how they came about.
_BRANCHES = tuple((f"backbone.psp_modules.{n}.1.", f"pyramid_pooling.branches.{n}.") for n in range(4))
_FUSIONS = tuple(
    (f"neck.{cff}.{conv}.{theirs}.", f"{cff}.{conv}.{ours}.")
    for cff in ("cff_24", "cff_12")
    for conv in ("conv_low", "conv_high")
    for theirs, ours in (("conv", 0), ("bn", 1))
)
_HEADS = tuple(
    (f"{theirs}.{part}.", f"{ours}.{number}.")
    for theirs, ours in (
        ("decode_head", "classifier"),
        ("auxiliary_head.0", "cff_24.aux_classifier"),
        ("auxiliary_head.1", "cff_12.aux_classifier"),
    )
    for part, number in (("convs.0", 0), ("conv_seg", 1))
)
STEM = (("stem.7.", "bn1."), ("stem.", "conv1."))  # of its ResNets: (theirs, ours)

MMSEG = Layout(
    beginnings=("backbone.backbone.", "backbone.psp_", "backbone.conv_sub", "neck.", "decode_head.", "auxiliary_head."),
    renamed=(
        *((f"backbone.backbone.{theirs}", f"backbone.{ours}") for theirs, ours in STEM),
        ("backbone.backbone.", "backbone."),
        *_BRANCHES,
        ("backbone.psp_bottleneck.", "pyramid_pooling.bottleneck."),
        ("backbone.conv_sub1.", "sub1."),
        ("backbone.conv_sub2.", "conv_sub2."),
        ("backbone.conv_sub4.", "conv_sub4."),
        *_FUSIONS,
        *_HEADS,
    ),
    classifier="classifier.1.weight",
    structure={"variant": "psp"},
    deep_stem="_v1c",
)
