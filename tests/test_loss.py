import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.layers import resize_target
from tests.conftest import CLASSES
from utils import distributed
from utils.config import LossConfig
from utils.loss import CascadeLoss, balanced_weights, build_loss, interpolate_labels

DATASET = SimpleNamespace(classes=("road", "car"), pixel_counts=np.array([[60, 0], [30, 10]]))


def logits(*rows):
    """Logits (1, C, 1, W) from the C scores of each of W pixels."""
    return torch.tensor(rows, dtype=torch.float32).T[None, :, None]


def test_cascade_by_hand_with_an_ignored_pixel():
    target = torch.tensor([[[0, 255]]], dtype=torch.uint8)
    fine = logits([0.0, 0.0], [9.0, 0.0])  # the second pixel is ignored, however wrong
    coarse = logits([math.log(3.0), 0.0], [0.0, 5.0])
    loss = CascadeLoss(aux_weight=0.4)({"out": fine, "aux_8": coarse, "aux_16": fine}, target)["loss"]
    assert loss.item() == pytest.approx(math.log(2) + 0.4 * math.log(4 / 3) + 0.4 * math.log(2), rel=1e-6)


def test_loss_is_the_mean_over_the_labelled_pixels_of_the_batch():
    target = torch.tensor([[[0, 255]], [[0, 1]]], dtype=torch.uint8)
    out = torch.zeros(2, 2, 1, 2)
    out[0, 0, 0, 0] = math.log(3.0)  # -log(3/4) there, log 2 on the other two
    expected = (math.log(4 / 3) + 2 * math.log(2)) / 3
    assert CascadeLoss()({"out": out}, target)["loss"].item() == pytest.approx(expected, rel=1e-6)


def test_ignored_pixels_get_no_gradient_and_the_loss_is_zero_if_all_are():
    out = torch.randn(1, 3, 2, 2, requires_grad=True)
    target = torch.tensor([[[0, 255], [255, 2]]], dtype=torch.uint8)
    CascadeLoss()({"out": out}, target)["loss"].backward()
    gradient = out.grad.abs().sum(1)[0]
    assert (gradient > 0).tolist() == [[True, False], [False, True]]
    out.grad = None
    loss = CascadeLoss()({"out": out}, torch.full_like(target, 255))["loss"]
    loss.backward()
    assert loss.item() == 0 and out.grad.abs().sum() == 0


def test_class_weights_by_hand():
    target = torch.tensor([[[0, 1, 255]]], dtype=torch.uint8)
    out = logits([0.0, 0.0], [0.0, math.log(3.0)], [5.0, 0.0])
    loss = CascadeLoss(class_weights=torch.tensor([1.0, 3.0]))({"out": out}, target)["loss"]
    assert loss.item() == pytest.approx((1 * math.log(2) + 3 * math.log(4 / 3)) / 4, rel=1e-6)


def test_a_class_without_weight_is_not_learned_under_label_smoothing_either():
    loss = CascadeLoss(class_weights=torch.tensor([0.0, 1.0, 1.0]), label_smoothing=0.1)
    logits = torch.randn(1, 3, 1, 2, requires_grad=True)
    alone = loss({"out": logits[..., 1:]}, torch.tensor([[[1]]], dtype=torch.uint8))["loss"]
    both = loss({"out": logits}, torch.tensor([[[0, 1]]], dtype=torch.uint8))["loss"]
    assert both.item() == pytest.approx(alone.item(), rel=1e-6)
    assert loss({"out": logits}, torch.zeros(1, 1, 2, dtype=torch.uint8))["loss"] == 0


def test_balanced_weights_by_hand():
    rare, common = 1 / math.log(1.05 + 0.1), 1 / math.log(1.05 + 0.9)
    weights = balanced_weights(torch.tensor([10, 90]))
    assert weights.tolist() == pytest.approx([2 * rare / (rare + common), 2 * common / (rare + common)])
    weights = balanced_weights(torch.tensor([0, 90]), offset=1.2)
    assert (weights[0] / weights[1]).item() == pytest.approx(math.log(2.2) / math.log(1.2))  # the largest ratio


def test_losses_of_the_outputs_are_returned_beside_the_sum():
    target = torch.tensor([[[0]]], dtype=torch.uint8)
    losses = CascadeLoss(aux_weight=0.5)({"out": logits([0.0, 0.0]), "aux_8": logits([math.log(3.0), 0.0])}, target)
    assert losses["out"].item() == pytest.approx(math.log(2))
    assert losses["aux_8"].item() == pytest.approx(math.log(4 / 3))
    assert losses["loss"].item() == pytest.approx(math.log(2) + 0.5 * math.log(4 / 3))


def test_label_smoothing_by_hand():
    target = torch.tensor([[[0]]], dtype=torch.uint8)
    loss = CascadeLoss(label_smoothing=0.2)({"out": logits([math.log(3.0), 0.0])}, target)["loss"]
    assert loss.item() == pytest.approx(0.9 * math.log(4 / 3) + 0.1 * math.log(4))


def test_ohem_counts_hard_pixels_or_at_least_a_share():
    likely, unlikely = [math.log(9.0), 0.0], [0.0, 0.0]  # probabilities 0.9 and 0.5
    target = torch.tensor([[[0, 0, 0, 255]]], dtype=torch.uint8)
    loss = CascadeLoss(ohem=0.7)({"out": logits(likely, unlikely, likely, unlikely)}, target)["loss"]
    assert loss.item() == pytest.approx(math.log(2))
    loss = CascadeLoss(ohem=0.7, ohem_keep=0.5)({"out": logits(unlikely, likely, likely, unlikely)}, target)["loss"]
    assert loss.item() == pytest.approx((math.log(2) + 2 * math.log(10 / 9)) / 3)  # the other two are equally hard
    out = torch.randn(1, 2, 1, 4, requires_grad=True)
    loss = CascadeLoss(ohem=0.7)({"out": out}, torch.full_like(target, 255))["loss"]
    loss.backward()
    assert loss.item() == 0 and out.grad.abs().sum() == 0


def test_hard_pixels_are_chosen_by_probability_and_averaged_by_weight():
    out = logits([math.log(9.0), 0.0], [math.log(3.0), 0.0], [5.0, 0.0])  # probabilities 0.9 and 1/4 of the label
    target = torch.tensor([[[0, 1, 255]]], dtype=torch.uint8)
    # the weight lifts the loss of the first pixel above the threshold's, but it is not a hard one
    criterion = CascadeLoss(ohem=0.7, class_weights=torch.tensor([5.0, 3.0]))
    assert criterion({"out": out}, target)["loss"].item() == pytest.approx(math.log(4))


def test_processes_are_weighted_by_their_labelled_pixels(monkeypatch):
    out = torch.randn(2, 3, 4, 4)
    target = torch.randint(0, 3, (2, 4, 4), dtype=torch.uint8)
    target[1, :3] = 255
    teacher = torch.randn(2, 3, 4, 4)
    whole = CascadeLoss()({"out": out}, target, teacher)

    monkeypatch.setattr(distributed, "mean_over_processes", lambda labelled: torch.tensor((16 + 4) / 2))
    parts = [slice(0, 1), slice(1, 2)]
    shares = [CascadeLoss()({"out": out[part]}, target[part], teacher[part]) for part in parts]
    for name in ("loss", "distill"):
        assert torch.allclose(sum(share[name] for share in shares) / 2, whole[name])


def test_full_size_upsamples_the_logits_in_the_alignment_of_the_network():
    out, target = torch.randn(1, 3, 4, 5), torch.randint(0, 3, (1, 9, 12), dtype=torch.uint8)
    target[0, 0, :5] = 255
    for align_corners in (True, False):
        large = torch.nn.functional.interpolate(out, (9, 12), mode="bilinear", align_corners=align_corners)
        expected = torch.nn.functional.cross_entropy(large, target.long(), ignore_index=255)
        criterion = CascadeLoss(full_size=True, align_corners=align_corners)
        torch.testing.assert_close(criterion({"out": out}, target)["loss"], expected)


def test_labels_are_downsampled_in_the_alignment_of_the_network():
    target = torch.tensor([[[0, 1, 1, 0]]], dtype=torch.uint8)
    out = logits([math.log(3.0), 0.0], [math.log(3.0), 0.0])
    corners = CascadeLoss()({"out": out}, target)["loss"]  # labels of columns 0 and 3
    assert corners.item() == pytest.approx(math.log(4 / 3), rel=1e-6)
    centres = CascadeLoss(align_corners=False)({"out": out}, target)["loss"]  # labels of columns 1 and 3
    assert centres.item() == pytest.approx((math.log(4) + math.log(4 / 3)) / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 0, 3, 5], [0, 1, 5]),  # the middle between 0 and 3, truncated
        ([0, 3, 255, 255], [0, 1, 255]),  # ignored counts as -1: the middle between 3 and -1
        ([0, 0, 255, 2], [0, 0, 2]),  # -0.5 is truncated to 0, the first class
    ],
)
def test_bilinear_labels_by_hand(labels, expected):
    target = torch.tensor([[labels]], dtype=torch.uint8)
    small = interpolate_labels(target, (1, 3))  # columns 0, 1.5 and 3
    assert small.dtype == torch.uint8 and small.tolist() == [[expected]]


def test_bilinear_labels_without_aligned_corners_by_hand():
    target = torch.tensor([[[0, 2, 7, 7, 255, 3]]], dtype=torch.uint8)
    assert interpolate_labels(target, (1, 3), align_corners=False).tolist() == [[[1, 7, 1]]]  # means of two


def test_label_resize_selects_the_interpolation():
    target = torch.tensor([[[0, 2, 2, 0]]], dtype=torch.uint8)
    out = logits([0.0, math.log(2.0), 0.0], [0.0, math.log(2.0), 0.0])  # class 1 has probability 1/2, the others 1/4
    losses = {
        name: CascadeLoss(label_resize=name, align_corners=False)({"out": out}, target)["loss"].item()
        for name in ("nearest", "bilinear")
    }
    assert losses["nearest"] == pytest.approx(math.log(4))
    assert losses["bilinear"] == pytest.approx(math.log(2))  # an invented class 1 between 0 and 2


def test_distillation_of_two_pixels_by_hand():
    """At temperature 2 the pixels' soft labels are (3/4, 1/4) and (1/2, 1/2), and the network gives 1/2 everywhere."""
    target = torch.tensor([[[0, 1, 255]]], dtype=torch.uint8)
    teacher = logits([2 * math.log(3.0), 0.0], [1.0, 1.0], [7.0, 0.0])
    criterion = CascadeLoss(temperature=2.0, distill_weight=0.5)
    losses = criterion({"out": torch.zeros(1, 2, 1, 3)}, target, teacher)
    divergence = 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2)
    assert losses["distill"].item() == pytest.approx(2**2 * divergence / 2, rel=1e-5)
    assert losses["loss"].item() == pytest.approx(math.log(2) + 0.5 * losses["distill"].item(), rel=1e-6)


def test_a_network_like_its_teacher_has_nothing_to_learn_from_it():
    out, target = torch.randn(2, 3, 4, 5, requires_grad=True), torch.zeros(2, 4, 5, dtype=torch.uint8)
    distill = CascadeLoss()({"out": out}, target, out.detach())["distill"]
    distill.backward()
    assert abs(distill.item()) < 1e-6 and out.grad.abs().max() < 1e-6
    for aligned, size in ((True, (7, 9)), (False, (12, 15))):  # sizes from which resizing back is exact
        large = torch.nn.functional.interpolate(out.detach(), size, mode="bilinear", align_corners=aligned)
        distill = CascadeLoss(align_corners=aligned)({"out": out}, target, large + 3)["distill"]  # shifted alike
        assert distill.item() < 1e-6


def test_distillation_on_ignored_pixels_alone_is_zero():
    out = torch.randn(1, 3, 2, 2, requires_grad=True)
    target = torch.full((1, 2, 2), 255, dtype=torch.uint8)
    CascadeLoss()({"out": out}, target, torch.randn(1, 3, 2, 2))["loss"].backward()
    assert out.grad.abs().sum() == 0


def test_every_setting_reaches_the_loss():
    config = LossConfig(
        class_weights=(1.0, 3.0),
        aux_weight=0.3,
        resolution="full",
        label_resize="bilinear",
        label_smoothing=0.1,
        ohem=0.7,
        ohem_keep=0.25,
        distill_temperature=3.0,
        distill_weight=0.7,
    )
    loss = build_loss(config, DATASET, align_corners=False)
    assert loss.class_weights.tolist() == [1, 3]
    assert (loss.aux_weight, loss.full_size, loss.label_smoothing) == (0.3, True, 0.1)
    assert (loss.ohem, loss.ohem_keep, loss.align_corners) == (0.7, 0.25, False)
    assert loss.resize_labels is interpolate_labels
    assert (loss.temperature, loss.distill_weight) == (3, 0.7)


def test_default_loss_is_the_published_one():
    for loss in (build_loss(LossConfig(), DATASET), CascadeLoss()):
        assert loss.class_weights is None and loss.ohem is None and not loss.full_size and loss.align_corners
        assert (loss.aux_weight, loss.label_smoothing, loss.ohem_keep) == (0.4, 0, 1 / 16)
        assert loss.resize_labels is resize_target  # differs from the published code, see there


def test_balanced_class_weights_count_the_pixels_of_the_training_set():
    weights = build_loss(LossConfig(balance="log"), DATASET).class_weights
    assert weights.dtype == torch.float32
    assert (weights[1] / weights[0]).item() == pytest.approx(math.log(1.05 + 0.9) / math.log(1.05 + 0.1))
    weights = build_loss(LossConfig(balance="log", balance_offset=2.0), DATASET).class_weights
    assert (weights[1] / weights[0]).item() == pytest.approx(math.log(2.9) / math.log(2.1))


def test_balanced_class_weights_need_a_labelled_pixel():
    unlabelled = SimpleNamespace(pixel_counts=np.zeros((2, 3), np.int64), classes=CLASSES)
    with pytest.raises(ValueError, match="no pixel of the training masks is labelled"):
        build_loss(LossConfig(balance="log"), unlabelled)


def test_class_weights_are_as_many_as_classes():
    with pytest.raises(ValueError, match="has 3 values, the dataset 2 classes"):
        build_loss(LossConfig(class_weights=(1.0, 2.0, 3.0)), DATASET)
    assert build_loss(LossConfig(class_weights=(0.0, 1.0)), DATASET).class_weights.tolist() == [0, 1]


def test_losses_of_half_precision_logits_are_computed_in_single_precision():
    out = torch.zeros(1, 2, 512, 512, dtype=torch.float16)  # the sum over its pixels is beyond float16
    loss = CascadeLoss()({"out": out}, torch.zeros(1, 512, 512, dtype=torch.uint8))["loss"]
    assert loss.item() == pytest.approx(math.log(2), rel=1e-6)


def test_distillation_of_half_precision_logits_is_computed_in_single_precision():
    out, teacher = torch.randn(1, 3, 4, 4).bfloat16(), torch.randn(1, 3, 4, 4)
    target = torch.zeros(1, 4, 4, dtype=torch.uint8)
    half, single = (CascadeLoss()({"out": x}, target, teacher)["distill"] for x in (out, out.float()))
    assert torch.equal(half, single)
