"""Networks whose batch norms look trained, checks of any network, and tracing for several exports."""

from contextlib import contextmanager

import pytest
import torch
from torch import nn

from dataset.transforms import Normalization
from models import ICNet
from tests.conftest import CLASSES
from tests.published import training_outputs
from utils.inference import export
from utils.loss import CascadeLoss
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


def check_gradients(network, *, size=(64, 64), full_size=True):
    """Assert that a training step of four classes on images of this height and width reaches every parameter."""
    outputs = network.train()(torch.randn(2, 3, *size))
    target = torch.randint(0, 4, (2, *size), dtype=torch.uint8)
    CascadeLoss(full_size=full_size)(outputs, target)["loss"].backward()
    missing = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not missing


def check_partial_cascades(network, image):
    """Assert that the network gives the auxiliary logits of training when cut off after one or two branches."""
    outputs = training_outputs(network.eval(), image)
    for branches, name in ((1, "aux_16"), (2, "aux_8")):
        torch.testing.assert_close(network.partial_cascade(image, branches)["out"], outputs[name])


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
        normalization=Normalization((0.4, 0.5, 0.6), (0.2, 0.25, 0.3)),  # not the default, so that a lost one shows
    )


@contextmanager
def tracing_once(checkpoint):
    """Trace a checkpoint's network only once for exports with the same options: that takes half a minute."""
    traces, trace = {}, export._trace

    def trace_once(other, **options):
        if other is not checkpoint:
            return trace(other, **options)
        key = tuple(sorted(options.items()))
        if key not in traces:
            traces[key] = trace(checkpoint, **options)
        program, facts = traces[key]
        return program, dict(facts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_trace", trace_once)
        yield
