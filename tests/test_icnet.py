import pytest
import torch
from torch import nn

from models import BACKBONES, VARIANTS, ICNet
from models.layers import Classifier
from tests.networks import check_gradients, check_partial_cascades


def norms(module):
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


def shapes(outputs):
    return {name: tuple(logits.shape) for name, logits in outputs.items()}


# --- outputs


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 96), (90, 121)])
@pytest.mark.parametrize("variant", ["published", "psp", "paper"])
@torch.inference_mode()
def test_logits_in_evaluation_have_the_size_of_the_image(variant, size):
    network = ICNet(5, "resnet18", variant=variant).eval()
    assert shapes(network(torch.randn(2, 3, *size))) == {"out": (2, 5, *size)}


@pytest.mark.parametrize(("variant", "out"), [("published", (24, 40)), ("psp", (12, 20))])
def test_training_returns_the_cascade_finest_first(variant, out):
    outputs = ICNet(5, "resnet18", variant=variant).train()(torch.randn(2, 3, 96, 160))
    assert list(outputs) == ["out", "aux_8", "aux_16"]
    assert shapes(outputs) == {"out": (2, 5, *out), "aux_8": (2, 5, 12, 20), "aux_16": (2, 5, 6, 10)}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_output_shapes_of_every_backbone(backbone):
    with torch.device("meta"):
        network, image = ICNet(3, backbone).eval(), torch.empty(1, 3, 64, 64)
    side = 9 if backbone.endswith("_v1c") else 8  # its max pooling rounds up
    assert network.backbone(image).shape == (1, network.backbone.deep_channels, side, side)
    assert network(image)["out"].shape == (1, 3, 64, 64)


def test_batched_images_give_the_same_as_single_ones():
    network = ICNet(4, "resnet18").eval()
    images = torch.randn(3, 3, 64, 96)
    with torch.inference_mode():
        together = network(images)["out"]
        alone = torch.cat([network(image[None])["out"] for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_too_small_an_image_is_an_error():
    with pytest.raises(ValueError, match="at least 32x32 pixels, got 40x31"):
        ICNet(3, "resnet18").eval()(torch.randn(1, 3, 31, 40))


def test_unknown_backbone_is_an_error():
    with pytest.raises(ValueError, match="unknown backbone 'vgg16'; available: resnet18, "):
        ICNet(19, "vgg16")


@pytest.mark.parametrize("options", [{"width": 0.5}, {"variant": "paper"}])
def test_a_backbone_of_fixed_width_takes_no_other(options):
    with pytest.raises(ValueError, match="timm/resnet18 has a fixed width and structure"):
        ICNet(19, "timm/resnet18", **options)


# --- structure


@pytest.mark.parametrize("variant", VARIANTS)
def test_dropout_is_in_every_classifier(variant):
    with torch.device("meta"):
        network = ICNet(4, variant=variant, dropout=0.1)
    assert [module.dropout for module in network.modules() if isinstance(module, Classifier)] == [0.1] * 3


def test_layer3_and_layer4_run_once_and_only_on_the_quarter_image():
    network = ICNet(4, "resnet18").train()
    seen = []
    for layer in (network.backbone.layer2, network.backbone.layer3, network.backbone.layer4):
        layer.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape[-2:])))
    network(torch.randn(2, 3, 128, 256))
    assert seen == [(8, 16), (4, 8), (4, 8), (4, 8)]  # layer2 of sub2, then layers 2, 3 and 4 of sub4


def test_deep_batch_norms_are_updated_once_a_step_and_shared_ones_twice():
    network = ICNet(4, "resnet18").train()
    network(torch.randn(2, 3, 64, 64))
    deep = norms(network.backbone.layer3) + norms(network.backbone.layer4)
    shared = norms(network.backbone.layer1) + norms(network.backbone.layer2)
    assert {int(norm.num_batches_tracked) for norm in deep} == {1}
    assert {int(norm.num_batches_tracked) for norm in shared} == {2}


def test_gradients_reach_every_parameter_of_the_published_network():
    check_gradients(ICNet(4, "resnet50_v1s"), full_size=False)


@pytest.mark.parametrize(("variant", "align_corners"), [("published", True), ("psp", False)])
@pytest.mark.parametrize("ppm", ["sum", "concat"])
def test_all_parts_resize_in_the_same_alignment(variant, align_corners, ppm):
    with torch.device("meta"):
        network = ICNet(3, "resnet18", variant=variant, ppm=ppm)
    parts = [network, network.pyramid_pooling, network.cff_24, network.cff_12]
    assert [part.align_corners for part in parts] == [align_corners] * 4


# --- only the lowest branches


@pytest.mark.parametrize(("variant", "backbone"), [("published", "resnet18"), ("psp", "resnet18_v1c")])
@pytest.mark.parametrize("size", [(32, 32), (65, 91), (64, 96), (100, 33)])
def test_cut_off_network_returns_the_auxiliary_logits_of_training(variant, backbone, size):
    check_partial_cascades(ICNet(4, backbone, variant=variant), torch.randn(1, 3, *size))


@pytest.mark.parametrize(("branches", "more"), [(1, set()), (2, {"conv_sub2", "cff_12"})])
def test_cut_off_network_runs_only_the_layers_it_needs(branches, more):
    network, ran = ICNet(4, "resnet18").eval(), []
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _, inputs, __, name=name: None if inputs[0].is_meta else ran.append(name))
    network.partial_cascade(torch.randn(1, 3, 64, 64), branches)
    assert {name.split(".")[0] for name in ran} == {"backbone", "pyramid_pooling", "conv_sub4", "cff_24"} | more
    assert not [name for name in ran if name.startswith("cff_12.conv_high")]
    assert ran.count("backbone.layer2") == branches and ran.count("backbone.layer4") == 1
    assert ("cff_24.conv_high.0" in ran) == (branches == 2)
