"""Published weights by name, and how to get them."""

import hashlib
import sys
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import torch
from torchvision.models import get_model_weights

_OPENMMLAB = "https://download.openmmlab.com"
_HSZHAO = "https://github.com/hszhao/ICNet/tree/master/evaluation/model"
_CKPT = Path(__file__).parents[2] / "ckpt"  # where files downloaded by hand go, whichever train.ckpt_dir is set


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A published file of weights; docs/weights.md lists networks and reported results.

    Attributes:
        file: its name.
        url, licence: download address and licence of what can be downloaded.
        source, md5: of what has to be downloaded by hand: the page that links to it and, if known, its MD5.
    """

    file: str
    url: str | None = None
    licence: str = ""
    source: str = ""
    md5: str | None = None


WEIGHTS = {
    "icnet_psp_resnet50_cityscapes": Weights(
        file="icnet_r50-d8_in1k-pre_832x832_160k_cityscapes_20210926_042715-ce310aea.pth",
        url=f"{_OPENMMLAB}/mmsegmentation/v0.5/icnet/icnet_r50-d8_in1k-pre_832x832_160k_cityscapes/"
        "icnet_r50-d8_in1k-pre_832x832_160k_cityscapes_20210926_042715-ce310aea.pth",
        licence="Apache-2.0",
    ),
    "icnet_cityscapes_train_30k": Weights(
        file="icnet_cityscapes_train_30k.caffemodel", source=_HSZHAO, md5="c7038630c4b6c869afaaadd811bdb539"
    ),
    "icnet_cityscapes_trainval_90k": Weights(
        file="icnet_cityscapes_trainval_90k.caffemodel", source=_HSZHAO, md5="4f4dd9eecd465dd8de7e4cf88ba5d5d5"
    ),
    "icnet_resnet50_cityscapes": Weights(
        file="icnet_resnet50_197_0.710_best_model.pth", source="https://github.com/liminn/ICNet-pytorch/issues"
    ),
    "resnet50_v1s_imagenet": Weights(
        file="gluon_resnet50_v1s-1762acc0.pth",
        url="https://github.com/rwightman/pytorch-pretrained-gluonresnet/releases/download/v0.1/"
        "gluon_resnet50_v1s-1762acc0.pth",
        licence="Apache-2.0",
    ),
    "resnet50_v1c_imagenet": Weights(
        file="resnet50_v1c-2cccc1ad.pth",
        url=f"{_OPENMMLAB}/pretrain/third_party/resnet50_v1c-2cccc1ad.pth",
        licence="Apache-2.0",
    ),
}


def find_weights(name: str, folder: str | Path, *, backbone: str | None = None) -> Path:
    """Return the file of weights given by a path, by a name in `WEIGHTS` or, for a backbone, by torchvision's name.

    Known files are looked for in `folder`, in `ckpt` and in torch.hub's cache, and downloaded into that cache. Any
    other `name` is returned as a path, without checking that it exists.

    Args:
        backbone: the backbone that ImageNet weights (`IMAGENET1K_V1`, …) are meant for.

    Raises:
        FileNotFoundError: they cannot be downloaded.
        ValueError: torchvision has no such weights for the backbone, or the file's MD5 is wrong.
    """
    if Path(name).is_file():
        return Path(name)
    known = WEIGHTS.get(name)
    if known is None and backbone is not None:
        known = _torchvision_weights(name, backbone)
    if known is None:
        return Path(name)
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    for place in (Path(folder), _CKPT, cache):
        if (place / known.file).is_file():
            return _checked(place / known.file, known)
    return _download(known, Path(folder) / known.file if known.url is None else cache / known.file)


def _checked(path: Path, known: Weights) -> Path:
    """Return the path of a file downloaded by hand, if its MD5 is right or not known."""
    if known.md5 is not None:
        found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        if found != known.md5:
            raise ValueError(f"{path} has the MD5 {found}, not {known.md5}; download it again, see {known.source}")
    return path


def _torchvision_weights(name: str, backbone: str) -> Weights:
    plain, _, deep_stem = backbone.partition("_")
    if deep_stem:
        known = f"{backbone}_imagenet"
        choices = f"{known}, a file or null" if known in WEIGHTS else "a file or null"
        raise ValueError(
            f"no file {name}, and torchvision has no ImageNet weights for {backbone}; set model.backbone_weights to "
            f"{choices}, or model.backbone to {plain}"
        )
    members = get_model_weights(backbone).__members__
    if name not in members:
        raise ValueError(f"model.backbone_weights {name!r} is neither a file nor one of {', '.join(members)}")
    file = members[name].url.rpartition("/")[2]
    return Weights(file=file, url=members[name].url, licence="BSD-3-Clause")


def _download(known: Weights, path: Path) -> Path:
    """Download a file; it appears at `path` only when complete and its hash is right."""
    if known.url is None:
        raise FileNotFoundError(f"no file {path}: these weights must be downloaded by hand, see {known.source}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"downloading {known.url} to {path} ({known.licence})")
        with redirect_stderr(sys.stdout):  # torch.hub's progress bar
            digits = path.stem.rpartition("-")[2]  # the names end in the first digits of the files' SHA-256
            torch.hub.download_url_to_file(known.url, str(path), hash_prefix=digits, progress=True)
    except (OSError, RuntimeError) as error:  # no network, a full disk, or a wrong hash
        raise FileNotFoundError(
            f"could not download {known.url} ({error}); download it by other means and put it at {path}"
        ) from None
    return path
