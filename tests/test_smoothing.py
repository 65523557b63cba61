import pytest
import torch

from utils.inference.predictor import Smoother


def test_mean_of_the_frames_by_hand():
    smooth = Smoother(0.75)
    frames = torch.tensor([0.0, 4.0, 8.0]).view(3, 1, 1, 1)
    first = smooth(frames[:2])
    assert first.flatten().tolist() == [0, 1]  # 0.75 * 0 + 0.25 * 4
    assert smooth(frames[2:]).flatten().tolist() == [2.75]  # 0.75 * 1 + 0.25 * 8


def test_batches_change_nothing():
    frames = torch.randn(6, 3, 4, 5)
    whole = Smoother(0.5)(frames)
    single = Smoother(0.5)
    assert torch.equal(whole, torch.cat([single(frame[None]) for frame in frames]))


def test_off_and_another_size():
    frames = torch.randn(2, 3, 4, 5)
    assert Smoother(0)(frames) is frames
    smooth = Smoother(0.9)
    smooth(frames)
    other = torch.randn(1, 3, 2, 2)
    assert torch.equal(smooth(other), other)  # a new scene


@pytest.mark.parametrize("weight", [-0.1, 1, 2, float("nan")])
def test_weight_out_of_range(weight):
    with pytest.raises(ValueError, match=r"--smooth must be at least 0 and below 1, got"):
        Smoother(weight)
