"""The mean losses of an epoch, by hand."""

import math

import pytest
import torch

from utils.training.losses import LossMeter

CPU = torch.device("cpu")


def meter(*values):
    """A meter after iterations with these losses, "out" being half of the whole."""
    filled = LossMeter()
    for value in values:
        filled.update({"loss": torch.tensor(value), "out": torch.tensor(value / 2)})
    return filled


def test_means_leave_out_what_is_not_finite():
    filled = meter(1.0, math.nan, 3.0, -math.inf)
    assert filled.means() == {"loss": 2, "loss_out": 1}


@pytest.mark.parametrize(
    ("values", "plain", "skipping"),
    [
        ((1.0, 2.0), None, None),
        ((1.0, math.nan, 2.0), 2, None),
        ((1.0, math.inf), 1, None),
        ((math.nan, math.nan), 2, 2),
    ],
)
def test_divergence_is_found_with_its_iteration(values, plain, skipping):
    assert meter(*values).find_divergence() == plain
    assert meter(*values).find_divergence(skipping=True) == skipping


def test_each_iteration_is_looked_at_once_and_memory_does_not_grow():
    filled = meter(math.nan)
    assert filled.find_divergence() == 1
    assert filled.find_divergence() is None
    for _ in range(3):
        filled.update({"loss": torch.tensor(1.0), "out": torch.tensor(1.0)})
    assert filled.find_divergence() is None and filled.unchecked == []


def test_a_state_that_is_taken_up_goes_on_to_the_same_means():
    whole, part, resumed = meter(0.1, 0.7, 0.3), meter(0.1, 0.7), LossMeter()
    resumed.load_state_dict(part.state_dict(), CPU)
    resumed.update({"loss": torch.tensor(0.3), "out": torch.tensor(0.15)})
    assert resumed.means() == whole.means()
    empty = LossMeter()
    empty.load_state_dict(LossMeter().state_dict(), CPU)
    empty.update({"loss": torch.tensor(2.0)})
    assert empty.means() == {"loss": 2}
