"""The layout of the published checkpoint (`icnet_resnet50_197_0.710_best_model.pth`), turned into this project's."""

from collections.abc import Mapping

from torch import Tensor

_RENAMED = (  # (published, ours), the first that a name begins with
    ("pretrained.", "backbone."),
    ("conv_sub1.", "sub1."),
    ("head.conv_cls.", "classifier."),
    ("head.cff_12.conv_low_cls.", "cff_12.aux_classifier."),
    ("head.cff_24.conv_low_cls.", "cff_24.aux_classifier."),
    ("head.cff_", "cff_"),
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
    """Tell whether these are the tensors of a network in the published layout."""
    return "head.conv_cls.weight" in state and any(name.startswith("pretrained.") for name in state)


def convert(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Rename the tensors; also return the names of those that are left out because nothing uses them."""
    dropped = [name for name in state if name.startswith(_UNUSED)]
    return {_rename(name): tensor for name, tensor in state.items() if name not in dropped}, dropped


def backbone_of(state: Mapping[str, Tensor]) -> str:
    """Read off the backbone from the tensors in this project's layout.

    Raises:
        ValueError: no known ResNet.
    """
    blocks = {name.split(".")[2] for name in state if name.startswith("backbone.layer3.")}
    name = _BACKBONES.get((len(blocks), "backbone.layer3.0.conv3.weight" in state))
    if name is None:
        raise ValueError(f"its backbone is no known ResNet (layer3 has {len(blocks)} blocks)")
    return name + ("_v1s" if "backbone.conv1.0.weight" in state else "")


def _rename(name: str) -> str:
    for published, ours in _RENAMED:
        if name.startswith(published):
            return ours + name[len(published) :]
    return name
