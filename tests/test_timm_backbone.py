import sys

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models import ICNet, TimmBackbone
from models.fold import fold_batch_norms
from models.timm_backbone import SamePaddingConv2d
from tests.conftest import CLASSES
from tests.networks import check_gradients, check_partial_cascades, with_statistics
from utils.config import ModelConfig, OptimizerConfig
from utils.distributed import synchronize_batch_norms
from utils.inference.export import export_onnx
from utils.optim import build_optimizer
from utils.weights.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from utils.weights.pretrained import freeze
from utils.weights.run_folder import run_name

timm = pytest.importorskip("timm")

FAMILIES = ("timm/tf_efficientnet_lite0", "timm/mobilenetv3_large_100", "timm/regnetx_002")


def norms(*modules):
    return [m for module in modules for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


# --- the backbone


@pytest.mark.parametrize("name", [*FAMILIES, "timm/resnet18d", "timm/convnext_atto"])
@torch.inference_mode()
def test_features_are_those_of_timms_own_extractor(name):
    backbone = TimmBackbone(name).eval()
    theirs = timm.create_model(backbone.timm_name, features_only=True, output_stride=8).eval()
    state = dict(zip(theirs.state_dict(), backbone.state_dict().values(), strict=True))
    theirs.load_state_dict(state)
    image = torch.randn(1, 3, 70, 97)
    maps, first = theirs(image), theirs.feature_info.reduction().index(8)
    shallow = backbone.shallow(image)
    assert torch.equal(shallow, maps[first]) and shallow.shape[1] == backbone.shallow_channels
    assert torch.equal(backbone.deep(shallow), maps[-1]) and maps[-1].shape[1] == backbone.deep_channels


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(3, 2, 1), (5, 2, 1), (2, 2, 1), (3, 1, 2), (5, 3, 2), (4, 3, 1)]
)
@torch.inference_mode()
def test_padding_depends_on_the_size_as_in_timm(kernel, stride, dilation):
    theirs = timm.layers.Conv2dSame(3, 4, kernel, stride=stride, dilation=dilation)
    ours = SamePaddingConv2d(3, 4, kernel, stride=stride, dilation=dilation)
    ours.load_state_dict(theirs.state_dict())
    for height in range(12, 18):
        image = torch.randn(1, 3, height, 29 - height)
        assert torch.equal(ours(image), theirs(image))


@pytest.mark.parametrize("name", FAMILIES)
def test_tensors_have_timms_names_but_for_the_sequences(name):
    backbone = TimmBackbone(name)
    whole = timm.create_model(backbone.timm_name).state_dict()
    here = backbone.rename_timm_tensors(whole)
    assert {key: tensor.shape for key, tensor in here.items()} == {
        key: tensor.shape for key, tensor in backbone.state_dict().items()
    }
    assert {key.replace("_", ".") for key in here} <= {key.replace("_", ".") for key in whole}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm/nonsense", "timm has no network 'nonsense'; it has, for example, timm/tf_efficientnet_lite0, timm/mob"),
        ("timm/resnet18.a1_in1k", "timm has no network 'resnet18.a1_in1k'"),  # the tag is one of weights
        ("timm/vit_tiny_patch16_224", "timm/vit_tiny_patch16_224 cannot serve as a backbone: .* timm/resnet18d"),
        ("timm/hrnet_w18_small", "cannot serve"),  # branches side by side
        ("timm/halonet26t", "cannot serve"),  # takes only maps whose sides are multiples of 8
        ("timm/tf_mixnet_s", "cannot serve"),  # a batch norm after several convolutions cannot be folded into them
    ],
)
def test_unsuitable_networks_are_errors_that_name_suitable_ones(name, words):
    with pytest.raises(ValueError, match=words):
        ICNet(3, name)


@pytest.mark.parametrize("name", FAMILIES)
def test_checking_a_network_leaves_nothing_behind(name):
    modules = list(TimmBackbone(name).modules())
    assert all(module.training for module in modules)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


def test_suitable_networks_named_in_errors_are_suitable():
    with pytest.raises(ValueError) as error:
        TimmBackbone("timm/x")
    names = str(error.value).partition("for example, ")[2].split(", ")
    assert len(names) == 3
    for name in names:
        TimmBackbone(name)


def test_without_timm_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"^timm is not installed: pip install -r requirements-timm\.txt$"):
        ICNet(3, FAMILIES[0])


# --- ICNet with it


@pytest.fixture(params=FAMILIES)
def network(request):
    return ICNet(4, request.param)


@torch.inference_mode()
def test_full_size_logits_have_the_size_of_the_image(network):
    for size in ((32, 32), (33, 47), (90, 121)):
        assert network.eval()(torch.randn(1, 3, *size))["out"].shape == (1, 4, *size)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_variant_psp_accepts_timm_backbones(name):
    assert ICNet(4, name, variant="psp").eval()(torch.randn(1, 3, 65, 91))["out"].shape == (1, 4, 65, 91)


def test_deep_layers_run_once_and_only_on_the_quarter_image(network):
    sizes: dict[str, list] = {name: [] for name in network.backbone}
    for name, layer in network.backbone.items():
        layer.register_forward_hook(lambda _, x, y, name=name: sizes[name].append(tuple(y.shape[-2:])))
    network.train()(torch.randn(2, 3, 128, 256))
    names, depth = list(sizes), network.backbone._depth
    shallow, deep = names[:depth], names[depth:]
    assert all(len(sizes[name]) == 2 for name in shallow) and sizes[shallow[-1]] == [(8, 16), (4, 8)]  # sub2, sub4
    assert deep and all(sizes[name] == [(4, 8)] for name in deep)
    counts = {name: {int(n.num_batches_tracked) for n in norms(network.backbone[name])} for name in sizes}
    assert all(counts[name] <= {1 if name in deep else 2} for name in sizes)


def test_gradients_reach_every_parameter(network):
    check_gradients(with_statistics(network), size=(96, 96))  # RegNet starts with blocks that give nothing


@torch.inference_mode()
def test_cut_off_network_returns_the_auxiliary_logits_of_training(network):
    check_partial_cascades(network, torch.randn(1, 3, 65, 91))


@torch.inference_mode()
def test_cut_off_network_finds_the_size_of_sub2_once(network):
    image, runs = torch.zeros(1, 3, 64, 96), []
    network.backbone.register_forward_hook(lambda *_: runs.append(1))  # sub4 calls its `shallow` and `deep`
    for _ in range(3):
        network.eval().partial_cascade(image, 1)
    assert len(runs) == 1


@torch.inference_mode()
def test_cut_off_network_runs_in_bf16():
    network = ICNet(4, FAMILIES[0]).eval().to(torch.bfloat16)
    assert network.partial_cascade(torch.zeros(1, 3, 64, 96, dtype=torch.bfloat16), 1)["out"].shape == (1, 4, 4, 6)


@torch.inference_mode()
def test_folded_batch_norms_keep_their_activations(network):
    folded, image = fold_batch_norms(with_statistics(network)), torch.randn(2, 3, 64, 96)
    expected = network(image)["out"]
    assert not norms(folded)
    assert (folded(image)["out"] - expected).abs().max() < 1e-4 * expected.abs().max()


@torch.inference_mode()
def test_synchronised_batch_norms_keep_their_activations(network):
    image = torch.randn(1, 3, 64, 64)
    expected = with_statistics(network)(image)["out"]
    assert torch.equal(synchronize_batch_norms(network)(image)["out"], expected)


def test_learning_rates_and_freezing_go_by_branch_and_stage():
    network = ICNet(4, FAMILIES[0])
    count = sum(p.numel() for p in network.backbone["blocks_0"].parameters())
    assert freeze(network, ["backbone.blocks_0"]) == count
    optimizer = build_optimizer(network, OptimizerConfig())
    sizes = {group["name"]: sum(p.numel() for p in group["params"]) for group in optimizer.param_groups}
    assert sizes["backbone"] == sum(p.numel() for p in network.backbone.parameters()) - count
    assert list(sizes) == ["backbone", "sub1", "head"]


def test_arithmetic_at_2048x1024():
    with torch.device("meta"):
        network, image = ICNet(19, FAMILIES[0]).eval(), torch.empty(1, 3, 1024, 2048)
    with FlopCounterMode(display=False) as counter:
        network(image)
    assert 35e9 < counter.get_total_flops() < 36e9


# --- its checkpoints


def trained_checkpoint(name):
    """Return a checkpoint whose batch norms have seen images, so that its logits are of ordinary size."""
    network = ICNet(3, name).train()
    for norm in norms(network):
        norm.momentum = None  # cumulative average
    with torch.no_grad():
        network(nn.functional.interpolate(torch.randn(2, 3, 32, 48), scale_factor=8, mode="bilinear"))
    return Checkpoint(state_dict=network.state_dict(), backbone=name, classes=CLASSES)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_checkpoint_rebuilds_its_network_without_timms_weights(name, tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "x.pth", trained_checkpoint(name))
    create, asked = timm.create_model, []
    monkeypatch.setattr(timm, "create_model", lambda *args, **more: asked.append(more) or create(*args, **more))
    checkpoint = read_checkpoint(tmp_path / "x.pth")
    assert name in checkpoint.describe()
    network = checkpoint.build()
    assert asked and not any(more.get("pretrained") for more in asked)
    assert all(torch.equal(checkpoint.state_dict[key], tensor) for key, tensor in network.state_dict().items())


def test_a_checkpoint_without_timm_says_how_to_install_it(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "x.pth", trained_checkpoint(FAMILIES[2]))
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"x\.pth: timm is not installed: pip install -r requirements-timm\.txt"):
        read_checkpoint(tmp_path / "x.pth").build()


def test_exported_networks_take_any_size(tmp_path):
    """Of an EfficientNet-Lite, whose "same" padding depends on the size."""
    assert export_onnx(trained_checkpoint(FAMILIES[0]), tmp_path / "x.onnx") < 1e-4


def test_names_of_checkpoints_contain_no_folder():
    assert run_name(ModelConfig(backbone=FAMILIES[2])) == "icnet_timm_regnetx_002"
