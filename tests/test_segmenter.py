"""Networks in PyTorch as segmenters."""

import pytest
import torch

from tests.networks import trained_checkpoint
from utils.inference.segmenter import build_segmenter


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
