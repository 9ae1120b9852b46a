"""Cuts: what they add to an objective, entry by entry, and the absolute terms behind it."""

from __future__ import annotations

import pytest
import torch

from verifier.relaxations.cuts import Cuts, Hulls


def _numbers(*rows: float) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


INDEX = torch.tensor([[2, 0], [0, 1]])
CUTS = Cuts(
    INDEX,
    P=_numbers(1, 2, 3, 4, 5, 6, 7, 8).reshape(1, 2, 2, 2),
    R=_numbers(-1, -2, -3, -4, -5, -6, -7, -8).reshape(1, 2, 2, 2),
    p=_numbers(10, 20, 30, 40).reshape(1, 2, 2),
)
HULLS = Hulls(INDEX, points=_numbers(0, 0, 0, 0, 1, 1, 1, 1, 0, 2, -1, 2, 0, 0, 0, 0).reshape(1, 2, 2, 4))


def test_rows_are_mixed_group_by_group():
    multipliers = _numbers(1, 10, 100, 0).reshape(1, 1, 2, 2)
    on_output, on_input, constant = CUTS.push(multipliers, 4)
    assert on_output.tolist() == [[[42.0 + 500, 600.0, 31.0, 0.0]]]  # entry 0 is second in one group, first in one
    assert on_input.tolist() == [[[-542.0, -600.0, -31.0, 0.0]]]
    assert constant.tolist() == [[-(10.0 + 200 + 3000)]]
    ones = torch.ones(1, 4, dtype=torch.float64)
    assert CUTS.terms(multipliers, ones, 2 * ones).tolist() == [[3 * (42.0 + 500 + 600 + 31) + 3210]]


def test_directions_are_limited_by_the_farthest_point():
    multipliers = _numbers(1, -1, 2, 0, 0, 1, 0, -1).reshape(1, 1, 2, 4)
    on_output, on_input, constant = HULLS.push(multipliers, 3)
    assert on_output.tolist() == [[[-1.0, 1.0, 1.0]]]
    assert on_input.tolist() == [[[0.0, -1.0, 2.0]]]
    assert constant.tolist() == [[-2.0]]  # values 0 and 2 of the first group's points, 2 - 2 and 0 of the second's
    ones = torch.ones(1, 3, dtype=torch.float64)
    assert HULLS.terms(multipliers, ones, ones).tolist() == [[4.0 + 2 + 4.0 + 4]]


@pytest.mark.parametrize("joint", [CUTS, HULLS])
def test_no_multipliers_change_nothing(joint: Cuts | Hulls):
    zero = joint.zero(3)
    assert all(not bool(part.any()) for part in joint.push(zero, 4))
    assert joint.push(zero, 4)[0].shape == (1, 3, 4)


@pytest.mark.parametrize("joint", [CUTS, HULLS])
def test_the_gradient_is_the_slack(joint: Cuts | Hulls):
    """The derivative of the added value by each multiplier, against differences."""
    generator = torch.Generator().manual_seed(0)
    at = torch.rand(joint.zero(2).shape, generator=generator, dtype=torch.float64).requires_grad_()
    z, x = torch.rand(2, 1, 2, 4, generator=generator, dtype=torch.float64)

    def value(multipliers: torch.Tensor) -> torch.Tensor:
        on_output, on_input, constant = joint.push(multipliers, 4)
        return (on_output * z).sum(2) + (on_input * x).sum(2) + constant

    assert torch.autograd.gradcheck(value, (at,))
