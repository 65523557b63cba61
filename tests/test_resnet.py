import pytest
import torch
from torch import nn
from torchvision.models import get_model, resnet50
from torchvision.models.resnet import Bottleneck

from models import resnet
from models.resnet import BACKBONES, DilatedResNet
from utils.weights.layouts import MMSEG


def test_dilated_resnet50_equals_torchvisions():
    theirs = resnet50(weights=None, replace_stride_with_dilation=[False, True, True]).eval()
    ours = DilatedResNet("resnet50").eval()
    state = {name: tensor for name, tensor in theirs.state_dict().items() if not name.startswith("fc.")}
    ours.load_state_dict(state)  # strict: of the same names
    x = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        expected = theirs.relu(theirs.bn1(theirs.conv1(x)))
        for layer in (theirs.maxpool, theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4):
            expected = layer(expected)
        torch.testing.assert_close(ours(x), expected)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_tensors_are_torchvisions_and_name_their_backbone(name):
    with torch.device("meta"):
        theirs, ours = get_model(name), DilatedResNet(name)
    shapes = {key: tensor.shape for key, tensor in ours.state_dict().items()}
    expected = {key: tensor.shape for key, tensor in theirs.state_dict().items() if not key.startswith("fc.")}
    assert shapes == expected
    assert MMSEG.backbone_of({f"backbone.{key}": x for key, x in ours.state_dict().items()}) == name


@pytest.mark.parametrize("name", BACKBONES)
def test_dilations_and_strides(name):
    with torch.device("meta"):
        network = DilatedResNet(name)
    for layer, dilation in ((network.layer3, 2), (network.layer4, 4)):
        convs = [m for m in layer.modules() if isinstance(m, nn.Conv2d)]
        assert {conv.stride for conv in convs} == {(1, 1)}
        rates = [conv.dilation[0] for conv in convs if conv.kernel_size == (3, 3)]
        assert rates == [dilation // 2] + [dilation] * (len(rates) - 1)
        assert all(conv.padding == conv.dilation for conv in convs if conv.kernel_size == (3, 3))


def test_the_papers_strides_suit_a_layer1_of_a_single_block(monkeypatch):
    monkeypatch.setitem(resnet.LAYERS, "resnet14", (Bottleneck, [1, 1, 1, 1]))
    monkeypatch.setattr(resnet, "BACKBONES", ("resnet14",))
    with torch.device("meta"):
        network = DilatedResNet("resnet14", paper=True)
        assert network.shallow(torch.zeros(1, 3, 64, 97)).shape == (1, 512, 9, 13)
        assert network(torch.zeros(1, 3, 64, 97)).shape == (1, 2048, 9, 13)


@pytest.mark.parametrize(("suffix", "channels"), [("v1s", (64, 64, 128)), ("v1c", (32, 32, 64))])
def test_channels_of_the_deep_stems(suffix, channels):
    with torch.device("meta"):
        network = DilatedResNet(f"resnet50_{suffix}")
    convs = [m.weight for m in network.conv1 if isinstance(m, nn.Conv2d)]
    assert [weight.shape[:2] for weight in convs] == list(zip(channels, (3, *channels), strict=False))
    assert network.bn1.num_features == network.layer1[0].conv1.in_channels == channels[-1]
    assert network.maxpool.ceil_mode == (suffix == "v1c")


@pytest.mark.parametrize(
    ("name", "width", "layer", "fan_out"),
    [("resnet50_v1s", 1.0, "conv1.6", 128 * 9), ("resnet18", 0.5, "layer4.1.conv2", 256 * 9)],
)
def test_layers_that_torchvision_does_not_have_are_initialised_as_its_own(name, width, layer, fan_out):
    weight = DilatedResNet(name, width=width).get_submodule(layer).weight
    assert weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.02)
