"""The layout of the published checkpoint (`icnet_resnet50_197_0.710_best_model.pth`), turned into this project's."""

from collections.abc import Iterable, Mapping

from torch import Tensor

_RENAMED = (  # (published, ours); the first that a name begins with
    ("head.cff_12.conv_low_cls.", "cff_12.aux_classifier."),
    ("head.cff_24.conv_low_cls.", "cff_24.aux_classifier."),
    ("head.conv_cls.", "classifier."),
    ("head.cff_", "cff_"),
    ("pretrained.", "backbone."),
    ("conv_sub1.", "sub1."),
)
_UNUSED = "pretrained.fc."  # the classifier of the ImageNet weights, carried along
_BACKBONES = {  # (blocks in layer3, with a third conv in each block)
    (2, False): "resnet18",
    (6, False): "resnet34",
    (6, True): "resnet50",
    (23, True): "resnet101",
    (36, True): "resnet152",
}


def is_published(state: Mapping[str, Tensor]) -> bool:
    """Tell whether most of these tensors are named as in the published layout."""
    named = sum(name.startswith(("pretrained.", "conv_sub1.", "head.")) for name in state)
    return 2 * named > len(state)


def convert(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Rename the tensors; also return the names of those that are left out because nothing uses them.

    A name that is not of the published layout is put in brackets, so that it can be no other tensor's.
    """
    dropped = [name for name in state if name.startswith(_UNUSED)]
    kept = {name: tensor for name, tensor in state.items() if name not in dropped}
    return {_rename(name, _RENAMED, otherwise=f"({name})"): tensor for name, tensor in kept.items()}, dropped


def original_name(name: str) -> str:
    """Return what the published layout calls a tensor of this project."""
    return _rename(name, [(ours, published) for published, ours in _RENAMED], otherwise=name.strip("()"))


def backbone_of(state: Mapping[str, Tensor]) -> str:
    """Read off the backbone from the tensors in this project's layout.

    Raises:
        ValueError: no known ResNet.
    """
    blocks = {name.split(".")[2] for name in state if name.startswith("backbone.layer3.")}
    bottleneck = any(name.startswith("backbone.layer") and ".conv3." in name for name in state)
    name = _BACKBONES.get((len(blocks), bottleneck))
    if name is None:
        raise ValueError(f"its backbone is no known ResNet (layer3 has {len(blocks)} blocks)")
    deep_stem = any(name.startswith("backbone.conv1.") and name != "backbone.conv1.weight" for name in state)
    return name + ("_v1s" if deep_stem else "")


def _rename(name: str, prefixes: Iterable[tuple[str, str]], *, otherwise: str) -> str:
    for old, new in prefixes:
        if name.startswith(old):
            return new + name[len(old) :]
    return otherwise
