"""Trained weights for backbones from timm: its own, or a file."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from dataset.transforms import Normalization
from models import TimmBackbone
from models.timm_backbone import import_timm
from utils.weights.tensors import load_state, read_tensors, state_dict_of

DEFAULT = "timm"  # timm's default weights of the network


def load_timm_weights(backbone: TimmBackbone, weights: str) -> Normalization:
    """Load weights into a backbone.

    Args:
        weights: "timm" for the default weights, or a tag from `timm.list_pretrained`, both of which timm downloads into
            its cache; or a file (.safetensors, .pth) with the tensor names of timm's network.

    Returns:
        the mean and standard deviation of the input in training, according to timm. A file counts as the default
        weights unless its name, or that of its folder, includes a tag: `NETWORK.TAG.safetensors`.

    Raises:
        FileNotFoundError: they cannot be downloaded.
        ValueError: unknown weights, or weights that do not fit.
    """
    name, path = backbone.timm_name, Path(weights)
    known = import_timm().list_pretrained(f"{name}.*")
    if path.is_file():
        state = _read(path)
        name = next((full for full in (path.stem, path.parent.name) if full in known), name)
    else:
        tag, tags = weights.removeprefix(f"{name}."), [full.removeprefix(f"{name}.") for full in known]
        if not tags:
            raise ValueError(f"model.backbone_weights {weights!r} is not a file, and timm has no weights of {name}")
        if tag not in (DEFAULT, *tags):
            raise ValueError(
                f"model.backbone_weights {weights!r} is neither a file nor one of {', '.join((DEFAULT, *tags))}"
            )
        name = name if tag == DEFAULT else f"{name}.{tag}"
        state = _fetch(name)
    try:
        load_state(backbone, backbone.rename_timm_tensors(state))
    except ValueError as error:
        raise ValueError(f"model.backbone_weights {weights}: {error}") from None
    trained = import_timm().get_pretrained_cfg(name)
    return Normalization(trained.mean, trained.std)


def _read(path: Path) -> Mapping[str, Tensor]:
    if path.suffix != ".safetensors":
        return state_dict_of(read_tensors(path))
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read as weights: {error}") from None


def _fetch(name: str) -> Mapping[str, Tensor]:
    """Return the weights of a whole network from timm's cache, or else from where it keeps them."""
    try:
        return import_timm().create_model(name, pretrained=True).state_dict()
    except Exception as error:  # without network, many kinds
        known = import_timm().get_pretrained_cfg(name)
        source = (
            f"https://huggingface.co/{known.hf_hub_id}/resolve/main/model.safetensors" if known.hf_hub_id else known.url
        )
        raise FileNotFoundError(
            f"timm could not download {name} ({type(error).__name__}); download {source} by other means as "
            f"{name}{Path(source).suffix}, and set model.backbone_weights to its path"
        ) from None
