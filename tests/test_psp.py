"""The variant "psp", and the parts that both variants can have."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from dataset.labels import cityscapes_classes
from models import ICNet
from models.layers import conv_of_resized_bins, dilated_conv_of_resized, pool, resize, shrink
from models.pyramid import LearnedPyramidPooling
from tests.conftest import CLASSES
from tests.test_fold import with_statistics
from utils.inference.onnx_export import export_onnx
from utils.inference.segmenter import Segmenter, build_segmenter, open_segmenter
from utils.loss import CascadeLoss
from utils.weights.checkpoint import Checkpoint, read_checkpoint, save_checkpoint


def test_training_gives_the_cascade_and_evaluation_the_size_of_the_image():
    network = ICNet(5, "resnet18", variant="psp").train()
    outputs = network(torch.randn(2, 3, 96, 160))
    assert {name: tuple(x.shape) for name, x in outputs.items()} == {
        "out": (2, 5, 12, 20),
        "aux_8": (2, 5, 12, 20),
        "aux_16": (2, 5, 6, 10),
    }
    with torch.inference_mode():
        for size in ((32, 32), (33, 47), (90, 121)):
            assert network.eval()(torch.randn(1, 3, *size))["out"].shape == (1, 5, *size)


@pytest.mark.parametrize("variant", ["published", "psp"])
@pytest.mark.parametrize("ppm", ["sum", "concat", "none"])
@pytest.mark.parametrize("sub4_input", ["image", "sub2"])
def test_parts_can_be_set_one_by_one_and_all_learn(variant, ppm, sub4_input):
    network = ICNet(4, "resnet18_v1c", variant=variant, ppm=ppm, sub4_input=sub4_input, dropout=0.1).train()
    seen = []
    network.backbone.layer2.register_forward_hook(lambda *call: seen.append(1))
    target = torch.randint(0, 4, (2, 64, 64), dtype=torch.uint8)
    CascadeLoss(full_size=True)(network(torch.randn(2, 3, 64, 64)), target)["loss"].backward()
    assert len(seen) == (2 if sub4_input == "image" else 1)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("key", ["variant", "ppm", "sub4_input"])
def test_an_unknown_part_is_named(key):
    with pytest.raises(ValueError, match=f"unknown {key} 'psq'; there are: "):
        ICNet(4, "resnet18", **{key: "psq"})


def test_widths_of_resnet50_are_mmsegmentations():
    with torch.device("meta"):
        network = ICNet(19, "resnet50_v1c", variant="psp")
    assert network.pyramid_pooling.bottleneck.conv.weight.shape == (512, 4096, 3, 3)
    assert network.conv_sub2.conv.weight.shape == (256, 512, 1, 1)
    assert network.conv_sub4.conv.weight.shape == (256, 512, 1, 1)
    assert network.cff_24.conv_low[0].weight.shape == (128, 256, 3, 3)


@pytest.mark.parametrize("align_corners", [True, False])
def test_learned_pooling_is_the_concatenation_that_it_avoids(align_corners):
    module = with_statistics(LearnedPyramidPooling(8, align_corners=align_corners))
    for size in ((1, 1), (2, 3), (7, 5), (12, 20)):
        x = torch.randn(2, 8, *size)
        means = [resize(branch(pool(x, n)), size, align_corners=align_corners) for n, branch in enumerate_bins(module)]
        torch.testing.assert_close(module(x), module.bottleneck(torch.cat([*means, x], 1)), rtol=1e-4, atol=1e-5)


def enumerate_bins(module):
    return zip(module.bins, module.branches, strict=True)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("small", "large"), [((1, 1), (4, 8)), ((6, 6), (9, 13)), ((3, 2), (3, 5)), ((6, 6), (2, 1))])
def test_conv_of_bins_is_the_conv_after_the_resize(small, large, align_corners):
    x = torch.randn(2, 5, *small, dtype=torch.double, requires_grad=True)
    weight = torch.randn(4, 5, 3, 3, dtype=torch.double, requires_grad=True)
    resized = resize(x, large, align_corners=align_corners)
    pairs = [
        (conv_of_resized_bins(x, weight, large, align_corners=align_corners), F.conv2d(resized, weight, padding=1)),
        (
            dilated_conv_of_resized(x, weight, large, align_corners=align_corners),
            F.conv2d(resized, weight, padding=2, dilation=2),
        ),
    ]
    for ours, plain in pairs:
        torch.testing.assert_close(ours, plain)
        gradients = [torch.autograd.grad(y.square().sum(), (x, weight), retain_graph=True) for y in (ours, plain)]
        torch.testing.assert_close(*gradients)


def test_half_without_aligned_corners_is_the_mean_of_four_and_leaves_the_odd_one_out():
    x = torch.arange(15.0).view(1, 1, 3, 5)
    assert shrink(x, 2, align_corners=False).tolist() == [[[[3, 5]]]]  # (0 + 1 + 5 + 6) / 4, (2 + 3 + 7 + 8) / 4
    assert torch.equal(shrink(x, 2), resize(x, (1, 2)))


def test_one_image_alone_trains_learned_pooling():
    """Its single bin has one value a channel, see `models.layers.BatchNorm2d`."""
    network = ICNet(4, "resnet18", variant="psp").train()
    network(torch.randn(1, 3, 64, 64))["out"].sum().backward()
    assert all(p.grad.isfinite().all() for p in network.pyramid_pooling.branches.parameters())


def test_dropout_is_in_training_only():
    network = ICNet(4, "resnet18", variant="psp", dropout=0.5).train()
    features = torch.randn(2, 128, 4, 4)
    assert not torch.equal(network.classifier[1](features), network.classifier[1](features))
    network.eval()
    assert torch.equal(network.classifier[1](features), network.classifier[1](features))


def test_arithmetic_at_2048x1024():
    with torch.device("meta"):
        network, image = ICNet(19, "resnet50_v1c", variant="psp").eval(), torch.empty(1, 3, 1024, 2048)
    with FlopCounterMode(display=False) as counter:
        network(image)
    assert counter.get_total_flops() < 207e9


@pytest.mark.parametrize(("variant", "align_corners"), [("published", True), ("psp", False)])
@torch.inference_mode()
def test_label_maps_are_those_of_the_full_size_logits(variant, align_corners):
    network = with_statistics(ICNet(5, "resnet18", variant=variant))
    images = torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8)
    segmenter = Segmenter(network)
    assert segmenter.align_corners is align_corners
    expected = network(segmenter.normalize(images))["out"].argmax(1)
    assert (segmenter(images) == expected).float().mean() > 0.999
    small = segmenter.normalize(images[..., :20, :40])  # made large enough for the network
    large = F.interpolate(small, (32, 40), mode="bilinear", align_corners=align_corners)
    expected = network.cascade(large)["out"]
    assert (segmenter.scores(images[..., :20, :40]) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_a_checkpoint_rebuilds_its_network(tmp_path):
    network = ICNet(19, "resnet18", variant="psp", ppm="sum", sub4_input="image", dropout=0.2)
    classes = cityscapes_classes()
    checkpoint = Checkpoint(
        state_dict=network.state_dict(), backbone="resnet18", classes=classes, structure=network.structure
    )
    save_checkpoint(tmp_path / "psp.pth", checkpoint)
    again = read_checkpoint(tmp_path / "psp.pth").build()
    assert again.structure == {"variant": "psp", "ppm": "sum", "sub4_input": "image", "dropout": 0.2}

    content = torch.load(tmp_path / "psp.pth", weights_only=True)
    for odd in ({"variant": "psp", "colour": "blue"}, {"variant": ["psp"]}, "psp"):
        torch.save(content | {"structure": odd}, tmp_path / "odd.pth")
        with pytest.raises(ValueError, match="its structure is none"):
            read_checkpoint(tmp_path / "odd.pth")


def test_a_checkpoint_from_before_there_were_variants_is_of_the_published_one(checkpoint_path, tmp_path):
    content = torch.load(checkpoint_path, weights_only=True)
    del content["structure"]
    torch.save(content, tmp_path / "old.pth")
    assert read_checkpoint(tmp_path / "old.pth").build().structure["variant"] == "published"


def test_a_run_trains_and_is_evaluated(folder_data, run_script):
    folder_data.values["model"] |= {"variant": "psp", "dropout": 0.1}
    folder_data.values.update(loss={"resolution": "full"}, optimizer={"min_lr": 1e-4})
    folder_data.values["augment"] = {"max_class_share": 0.75, "photometric": 0.5}
    config = folder_data.write()
    assert run_script("train", "--config", config).code == 0
    (best,) = folder_data.ckpt_dir.glob("icnet_psp_resnet18_1_*_best_model.pth")
    checkpoint = read_checkpoint(best)
    assert checkpoint.structure == {"variant": "psp", "ppm": "concat", "sub4_input": "sub2", "dropout": 0.1}
    assert run_script("evaluate", f"test.ckpt_path={best}", f"train.ckpt_dir={folder_data.ckpt_dir}").code == 0
    assert run_script("train", "--config", config, "train.accumulate=2").code == 0  # so one image at a time
    other = run_script("train", "--config", config, "model.variant=published", f"model.weights={best}")
    assert other.code == 2 and "psp resnet18" in other.err and "unknown" in other.err


@pytest.mark.filterwarnings("ignore")
def test_an_exported_network_gives_the_same_at_any_size(tmp_path):
    network = with_statistics(ICNet(3, "resnet18_v1c", variant="psp"))
    checkpoint = Checkpoint(
        state_dict=network.state_dict(), backbone="resnet18_v1c", structure=network.structure, classes=CLASSES
    )
    assert export_onnx(checkpoint, tmp_path / "psp.onnx")["difference"] < 1e-4
    description, segment = open_segmenter(tmp_path / "psp.onnx", "cpu")
    assert description.structure == network.structure
    for size in ((64, 96), (32, 32), (97, 75)):
        image = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
        assert (segment(image) == build_segmenter(checkpoint, "cpu")(image)).float().mean() > 0.99
