"""Tensor names in other projects' ICNet checkpoints, and the corresponding names in this project."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor
from torchvision.models.resnet import Bottleneck

from models.resnet import LAYERS


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The tensor names of one project's checkpoints.

    Attributes:
        prefixes: prefixes of its tensor names, by which a file is recognised.
        renames: pairs of prefixes (theirs, ours); the first match applies.
        unused: prefixes of tensors that its files carry without using them.
        classifier: name in this project of the main classifier's weight.
        structure: arguments of `models.ICNet` for its networks.
        deep_stem: suffix of its backbones with a stem of three convolutions, see `models.resnet`.
    """

    prefixes: tuple[str, ...]
    renames: tuple[tuple[str, str], ...]
    classifier: str
    structure: Mapping[str, str]
    deep_stem: str
    unused: tuple[str, ...] = ()

    def recognises(self, state: Mapping[str, Tensor]) -> bool:
        """Return whether most tensors are named as in this layout."""
        return 2 * sum(name.startswith(self.prefixes) for name in state) > len(state)

    def convert(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Rename the tensors; also return the names of unused ones, which are left out.

        A name outside the layout is put in parentheses, so that it cannot clash with another tensor's.
        """
        unused = [name for name in state if name.startswith(self.unused)]
        kept = {name: tensor for name, tensor in state.items() if name not in unused}
        return {rename(name, self.renames, otherwise=f"({name})"): tensor for name, tensor in kept.items()}, unused

    def original_name(self, name: str) -> str:
        """Return a tensor's name in the original files."""
        return rename(name, ((ours, theirs) for theirs, ours in self.renames), otherwise=name.strip("()"))

    def backbone_of(self, state: Mapping[str, Tensor]) -> str:
        """Infer the backbone from converted tensors.

        Raises:
            ValueError: not a known ResNet.
        """
        blocks = {name.split(".")[2] for name in state if name.startswith("backbone.layer3.")}
        bottleneck = any(name.startswith("backbone.layer") and ".conv3." in name for name in state)
        known = {(layers[2], block is Bottleneck): name for name, (block, layers) in LAYERS.items()}
        name = known.get((len(blocks), bottleneck))
        if name is None:
            raise ValueError(f"its backbone is not a known ResNet (layer3 has {len(blocks)} blocks)")
        has_deep_stem = any(key.startswith("backbone.conv1.") and key != "backbone.conv1.weight" for key in state)
        return name + (self.deep_stem if has_deep_stem else "")


def rename(name: str, renames: Iterable[tuple[str, str]], *, otherwise: str) -> str:
    """Replace the first matching prefix by its counterpart; return `otherwise` if none matches."""
    for old, new in renames:
        if name.startswith(old):
            return new + name[len(old) :]
    return otherwise


# liminn/ICNet-pytorch: icnet_resnet50_197_0.710_best_model.pth, a bare state dict.
PUBLISHED = Layout(
    prefixes=("pretrained.", "conv_sub1.", "head."),
    renames=(
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
    unused=("pretrained.fc.",),  # the ImageNet classifier
)

# mmsegmentation: icnet_r50-d8_in1k-pre_832x832_160k_cityscapes_20210926_042715-ce310aea.pth, a dict with `state_dict`.
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
MMSEG_STEM = (("stem.7.", "bn1."), ("stem.", "conv1."))  # deep stem of its ResNets: (theirs, ours)

MMSEG = Layout(
    prefixes=("backbone.backbone.", "backbone.psp_", "backbone.conv_sub", "neck.", "decode_head.", "auxiliary_head."),
    renames=(
        *((f"backbone.backbone.{theirs}", f"backbone.{ours}") for theirs, ours in MMSEG_STEM),
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

# hszhao/ICNet, the paper's own: icnet_cityscapes_train_30k.caffemodel and its like, named as in `utils.weights.caffe`.
_BLOCK = (("1x1_reduce", "conv1", "bn1"), ("3x3", "conv2", "bn2"), ("1x1_increase", "conv3", "bn3"))
_CONVS = (  # the release's layer; the convolution and the batch norm in `models.ICNet`
    ("conv1_1_3x3_s2", "backbone.conv1.0", "backbone.conv1.1"),
    ("conv1_2_3x3", "backbone.conv1.3", "backbone.conv1.4"),
    ("conv1_3_3x3", "backbone.conv1.6", "backbone.bn1"),
    *(
        (
            f"conv{layer + 1}_{block + 1}_{name}",
            f"backbone.layer{layer}.{block}.{conv}",
            f"backbone.layer{layer}.{block}.{norm}",
        )
        for layer, blocks in enumerate((3, 4, 6, 3), start=1)
        for block in range(blocks)
        for name, conv, norm in (*_BLOCK, ("1x1_proj", "downsample.0", "downsample.1"))
    ),
    ("conv5_4_k1", "conv_sub4.conv", "conv_sub4.bn"),
    ("conv_sub4", "cff_24.conv_low.0", "cff_24.conv_low.1"),
    ("conv3_1_sub2_proj", "cff_24.conv_high.0", "cff_24.conv_high.1"),
    ("conv_sub2", "cff_12.conv_low.0", "cff_12.conv_low.1"),
    ("conv3_sub1_proj", "cff_12.conv_high.0", "cff_12.conv_high.1"),
    *((f"conv{index + 1}_sub1", f"sub1.{index}.conv", f"sub1.{index}.bn") for index in range(3)),
)
_PAPER_RENAMES = (
    *((f"{name}.", f"{conv}.") for name, conv, _ in _CONVS),
    *((f"{name}/bn.", f"{norm}.") for name, _, norm in _CONVS),
    ("conv6_cls.", "classifier."),
)

PAPER = Layout(
    prefixes=tuple(theirs for theirs, _ in _PAPER_RENAMES),
    renames=_PAPER_RENAMES,
    classifier="classifier.weight",
    structure={"variant": "paper"},
    deep_stem="_v1s",
)
