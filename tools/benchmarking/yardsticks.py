"""What the benchmark measures this project against: the same network executed the published way, and torchvision's."""

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.segmentation import deeplabv3_resnet50

from models import ICNet
from models.fusion import CascadeFeatureFusion
from models.layers import resize


class PublishedWay(nn.Module):
    """Run the layers of an ICNet in the order in which the published code runs them.

    The half-resolution image goes through the whole backbone, features are resized before their channels are mixed,
    and the logits of all three branches are computed, the main ones at full size.
    """

    def __init__(self, network: ICNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Give all logits that the published network returns: (B, 3, H, W) -> (B, num_classes, H, W) and smaller."""
        network, (height, width) = self.network, image.shape[-2:]
        sub1 = network.sub1(image)
        sub2 = network.backbone.shallow(resize(image, (height // 2, width // 2)))
        network.backbone.deep(sub2)  # its result is not used
        sub4 = network.pyramid_pooling(network.backbone(resize(image, (height // 4, width // 4))))
        fused, aux_16 = _fuse(network.cff_24, sub4, sub2)
        fused, aux_8 = _fuse(network.cff_12, fused, sub1)
        up = resize(fused, [2 * side for side in fused.shape[-2:]])
        quarter = network.classifier(up)
        return {"out": resize(quarter, (height, width)), "quarter": quarter, "aux_8": aux_8, "aux_16": aux_16}


def _fuse(cff: CascadeFeatureFusion, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    low = cff.conv_low(resize(low, high.shape[-2:]))
    return F.relu(low + cff.conv_high(high)), cff.aux_classifier(low)


def deeplab(num_classes: int) -> nn.Module:
    """Build torchvision's DeepLabV3 with a ResNet50, with random weights."""
    return deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=num_classes).eval()
