"""The step through an activation: values and hand-written gradient against the definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from verifier.bounding.relax import relax
from verifier.relaxations.envelope import Line


def _definition(A: Tensor, lower: Line, upper: Line) -> tuple[Tensor, Tensor]:
    def intercept(line: Line) -> Tensor:
        return torch.zeros_like(line[0]) if line[1] is None else line[1]

    positive, negative = A.clamp(min=0), A.clamp(max=0)
    constants = positive * intercept(lower) + negative * intercept(upper)
    return positive * lower[0] + negative * upper[0], constants.sum(tuple(range(2, A.dim())))


def _lines(rows: int, shape: tuple[int, ...], intercepts: bool, batch: int) -> Line:
    slope = torch.randn(batch, rows, *shape, dtype=torch.float64, requires_grad=True)
    return slope, torch.randn_like(slope, requires_grad=True) if intercepts else None


@pytest.mark.parametrize("shape", [(4,), (1, 2, 3)])
@pytest.mark.parametrize("of_A, batch", [(2, 2), (1, 2), (1, 1)])
@pytest.mark.parametrize("rows_lower, rows_upper", [(3, 3), (1, 3), (3, 1), (1, 1)])
@pytest.mark.parametrize("with_lower, with_upper", [(True, True), (False, True), (True, False), (False, False)])
def test_relax_is_its_definition(
    shape: tuple[int, ...], of_A: int, batch: int, rows_lower: int, rows_upper: int, with_lower: bool, with_upper: bool
):
    torch.manual_seed(0)
    A = torch.randn(of_A, 3, *shape, dtype=torch.float64, requires_grad=True)
    lower, upper = _lines(rows_lower, shape, with_lower, batch), _lines(rows_upper, shape, with_upper, batch)
    found, constant = relax(A, lower, upper)
    expected, expected_constant = _definition(A, lower, upper)
    assert (constant is None) == (not with_lower and not with_upper)
    constant = found.new_zeros(batch, 3) if constant is None else constant
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(constant, expected_constant.expand(batch, 3), rtol=1e-13, atol=1e-13)
    weight, other = torch.randn_like(found), torch.randn(batch, 3, dtype=torch.float64)
    free = [t for t in (A, *lower, *upper) if t is not None]
    ours = torch.autograd.grad((found * weight).sum() + (constant * other).sum(), free)
    theirs = torch.autograd.grad((expected * weight).sum() + (expected_constant * other).sum(), free)
    for mine, torchs in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, torchs, rtol=1e-12, atol=1e-12)


def test_every_coefficient_is_one_product():
    """Also beside a line that is much steeper: the allowance for rounding counts the line that is taken alone."""
    A = torch.tensor([[[-3.0, 3.0]]], dtype=torch.float64)
    tiny, steep = (torch.full((1, 1, 2), slope, dtype=torch.float64) for slope in (1e-17, 1.0))
    assert torch.equal(
        relax(A, (steep, None), (tiny, None))[0], torch.tensor([[[-3.0 * 1e-17, 3.0]]], dtype=torch.float64)
    )
    assert torch.equal(
        relax(A, (tiny, None), (steep, None))[0], torch.tensor([[[-3.0, 3.0 * 1e-17]]], dtype=torch.float64)
    )


def test_only_asked_gradients_are_computed():
    A = torch.tensor([[[1.0, -2.0]]])
    slope = torch.ones(1, 1, 2, requires_grad=True)
    found, constant = relax(A, (slope, None), (torch.zeros(1, 1, 2), torch.ones(1, 1, 2)))
    assert constant is not None
    (found.sum() + constant.sum()).backward()
    assert slope.grad is not None and slope.grad.tolist() == [[[1.0, 0.0]]]
    assert A.grad is None
    assert constant.tolist() == [[-2.0]]


@pytest.mark.parametrize("rows", [1, 3])
def test_groups_of_one_change_nothing(rows: int, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    A = torch.randn(5, 3, 4, dtype=torch.float64, requires_grad=True)
    lower, upper = _lines(rows, (4,), True, 5), _lines(rows, (4,), True, 5)
    free = [t for t in (A, *lower, *upper) if t is not None]
    results = []
    for size in (1 << 30, 1):
        monkeypatch.setattr("verifier.bounding.relax.CACHE_BYTES", size)
        found, constant = relax(A, lower, upper)
        assert constant is not None
        results.append((found, constant, *torch.autograd.grad((found * found).sum() + constant.sum(), free)))
    for whole, single in zip(*results, strict=True):
        torch.testing.assert_close(whole, single, rtol=1e-13, atol=1e-13)
