"""Entry points for torch.hub: torch.hub.load("FOLDER_OF_A_CLONE", "predictor", source="local")."""

from pathlib import Path

import torch

from models import ICNet
from utils.inference.predictor import Predictor
from utils.weights.checkpoint import read_checkpoint
from utils.weights.zoo import find_weights

dependencies = ["torch", "torchvision", "yaml", "pydantic", "numpy", "PIL", "cv2", "tqdm"]


def icnet(weights: str | None = "cityscapes", *, num_classes: int | None = None, backbone: str | None = None) -> ICNet:
    """Return an ICNet in evaluation mode: normalised images (B, 3, H, W) to `{"out": logits (B, classes, H, W)}`.

    The checkpoint stores the mean and standard deviation of the input (`read_checkpoint(path).normalization`;
    ImageNet's for the included ResNet18s) and the size that the network was trained for. `predictor` applies both.

    Args:
        weights: "cityscapes", "half_cityscapes" or "camvid" for the included ResNet18s (19, 19 and 11 classes), the
            path of a checkpoint, a name from docs/weights.md, or None for random ones.
        num_classes: number of classes of a network with random weights (default: 19).
        backbone: its backbone, one of `models.BACKBONES` (default: "resnet50").
    """
    if weights is None:
        return ICNet(num_classes or 19, backbone or "resnet50").eval()
    if num_classes is not None or backbone is not None:
        raise ValueError(f"num_classes and backbone go with weights=None; the weights {weights} have their own")
    return read_checkpoint(_path(weights)).build()


def predictor(weights: str = "cityscapes", device: torch.device | str | None = None) -> Predictor:
    """Return a `Predictor`, which segments images, files and videos; it does the resizing and normalisation itself.

    Args:
        weights: as for `icnet`, but not None.
        device: default: the first CUDA device, or else the CPU.
    """
    return Predictor(_path(weights), device)


def _path(weights: str) -> Path:
    folder = Path(__file__).parent / "ckpt"
    included = folder / f"icnet_resnet18_{weights}.pth"
    return included if included.is_file() else find_weights(weights, folder)
