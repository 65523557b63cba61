"""Label maps for anyone's pictures, in two lines:

labels = Predictor("ckpt/last.pth").predict("street.jpg")
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from utils.checkpoint import Checkpoint, read_checkpoint
from utils.media import read_image
from utils.segmenter import Segmenter
from utils.visualize import colorize, overlay


class Predictor:
    """A trained network with all that is needed to use it on pictures.

    Args:
        checkpoint: a file, or what `read_checkpoint` made of one.
        device: where the network runs.

    Attributes:
        classes: names and colours of the classes.
    """

    def __init__(self, checkpoint: str | Path | Checkpoint, device: torch.device | str = "cpu") -> None:
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = read_checkpoint(checkpoint)
        network = checkpoint.build().to(device, memory_format=torch.channels_last)
        self.segment = Segmenter(network, device=device, mean=checkpoint.mean, std=checkpoint.std)
        self.classes = checkpoint.classes

    def predict(self, image: np.ndarray | Image.Image | str | Path) -> np.ndarray:
        """Return the class index of every pixel, (H, W) uint8.

        Args:
            image: an RGB array (H, W, 3) uint8, a Pillow image or a file, of any size.
        """
        pixels = torch.from_numpy(np.array(self._as_array(image)))  # (H, W, 3)
        return self.segment(pixels.permute(2, 0, 1)[None])[0].cpu().numpy()

    def colorize(self, labels: np.ndarray) -> np.ndarray:
        """Paint class indices (H, W) in the classes' colours, (H, W, 3) uint8 RGB."""
        return colorize(labels, self.classes)

    def overlay(self, image: np.ndarray, labels: np.ndarray, *, alpha: float = 0.5) -> np.ndarray:
        """Lay the colours of `labels` (H, W) over the RGB `image` (H, W, 3)."""
        return overlay(image, labels, self.classes, alpha=alpha)

    def shares(self, labels: np.ndarray) -> dict[str, float]:
        """Return the share of the picture that each class present takes, largest first."""
        counts = np.bincount(labels.ravel(), minlength=len(self.classes))
        order = np.argsort(-counts, kind="stable")
        return {self.classes.names[i]: float(counts[i] / labels.size) for i in order if counts[i]}

    @staticmethod
    def _as_array(image: np.ndarray | Image.Image | str | Path) -> np.ndarray:
        if isinstance(image, str | Path):
            return read_image(image)
        if isinstance(image, Image.Image):
            return np.asarray(image.convert("RGB"))
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"an RGB image (H, W, 3) uint8 is needed, got {image.shape} {image.dtype}")
        return image
