"""Weights that others have published, and how to get them."""

import sys
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import torch

_TORCHVISION = "https://download.pytorch.org/models"
_OPENMMLAB = "https://download.openmmlab.com"
_MMSEG = "https://github.com/open-mmlab/mmsegmentation/tree/main/configs/icnet"


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights that are known.

    Attributes:
        file: the name of the file.
        url: where to fetch it; None: by hand only, see `source`.
        sha256: how its SHA-256 begins, if that is known.
        network: what they fit: a backbone, or an ICNet's variant and backbone.
        result: what was reported of them.
        licence: of the weights' source.
        source: the page that says more.
    """

    file: str
    url: str | None
    sha256: str | None
    network: str
    result: str
    licence: str
    source: str


def _imagenet(file: str, result: str) -> Weights:
    """Describe weights of torchvision, whose files are named by architecture and hash."""
    backbone, _, digits = file.removesuffix(".pth").partition("-")
    return Weights(
        file=file,
        url=f"{_TORCHVISION}/{file}",
        sha256=digits,
        network=backbone,
        result=f"ImageNet, {result} % top-1",
        licence="BSD-3-Clause",
        source="https://docs.pytorch.org/vision/stable/models.html",
    )


WEIGHTS = {
    "icnet_psp_resnet50_cityscapes": Weights(
        file="icnet_r50-d8_in1k-pre_832x832_160k_cityscapes_20210926_042715-ce310aea.pth",
        url=f"{_OPENMMLAB}/mmsegmentation/v0.5/icnet/icnet_r50-d8_in1k-pre_832x832_160k_cityscapes/"
        "icnet_r50-d8_in1k-pre_832x832_160k_cityscapes_20210926_042715-ce310aea.pth",
        sha256="ce310aea",
        network="psp resnet50_v1c",
        result="Cityscapes val, 76.29 % mIoU, single scale",
        licence="Apache-2.0",
        source=_MMSEG,
    ),
    "icnet_resnet50_cityscapes": Weights(
        file="icnet_resnet50_197_0.710_best_model.pth",
        url=None,
        sha256=None,
        network="published resnet50_v1s",
        result="Cityscapes val, 71.0 % mIoU (71.24 % by its log)",
        licence="MIT",
        source="https://github.com/liminn/ICNet-pytorch/issues",
    ),
    "resnet50_v1c_imagenet": Weights(
        file="resnet50_v1c-2cccc1ad.pth",
        url=f"{_OPENMMLAB}/pretrain/third_party/resnet50_v1c-2cccc1ad.pth",
        sha256="2cccc1ad",
        network="resnet50_v1c",
        result="ImageNet; what the 76.29 % began with",
        licence="Apache-2.0",
        source=_MMSEG,
    ),
    "resnet18_imagenet": _imagenet("resnet18-f37072fd.pth", "69.76"),
    "resnet34_imagenet": _imagenet("resnet34-b627a593.pth", "73.31"),
    "resnet50_imagenet": _imagenet("resnet50-0676ba61.pth", "76.13"),
    "resnet101_imagenet": _imagenet("resnet101-63fe2227.pth", "77.37"),
    "resnet152_imagenet": _imagenet("resnet152-394f9c45.pth", "78.31"),
}


def find_weights(name: str, folder: str | Path) -> Path:
    """Return the file of weights that are named: by a path, or by a name in `WEIGHTS`.

    Known ones are taken from the folder, and fetched into it where they are not there yet.

    Raises:
        FileNotFoundError: they cannot be fetched.
    """
    known = WEIGHTS.get(name)
    if known is None or Path(name).is_file():
        return Path(name)
    path = Path(folder) / known.file
    if not path.is_file():
        _fetch(known, path)
    return path


def _fetch(known: Weights, path: Path) -> None:
    """Download a file, which is there only when it is whole and its hash is right."""
    if known.url is None:
        raise FileNotFoundError(f"no file {path}: these weights must be got by hand, see {known.source}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        print(f"fetching {known.url} to {path} ({known.licence})")
        with redirect_stderr(sys.stdout):  # where torch.hub shows its progress
            torch.hub.download_url_to_file(known.url, str(path), hash_prefix=known.sha256, progress=True)
    except (OSError, RuntimeError) as error:  # no network, a full disk, or another file than was meant
        raise FileNotFoundError(
            f"could not fetch {known.url} ({error}); fetch it by other means and put it at {path}"
        ) from None
