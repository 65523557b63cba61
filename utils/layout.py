"""How files of others name the tensors of this project's networks."""

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
