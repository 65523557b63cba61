import pytest
import torch

from models.fold import fold_batch_norms
from models.fusion import CascadeFeatureFusion
from models.layers import resize
from tests.networks import with_statistics


def test_fused_features_have_the_size_of_the_high_branch_and_are_rectified():
    fusion = CascadeFeatureFusion(8, 6, 4, num_classes=3)
    fused, aux = fusion(torch.randn(2, 8, 5, 6), torch.randn(2, 6, 10, 12))
    assert fused.shape == (2, 4, 10, 12) and fused.min() >= 0
    assert aux.shape == (2, 3, 10, 12)


def test_auxiliary_logits_are_computed_only_in_training():
    fusion = CascadeFeatureFusion(8, 6, 4, num_classes=3).eval()
    low, high = torch.randn(1, 8, 5, 6), torch.randn(1, 6, 10, 12)
    assert fusion(low, high)[1] is None
    fusion.training = True  # but its norms are in evaluation mode
    assert torch.equal(fusion.auxiliary_logits(low, (10, 12)), fusion(low, high)[1])


def test_both_orders_of_conv_and_resize_give_the_same():
    fusion = CascadeFeatureFusion(1024, 6, 4, num_classes=3).eval()
    assert fusion.resize_last
    low, high = torch.randn(1, 1024, 5, 6), torch.randn(1, 6, 10, 12)
    fused, _ = fusion(low, high)
    fusion.resize_last = False
    torch.testing.assert_close(fusion(low, high)[0], fused, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(2, 3), (4, 4), (7, 5)])
def test_doubling_before_or_after_the_conv_gives_the_same(size):
    fusion = with_statistics(CascadeFeatureFusion(8, 6, 4, num_classes=3, doubling=True))
    low, high = torch.randn(2, 8, *size), torch.randn(2, 6, *(2 * side - 1 for side in size))
    fused, _ = fold_batch_norms(fusion)(low, high)
    fusion.doubling = False
    torch.testing.assert_close(fused, fusion(low, high)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(3, 3), (6, 9), (8, 10)])
def test_doubling_serves_other_sizes_too(size):
    fusion = CascadeFeatureFusion(8, 6, 4, num_classes=3, doubling=True)
    assert fusion(torch.randn(1, 8, 4, 5), torch.randn(1, 6, *size))[0].shape == (1, 4, *size)


def test_the_paper_classifies_the_low_branch_itself():
    fusion = CascadeFeatureFusion(8, 6, 4, num_classes=3, doubling=True)
    low, size = torch.randn(2, 8, 4, 5), (7, 9)
    assert torch.allclose(fusion.auxiliary_logits(low, size), fusion.aux_classifier(resize(low, size)), atol=1e-6)
