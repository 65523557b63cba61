import pytest
import torch
from torch.nn import functional as F

from utils import labelmap
from utils.labelmap import label_map


def plain(logits, size):
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=True).argmax(1)


def smooth(batch, height, width):
    """Logits in which neighbours mostly agree."""
    torch.manual_seed(0)
    return F.interpolate(torch.randn(batch, 7, 5, 6), (height, width), mode="bicubic")


@pytest.mark.parametrize("logits", [smooth(2, 24, 40), torch.randn(2, 7, 24, 40)], ids=["smooth", "random"])
@pytest.mark.parametrize("size", [(96, 160), (97, 163), (24, 40), (25, 41), (30, 20), (12, 20), (1, 1)])
def test_labels_are_those_of_the_plain_form(logits, size):
    labels = label_map(logits, size)
    assert labels.shape == (2, *size) and labels.dtype == torch.uint8
    assert (labels == plain(logits, size)).float().mean() > 0.999


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 3, 1, 8), (1, 3, 8, 1), (2, 3, 2, 2)])
def test_logits_of_one_row_or_column(shape):
    logits = torch.randn(shape)
    assert torch.equal(label_map(logits, (9, 13)).long(), plain(logits, (9, 13)))


def test_both_ways_agree_and_each_is_taken(monkeypatch):
    logits, ways = smooth(1, 24, 40), []
    strips = labelmap._in_strips
    monkeypatch.setattr(labelmap, "_in_strips", lambda *a: ways.append("strips") or strips(*a))
    by_cells = label_map(logits, (96, 160))
    assert ways == []
    assert (by_cells == strips(logits, 96, 160)).float().mean() > 0.999
    label_map(torch.randn(1, 7, 24, 40), (96, 160))
    assert ways == ["strips"]


def test_half_precision_and_channels_last_logits():
    logits = smooth(1, 24, 40)
    expected = plain(logits.bfloat16().float(), (96, 160))
    assert (label_map(logits.bfloat16(), (96, 160)) == expected).float().mean() > 0.999
    turned = logits.to(memory_format=torch.channels_last)
    assert torch.equal(label_map(turned, (96, 160)), label_map(logits, (96, 160)))


def test_the_logits_are_never_at_full_size(monkeypatch):
    sizes = []
    interpolate, bag = F.interpolate, F.embedding_bag

    def noting(function):
        def call(*args, **kwargs):
            result = function(*args, **kwargs)
            sizes.append(result.numel())
            return result

        return call

    monkeypatch.setattr(F, "interpolate", noting(interpolate))
    monkeypatch.setattr(F, "embedding_bag", noting(bag))
    logits = torch.randn(1, 7, 64, 128)
    for values in (logits, F.avg_pool2d(logits, 9, 1, 4)):
        label_map(values, (256, 512))
    assert max(sizes) <= 7 * 256 * 512 / 8
