"""A trained network at work, from uint8 images to label maps; all that predicts goes through here."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dataset.transforms import IMAGENET_MEAN, IMAGENET_STD, Normalize
from models.icnet import MIN_SIZE
from models.layers import resize
from utils.labelmap import label_map


class Segmenter:
    """Tell the class of every pixel of images.

    Args:
        network: an ICNet, or a network of torchvision's convention (`{"out": logits}`); on `device`.
        mean, std: of the images it was trained on, see `dataset.transforms.Normalize`.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        device: torch.device | str = "cpu",
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        self.network = network
        self.device = torch.device(device)
        self.normalize = Normalize(mean, std)

    def __call__(self, image: Tensor) -> Tensor:
        """Return the most likely class of every pixel.

        Args:
            image: (B, 3, H, W) uint8, of any size, on any device.

        Returns:
            (B, H, W) uint8 class indices, on the segmenter's device.
        """
        return label_map(self.scores(image), image.shape[-2:])

    @torch.inference_mode()
    def scores(self, image: Tensor) -> Tensor:
        """Return the logits (B, C, h, w) at the size the network has them in, for an ICNet 1/4 of the image's."""
        x = self.normalize(image.to(self.device, non_blocking=True))
        enough = [max(side, MIN_SIZE) for side in x.shape[-2:]]
        if list(x.shape[-2:]) != enough:
            x = resize(x, enough)
        return getattr(self.network, "cascade", self.network)(x)["out"]
