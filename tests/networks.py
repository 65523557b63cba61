"""Networks whose batch norms look trained."""

import torch
from torch import nn

from models import ICNet
from tests.conftest import CLASSES
from utils.weights.checkpoint import Checkpoint


def with_statistics(network):
    """Give batch norms statistics and weights like those after training, with some small variances."""
    torch.manual_seed(0)
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.normal_()
        norm.running_var.uniform_(1e-5, 2)
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.normal_()
    return network.eval()


def trained_checkpoint(backbone="resnet18", **options):
    """Return a checkpoint whose batch norms have seen images, so that its logits are of ordinary size."""
    torch.manual_seed(0)
    network = ICNet(3, backbone, **options).train()
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = None  # a plain average over all batches, of which there is one
    with torch.no_grad():
        network(torch.randn(4, 3, 64, 64))
    return Checkpoint(
        state_dict=network.state_dict(),
        backbone=backbone,
        structure=network.structure,
        classes=CLASSES,
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.25, 0.3),  # neither is the default, so that a lost one shows
    )
