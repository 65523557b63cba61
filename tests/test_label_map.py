import pytest
import torch
from torch.nn import functional as F

from utils.inference import label_map as module
from utils.inference.label_map import label_map


def plain(logits, size, align_corners=True):
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners).argmax(1)


def smooth(batch, height, width):
    """Logits in which neighbours mostly agree."""
    torch.manual_seed(0)
    return F.interpolate(torch.randn(batch, 7, 5, 6), (height, width), mode="bicubic")


@pytest.mark.parametrize("make", [smooth, lambda *size: torch.randn(size[0], 7, *size[1:])], ids=["smooth", "random"])
@pytest.mark.parametrize("size", [(96, 160), (97, 163), (24, 40), (25, 41), (30, 20), (12, 20), (1, 1)])
@pytest.mark.parametrize("align_corners", [True, False])
def test_labels_are_those_of_the_plain_form(make, size, align_corners):
    logits = make(2, 24, 40)
    labels = label_map(logits, size, align_corners=align_corners)
    assert labels.shape == (2, *size) and labels.dtype == torch.uint8
    assert (labels == plain(logits, size, align_corners)).float().mean() > 0.999


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 3, 1, 8), (1, 3, 8, 1), (2, 3, 2, 2)])
@pytest.mark.parametrize("align_corners", [True, False])
def test_logits_of_one_row_or_column(shape, align_corners):
    logits = torch.randn(shape)
    labels = label_map(logits, (9, 13), align_corners=align_corners).long()
    assert torch.equal(labels, plain(logits, (9, 13), align_corners))


@pytest.mark.parametrize("align_corners", [True, False])
def test_both_ways_agree_and_each_is_taken(monkeypatch, align_corners):
    logits, ways = smooth(1, 24, 40), []
    strips = module._in_strips
    monkeypatch.setattr(module, "_in_strips", lambda *a: ways.append("strips") or strips(*a))
    by_cells = label_map(logits, (96, 160), align_corners=align_corners)
    assert ways == []
    assert (by_cells == strips(logits, 96, 160, align_corners)).float().mean() > 0.999
    label_map(torch.randn(1, 7, 24, 40), (96, 160), align_corners=align_corners)
    assert ways == ["strips"]


def test_a_third_class_can_win_inside_a_cell_though_at_no_corner():
    corners = torch.tensor([[4.0, 0, 3.5], [0, 4, 3.5]] * 2)  # left and right, at the top and at the bottom
    labels = label_map(corners.T.reshape(1, 3, 2, 2), (2, 5))
    assert labels.tolist() == [[[0, 2, 2, 2, 1]] * 2]  # class 0 has 4, 3, 2, 1 and 0


def test_without_aligned_corners_the_borders_have_the_outermost_values():
    logits = torch.tensor([[[[3.0, 0.0]] * 2, [[0.0, 1.0]] * 2]])  # class 0 leads by 3 on the left, 1 by 1 on the right
    labels = label_map(logits, (4, 8), align_corners=False)
    # centres of the pixels at -3/8, -1/8, 1/8 … 11/8 of the small ones; even at 3/4, between columns 4 and 5
    assert labels.tolist() == [[[0, 0, 0, 0, 0, 1, 1, 1]] * 4]


def test_half_precision_and_channels_last_logits():
    logits = smooth(1, 24, 40)
    expected = plain(logits.bfloat16().float(), (96, 160))
    assert (label_map(logits.bfloat16(), (96, 160)) == expected).float().mean() > 0.999
    turned = logits.to(memory_format=torch.channels_last)
    assert torch.equal(label_map(turned, (96, 160)), label_map(logits, (96, 160)))


def test_the_logits_are_never_at_full_size(monkeypatch):
    sizes = []
    interpolate, cells = F.interpolate, module._interpolate

    def noting(function):
        def call(*args, **kwargs):
            result = function(*args, **kwargs)
            sizes.append(result.numel())
            return result

        return call

    monkeypatch.setattr(F, "interpolate", noting(interpolate))
    monkeypatch.setattr(module, "_interpolate", noting(cells))
    monkeypatch.setattr(module, "AT_ONCE", 1 << 12)
    logits = torch.randn(1, 7, 64, 128)
    for values in (logits, F.avg_pool2d(logits, 9, 1, 4)):
        label_map(values, (256, 512))
    assert max(sizes) <= 7 * 256 * 512 / 8
