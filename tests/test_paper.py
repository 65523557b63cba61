"""The variant "paper": faithful to the paper's own release, whose files load as they are."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dataset.transforms import IMAGENET, Normalize
from models import ICNet
from models.fold import fold_batch_norms
from models.layers import resize, subsample
from models.pyramid import axis_pooling_matrix
from tests import paper, published
from tests.networks import check_gradients, check_partial_cascades, with_statistics
from utils.config import TestConfig as Settings
from utils.inference.opening import with_checkpoint_input
from utils.weights import caffe, zoo
from utils.weights.checkpoint import read_checkpoint

SAMPLES = {  # how the reference samples each map
    "conv3_1": (16, 8, 8),
    "conv5_3_sum": (64, 2, 2),
    "sub24_sum": (16, 4, 4),
    "sub12_sum": (16, 8, 8),
    "conv6_cls": (1, 8, 8),
    "conv6_interp": (1, 32, 32),
}


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    path = tmp_path_factory.mktemp("paper") / "icnet_cityscapes_train_30k.caffemodel"
    path.write_bytes(paper.encode(paper.make_weights()))
    return path


@pytest.fixture(scope="module")
def checkpoint(release):
    return read_checkpoint(release)


def separated(blobs, name, rng):
    """Return the release's layer with its batch norm apart, such that merging them gives `blobs`."""
    weight, bias = blobs
    slope, mean = rng.uniform(0.5, 2, len(bias)), rng.normal(0, 0.1, len(bias))
    variance = rng.uniform(0.5, 2, len(bias))
    factor = slope / np.sqrt(variance + 1e-5)
    norm = [slope, bias + mean * factor, mean, variance]
    return {name: [weight / factor[:, None, None, None]], f"{name}/bn": [x.reshape(1, -1, 1, 1) for x in norm]}


# --- the release's numbers


@torch.inference_mode()
def test_network_gives_the_releases_numbers(checkpoint):
    network, found = fold_batch_norms(checkpoint.build()), {}
    image = Normalize(checkpoint.normalization)(torch.from_numpy(paper.image())[None])
    network.cff_24.register_forward_hook(lambda _, inputs, outputs: found.update(sub24_sum=outputs[0]))
    network.cff_12.register_forward_hook(lambda _, inputs, outputs: found.update(sub12_sum=outputs[0]))
    network.backbone.layer2[0].register_forward_hook(lambda _, inputs, output: found.update(conv3_1=output))
    network.backbone.layer4.register_forward_hook(lambda _, inputs, output: found.update(conv5_3=output))
    eighth = network.cascade(image)["out"]
    assert eighth.shape == (1, 19, 129, 257)
    found |= {"conv5_3_sum": network.pyramid_pooling(found["conv5_3"]), "conv6_cls": resize(eighth, (257, 513))}
    found["conv6_interp"] = resize(eighth, (1025, 2049))
    expected = paper.numbers()
    for name, (channels, rows, columns) in SAMPLES.items():
        published.assert_close(found[name][:, ::channels, ::rows, ::columns], expected[name])
    labels = found["conv6_interp"].argmax(1)[0, ::4, ::4].numpy()
    assert (labels != expected["labels"].squeeze()).mean() < 1e-4


def test_parameters_are_those_of_the_release():
    with torch.device("meta"):
        network = ICNet(19, variant="paper").eval()
    auxiliary, scale = 19 * (256 + 1) + 19 * (128 + 1), 3  # the former are ours, the latter the release's alone
    count = sum(parameter.numel() for parameter in fold_batch_norms(network).parameters())
    assert count - auxiliary == sum(blob.size for blobs in paper.make_weights().values() for blob in blobs) - scale


# --- structure


def test_channels_of_both_widths():
    with torch.device("meta"):
        half, whole = ICNet(19, variant="paper"), ICNet(19, variant="paper", width=1.0)
    assert half.structure["width"] == 0.5
    for one, two in zip(half.parameters(), whole.parameters(), strict=True):
        assert all(b in (a, 2 * a) for a, b in zip(one.shape, two.shape, strict=True))
    assert half.cff_24.conv_low[0].weight.shape == (128, 256, 3, 3)
    assert whole.cff_24.conv_low[0].weight.shape == (256, 512, 3, 3)
    assert whole.backbone.layer4[2].conv3.weight.shape == (2048, 512, 1, 1)


@pytest.mark.parametrize("backbone", ["resnet18", None])
@torch.inference_mode()
def test_any_size_of_image_and_any_backbone(backbone):
    network = with_statistics(ICNet(4, backbone, variant="paper"))
    for size in ((32, 32), (33, 65), (64, 96), (90, 121)):
        image = torch.randn(1, 3, *size)
        expected = network(image)["out"]
        assert expected.shape == (1, 4, *size)
        folded = fold_batch_norms(network)(image)["out"]
        assert (folded - expected).abs().max() < 1e-4 * expected.abs().max()


def test_training_returns_the_cascade_and_gradients_reach_every_parameter():
    network = ICNet(4, variant="paper").train()
    check_gradients(network, size=(97, 65))
    outputs = network(torch.randn(2, 3, 97, 65))
    assert {name: tuple(logits.shape[-2:]) for name, logits in outputs.items()} == {
        "out": (25, 17),
        "aux_8": (13, 9),
        "aux_16": (7, 5),
    }


@pytest.mark.parametrize("size", [(32, 32), (65, 97), (64, 90)])
@pytest.mark.parametrize("sub4_input", ["image", "sub2"])
@torch.inference_mode()
def test_cut_off_network_returns_the_auxiliary_logits_of_training(size, sub4_input):
    network = with_statistics(ICNet(4, variant="paper", sub4_input=sub4_input))
    check_partial_cascades(network, torch.randn(1, 3, *size))


def test_strides_are_in_the_1x1_convs_or_before_them():
    """The stride of a 1x1 conv is applied by the block before it, which gives the same at fewer pixels."""
    backbone = with_statistics(ICNet(4, variant="paper")).backbone
    x = torch.randn(1, 64, 17, 13)
    expected = backbone.layer2[0](backbone.layer1(x))
    last, first = backbone.layer1[-1], backbone.layer2[0]
    last.conv2.stride, last.downsample = (1, 1), None
    first.conv1.stride = first.downsample[0].stride = (2, 2)
    found = backbone.layer2[0](backbone.layer1(x))
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    rates = [conv.dilation[0] for layer in (backbone.layer3, backbone.layer4) for conv in (b.conv2 for b in layer)]
    assert rates == [2] * 6 + [4] * 3


def test_bins_are_the_releases():
    for size, kernels, strides in ((33, (33, 17, 13, 8), (33, 16, 10, 5)), (65, (65, 33, 25, 15), (65, 32, 20, 10))):
        x = torch.randn(1, 1, size)
        expected = [F.avg_pool1d(x, kernel, stride) for kernel, stride in zip(kernels, strides, strict=True)]
        torch.testing.assert_close(x @ axis_pooling_matrix(size, x, overlapping=True).T, torch.cat(expected, 2))
    for size in range(1, 32):  # every pixel is in a bin of the finest pooling, and no bin is empty
        means = axis_pooling_matrix(size, x, overlapping=True)[-6:]
        torch.testing.assert_close(means.sum(1), torch.ones(6))
        assert (means.sum(0) > 0).all()


def test_subsampling_is_resizing_at_sides_one_above_a_multiple():
    x = torch.randn(1, 2, 9, 17)
    torch.testing.assert_close(subsample(x, 2), resize(x, (5, 9)))
    torch.testing.assert_close(subsample(x, 4), resize(x, (3, 5)))


# --- its files


def test_separate_batch_norms_give_the_same_network(checkpoint, tmp_path):
    rng, layers = np.random.default_rng(0), {}
    for name, blobs in paper.make_weights().items():
        plain = name in ("data_sub1", "conv6_cls")
        layers |= {name: blobs} if plain else separated(blobs, name, rng)
    path = tmp_path / "icnet_cityscapes_train_30k_bnnomerge.caffemodel"
    path.write_bytes(paper.encode(layers, legacy=True))
    apart = read_checkpoint(path)
    assert apart.state_dict["sub1.0.bn.running_var"].min() < 0.99
    folded, expected = (fold_batch_norms(c.build()).state_dict() for c in (apart, checkpoint))
    for name, tensor in expected.items():
        torch.testing.assert_close(folded[name], tensor, rtol=1e-4, atol=1e-5)


def test_checkpoint_says_how_the_release_evaluates(checkpoint, tmp_path, run_script):
    assert (checkpoint.structure["variant"], checkpoint.structure["width"]) == ("paper", 0.5)
    assert checkpoint.backbone == "resnet50_v1s"
    assert len(checkpoint.classes) == 19 and checkpoint.unused == ()
    target = tmp_path / "paper.pth"
    assert "resnet50_v1s, 19 classes" in run_script("tools.convert", checkpoint.source, target).out
    again = read_checkpoint(target)
    assert torch.equal(again.build().sub1[0].conv.weight, checkpoint.build().sub1[0].conv.weight)
    own = with_checkpoint_input(again, Settings())
    assert (own.input_size, own.short_side, own.resize_probabilities) == ((1025, 2049), None, True)
    assert again.normalization.mean == pytest.approx((123.68 / 255, 116.779 / 255, 103.939 / 255))
    own = with_checkpoint_input(again, Settings(short_side=0, resize_probabilities=False))
    assert (own.input_size, own.short_side, own.resize_probabilities) == (None, 0, False)


def test_further_layers_are_named_as_unused_and_a_missing_one_is_an_error(tmp_path):
    layers = paper.make_weights()
    path = tmp_path / "odd.caffemodel"
    path.write_bytes(paper.encode(layers | {"conv4_6_aux": layers["conv6_cls"]}))
    assert "unused tensors: conv4_6_aux" in read_checkpoint(path).describe()
    layers.pop("conv4_3_3x3")
    path.write_bytes(paper.encode(layers))
    with pytest.raises(ValueError, match=r"5 missing: conv4_3_3x3\.weight, conv4_3_3x3/bn\.weight"):
        read_checkpoint(path).build()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda whole: whole[:-1], r"is truncated, damaged or not a \.caffemodel: "),
        (lambda whole: whole[: len(whole) // 2], "is truncated, damaged"),
        (lambda whole: b"\x89PNG\r\n\x1a\n", "is truncated, damaged"),
        (lambda whole: b"", "does not hold the paper's ICNet: it holds no weights"),
        (lambda whole: paper.encode({"fc8": [np.ones((3, 2))]}), "does not hold the paper's ICNet: it holds fc8"),
        (lambda whole: paper.encode({"data_sub1": [np.ones(4)]}), "data_sub1 has the wrong number of values"),
        (
            lambda whole: whole.replace(b"conv_sub4", b"conv_subX"),
            "does not hold the paper's ICNet: missing: conv_sub4",
        ),
    ],
)
def test_truncated_and_foreign_files_are_errors_of_one_line(release, tmp_path, run_script, content, words):
    path = tmp_path / "odd.caffemodel"
    path.write_bytes(content(release.read_bytes()))
    with pytest.raises(ValueError, match=words):
        read_checkpoint(path)
    done = run_script("evaluate", f"test.ckpt_path={path}", f"train.ckpt_dir={tmp_path}")
    assert done.code == 2 and len(done.err.strip().splitlines()) == 1 and str(path) in done.err


def test_known_files_are_checked(release, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))  # of somebody without them
    (tmp_path / release.name).write_bytes(b"an error page")
    with pytest.raises(ValueError, match=r"icnet_cityscapes_train_30k\.caffemodel has the MD5 .*, not c7038630"):
        zoo.find_weights("icnet_cityscapes_train_30k", tmp_path)
    own = replace(zoo.WEIGHTS["icnet_cityscapes_train_30k"], md5=hashlib.md5(b"an error page").hexdigest())
    monkeypatch.setitem(zoo.WEIGHTS, "icnet_cityscapes_train_30k", own)
    assert zoo.find_weights("icnet_cityscapes_train_30k", tmp_path) == tmp_path / release.name
    with pytest.raises(FileNotFoundError, match=r"must be downloaded by hand, see https://github\.com/hszhao"):
        zoo.find_weights("icnet_cityscapes_trainval_90k", tmp_path)


def test_fine_tuning_with_other_classes(release, folder_data, run_script):
    folder_data.values["model"] = {"variant": "paper", "weights": str(release), "base_size": 48, "crop_size": 64}
    folder_data.values["train"]["freeze_bn"] = True
    assert run_script("train", "--config", folder_data.write()).code == 0
    (best,) = folder_data.ckpt_dir.glob("icnet_paper_resnet50_v1s_1_*_best_model.pth")
    assert run_script("evaluate", f"test.ckpt_path={best}", f"train.ckpt_dir={folder_data.ckpt_dir}").code == 0


def test_each_factor_of_the_input_belongs_to_its_own_channel():
    layers = {"data_sub1": [torch.tensor([1.0, 10, 100])], "conv1_sub1": [torch.tensor([1.0, 2, 3]).view(1, 3, 1, 1)]}
    weight = caffe.as_state(layers)["conv1_sub1.weight"].flatten()  # of RGB, where the release's are of BGR
    assert (weight / 255 / torch.tensor(IMAGENET.std)).tolist() == pytest.approx([300, 20, 1])
