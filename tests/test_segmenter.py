"""Networks in PyTorch as segmenters."""

import pytest
import torch
from torch.nn import functional as F

from models import ICNet
from tests.networks import trained_checkpoint, with_statistics
from utils.inference.segmenter import PyTorchSegmenter, build_segmenter


@pytest.fixture(scope="module", params=["published", "psp"])
def checkpoint(request):
    return trained_checkpoint(variant=request.param)


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_precision_casts_the_weights_and_keeps_the_labels(checkpoint, precision, dtype):
    image = torch.nn.functional.interpolate(torch.randint(0, 256, (2, 3, 5, 7)).float(), (97, 161), mode="bilinear")
    expected = build_segmenter(checkpoint, "cpu")
    segmenter = build_segmenter(checkpoint, "cpu", precision=precision)
    assert (segmenter.dtype, segmenter.precision, expected.precision) == (dtype, precision, "fp32")
    scores = segmenter.scores(image.to(torch.uint8))
    assert scores.dtype == torch.float32
    assert (scores - expected.scores(image.to(torch.uint8))).abs().max() < 0.05 * scores.abs().max()
    assert (segmenter(image.to(torch.uint8)) == expected(image.to(torch.uint8))).float().mean() > 0.97


@pytest.mark.parametrize(("variant", "align_corners"), [("published", True), ("psp", False), ("paper", True)])
@torch.inference_mode()
def test_label_maps_are_the_argmax_of_full_size_logits(variant, align_corners):
    network = with_statistics(ICNet(5, "resnet18", variant=variant))
    images = torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8)
    segmenter = PyTorchSegmenter(network)
    assert segmenter.align_corners is align_corners
    expected = network(segmenter.normalize(images))["out"].argmax(1)
    assert (segmenter(images) == expected).float().mean() > 0.999
    small = images[..., :20, :40].float()  # enlarged to the network's smallest size, as uint8 like any image
    large = F.interpolate(small, (32, 40), mode="bilinear", align_corners=align_corners).round().byte()
    expected = network.cascade(segmenter.normalize(large))["out"]
    assert (segmenter.scores(images[..., :20, :40]) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_scores_keep_no_activations_for_a_backward_pass(checkpoint):
    assert not build_segmenter(checkpoint, "cpu").scores(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).requires_grad


def test_batch_norms_are_folded(checkpoint):
    network = build_segmenter(checkpoint, "cpu").run.__self__
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
