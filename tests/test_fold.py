import pytest
import torch
from torch import nn
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from models import ICNet
from models.fold import fold_batch_norms
from tests.networks import with_statistics


@pytest.mark.parametrize(
    ("backbone", "variant"),
    [("resnet18", "published"), ("resnet18", "psp"), ("resnet50", "published"), ("resnet18_v1s", "published")],
)
@torch.inference_mode()
def test_folded_network_gives_the_same_logits(backbone, variant):
    network = with_statistics(ICNet(5, backbone, variant=variant))
    folded = fold_batch_norms(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    image = torch.randn(2, 3, 64, 96)
    expected = network(image)["out"]
    assert (folded(image)["out"] - expected).abs().max() < 1e-4 * expected.abs().max()


@torch.inference_mode()
def test_torchvision_networks_can_be_folded():
    network = with_statistics(lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3))
    image = torch.randn(1, 3, 64, 96)
    expected = network(image)["out"]
    atol = 1e-3 * expected.abs().max()
    assert torch.allclose(fold_batch_norms(network)(image)["out"], expected, rtol=1e-3, atol=atol)
