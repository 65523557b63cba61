import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from models import BACKBONES, ICNet
from models.fusion import CascadeFeatureFusion
from models.layers import dilated_conv_of_resized, resize
from models.pyramid import PyramidPooling
from utils.loss import CascadeLoss


def norms(module):
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 96), (90, 121)])
def test_logits_have_the_size_of_the_image(size):
    network = ICNet(5, "resnet18").eval()
    with torch.inference_mode():
        outputs = network(torch.randn(2, 3, *size))
    assert list(outputs) == ["out"]
    assert outputs["out"].shape == (2, 5, *size)


def test_training_gives_the_cascade_finest_first():
    outputs = ICNet(5, "resnet18").train()(torch.randn(2, 3, 96, 160))
    assert {name: tuple(x.shape) for name, x in outputs.items()} == {
        "out": (2, 5, 24, 40),
        "aux_8": (2, 5, 12, 20),
        "aux_16": (2, 5, 6, 10),
    }


@pytest.mark.parametrize("backbone", [name for name in BACKBONES if "15" not in name and "101" not in name])
def test_every_backbone_runs(backbone):
    network = ICNet(3, backbone).eval()
    side = 9 if backbone.endswith("_v1c") else 8  # its max pooling counts what is left over
    with torch.inference_mode():
        assert network.backbone(torch.randn(1, 3, 64, 64)).shape == (1, network.backbone.deep_channels, side, side)
        assert network(torch.randn(1, 3, 64, 64))["out"].shape == (1, 3, 64, 64)


def test_unknown_backbone_is_named():
    with pytest.raises(ValueError, match="unknown backbone 'vgg16'"):
        ICNet(19, "vgg16")


def test_too_small_an_image_is_an_error():
    with pytest.raises(ValueError, match="at least 32x32 pixels, got 40x31"):
        ICNet(3, "resnet18").eval()(torch.randn(1, 3, 31, 40))


def test_a_batch_gives_what_its_images_give_alone():
    network = ICNet(4, "resnet18").eval()
    images = torch.randn(3, 3, 64, 96)
    with torch.inference_mode():
        together = network(images)["out"]
        alone = torch.cat([network(image[None])["out"] for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


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


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50_v1s"])
def test_gradients_reach_every_parameter(backbone):
    network = ICNet(4, backbone).train()
    target = torch.randint(0, 4, (2, 64, 64), dtype=torch.uint8)
    CascadeLoss()(network(torch.randn(2, 3, 64, 64)), target)["loss"].backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_pyramid_pooling_of_a_constant_is_five_times_it():
    x = torch.full((1, 2, 7, 9), 3.0)
    torch.testing.assert_close(PyramidPooling()(x), torch.full_like(x, 15.0))


def test_pyramid_pooling_of_one_bin_adds_the_mean():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    torch.testing.assert_close(PyramidPooling(bins=(1,))(x), x + 5.5)


def test_pyramid_pooling_adds_the_resized_means_of_all_bins():
    x = torch.randn(2, 3, 7, 10)
    for module, align_corners in ((PyramidPooling(), True), (PyramidPooling(align_corners=False), False)):
        means = [F.adaptive_avg_pool2d(x, n) for n in (1, 2, 3, 6)]
        added = [F.interpolate(mean, (7, 10), mode="bilinear", align_corners=align_corners) for mean in means]
        torch.testing.assert_close(module(x), x + sum(added))


@pytest.mark.parametrize(("variant", "align_corners"), [("published", True), ("psp", False)])
@pytest.mark.parametrize("ppm", ["sum", "concat"])
def test_the_whole_network_resizes_in_one_way(variant, align_corners, ppm):
    with torch.device("meta"):
        network = ICNet(3, "resnet18", variant=variant, ppm=ppm)
    parts = [network, network.pyramid_pooling, network.cff_24, network.cff_12]
    assert [part.align_corners for part in parts] == [align_corners] * 4


def test_fusion_has_the_size_of_the_high_branch_and_is_rectified():
    fusion = CascadeFeatureFusion(8, 6, 4, num_classes=3)
    fused, aux = fusion(torch.randn(2, 8, 5, 6), torch.randn(2, 6, 10, 12))
    assert fused.shape == (2, 4, 10, 12) and fused.min() >= 0
    assert aux.shape == (2, 3, 10, 12)
    assert fusion.eval()(torch.randn(1, 8, 5, 6), torch.randn(1, 6, 10, 12))[1] is None


@pytest.mark.parametrize(("small", "large"), [((3, 5), (6, 10)), ((4, 4), (7, 9)), ((1, 1), (2, 3)), ((5, 3), (5, 3))])
def test_conv_before_the_resize_is_the_conv_after_it(small, large):
    x = torch.randn(2, 6, *small, dtype=torch.double, requires_grad=True)
    weight = torch.randn(4, 6, 3, 3, dtype=torch.double, requires_grad=True)
    ours = dilated_conv_of_resized(x, weight, large)
    plain = F.conv2d(resize(x, large), weight, padding=2, dilation=2)
    torch.testing.assert_close(ours, plain)
    gradients = [torch.autograd.grad(y.square().sum(), (x, weight)) for y in (ours, plain)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("backbone", "limit"), [("resnet50_v1s", 199), ("resnet50", 166)])
def test_arithmetic_at_2048x1024(backbone, limit):
    with torch.device("meta"):
        network, image = ICNet(19, backbone).eval(), torch.empty(1, 3, 1024, 2048)
    with FlopCounterMode(display=False) as counter:
        network(image)
    assert counter.get_total_flops() < limit * 1e9


@pytest.mark.parametrize("size", [(32, 32), (65, 91), (64, 96), (100, 33)])
def test_cut_off_gives_what_training_is_guided_by(size):
    network, image = ICNet(4, "resnet18").eval(), torch.randn(1, 3, *size)
    network.training = network.cff_24.training = network.cff_12.training = True  # the norms stay in evaluation
    outputs = network(image)
    for branches, name in ((1, "aux_16"), (2, "aux_8")):
        assert torch.equal(network.cut_off(image, branches)["out"], outputs[name])


@pytest.mark.parametrize(("branches", "idle"), [(1, ["sub1", "cff_12", "classifier"]), (2, ["sub1", "classifier"])])
def test_cut_off_runs_no_layer_that_it_does_not_need(branches, idle):
    network, ran = ICNet(4, "resnet18").eval(), []
    for name, module in network.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    network.cut_off(torch.randn(1, 3, 64, 64), branches)
    assert not [name for name in ran if name.split(".")[0] in idle and not name.startswith("cff_12.")]
    assert not [name for name in ran if name.startswith("cff_12.conv_high")]
    assert ran.count("backbone.layer2") == branches and ran.count("backbone.layer4") == 1
    assert ("cff_24.conv_high.0" in ran) == (branches == 2)
