"""Boxes: linear minimum, projection, sampling, witnesses, rounding, checks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verifier.errors import InputError
from verifier.specs.region import Box, stack
from verifier.specs.rounding import add_directed, float32_within


def make_box(seed: int, batch: int, shape: tuple[int, ...]) -> Box:
    generator = torch.Generator().manual_seed(seed)
    center = torch.randn(batch, *shape, generator=generator, dtype=torch.float64)
    radius = torch.rand(batch, *shape, generator=generator, dtype=torch.float64)
    return Box(center - radius, center + radius)


@given(st.integers(0, 10**6), st.sampled_from([(1, 1), (1, 3), (3, 1), (3, 3)]), st.sampled_from([(), (1,), (2, 3)]))
def test_minimum_is_the_least_value_and_the_gradient_attains_it(seed, batches, shape):
    box_batch, rows_batch = batches
    box = make_box(seed, box_batch, shape)
    generator = torch.Generator().manual_seed(seed + 1)
    A = torch.randn(rows_batch, 4, *shape, generator=generator, dtype=torch.float64).requires_grad_()
    least = box.minimum(A)
    batch = max(batches)
    assert least.shape == (batch, 4)
    points = box.sample(32, generator).expand(32, batch, *shape).reshape(32, batch, -1)
    values = torch.einsum("rbn,bsn->rbs", points, A.detach().expand(batch, 4, *shape).reshape(batch, 4, -1))
    assert bool((values >= least - 1e-12).all())
    if rows_batch == batch:
        (minimiser,) = torch.autograd.grad(least.sum(), A)
        assert torch.allclose((A * minimiser).reshape(batch, 4, -1).sum(-1), least)
        assert bool(
            ((minimiser >= box.lower.unsqueeze(1) - 1e-12) & (minimiser <= box.upper.unsqueeze(1) + 1e-12)).all()
        )


def test_minimum_is_differentiable_in_the_bounds():
    lower, upper = torch.zeros(1, 2, requires_grad=True), torch.ones(1, 2, requires_grad=True)
    Box(lower, upper).minimum(torch.tensor([[[2.0, -3.0]]])).sum().backward()
    assert lower.grad is not None and upper.grad is not None
    assert lower.grad.tolist() == [[2.0, 0.0]] and upper.grad.tolist() == [[0.0, -3.0]]


def test_projection_lands_inside_and_keeps_inner_points():
    box = make_box(0, 2, (5,))
    x = 3 * torch.randn(20, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert not bool(box.contains(x).all())
    assert bool(box.contains(box.project(x)).all())
    inside = box.sample(20, torch.Generator().manual_seed(2))
    assert torch.equal(box.project(inside), inside)


def test_samples_hold_corners_and_inner_points():
    box = make_box(0, 2, (5,))
    points = box.sample(16, torch.Generator().manual_seed(0))
    at_corner = ((points == box.lower) | (points == box.upper)).all(-1)
    assert bool(at_corner[::4].all()) and not bool(at_corner[1::4].any())
    assert torch.equal(points, box.sample(16, torch.Generator().manual_seed(0)))


def test_narrowing_rounds_outwards():
    box = make_box(3, 2, (50,))
    narrow = box.to(torch.float32, "cpu")
    assert narrow.lower.dtype == torch.float32
    assert bool((narrow.lower.double() <= box.lower).all()) and bool((narrow.upper.double() >= box.upper).all())
    assert bool((narrow.upper.double() - box.upper < 1e-6).all())
    exact = Box(torch.zeros(1, 3, dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64)).to(torch.float32, "cpu")
    assert exact.lower.tolist() == [[0.0] * 3] and exact.upper.tolist() == [[1.0] * 3]


def test_select_reshape_and_stack():
    box = make_box(0, 3, (4,))
    with_inner = Box(box.lower, box.upper, box.lower, box.upper)
    chosen = with_inner.select(torch.tensor([2, 0])).reshape((2, 2))
    assert chosen.batch == 2 and chosen.lower.shape == (2, 2, 2)
    assert torch.equal(chosen.lower[0].reshape(-1), box.lower[2])
    assert chosen.inner_upper is not None and chosen.inner_upper.shape == (2, 2, 2)
    both = stack([box, with_inner])
    assert isinstance(both, Box) and both.batch == 6
    assert both.inner_lower is not None and torch.equal(both.inner_lower[:3], box.lower)
    with pytest.raises(InputError, match="differ in kind, norm or shape"):
        stack([box, box.reshape((2, 2))])


def one(lower: list[float], upper: list[float], *inner: list[float]) -> Box:
    return Box(*(torch.tensor([bound], dtype=torch.float64) for bound in (lower, upper, *inner)))


def test_witness_is_a_float32_point_of_the_box():
    rng = np.random.default_rng(0)
    lower = rng.normal(size=200)
    box = one(lower.tolist(), (lower + rng.uniform(1e-6, 1, size=200)).tolist())
    witness = box.witness(rng.normal(size=200))
    assert witness is not None and witness.dtype == np.float64
    assert np.array_equal(witness, witness.astype(np.float32).astype(np.float64))
    assert bool(box.contains(torch.tensor(witness)[None, None]).all())


def test_witness_obeys_inner_bounds_and_falls_back_to_float64():
    third = 1 / 3  # no float32
    inner = np.nextafter(0.5, 0)
    witness = one([0.0, third], [0.5, third], [0.0, third], [inner, third]).witness(np.array([1.0, 1.0]))
    assert witness is not None
    assert witness[0] == np.nextafter(np.float32(0.5), np.float32(0)) and witness[1] == third


def test_no_witness_for_nan_or_an_empty_inner_interval():
    assert one([0.0], [1.0]).witness(np.array([np.nan])) is None
    assert one([0.0], [1.0], [0.6], [0.5]).witness(np.array([0.5])) is None
    assert one([0.0], [1.0]).witness(np.array([np.inf])).tolist() == [1.0]  # type: ignore[union-attr]


def test_witness_wants_the_region_as_read():
    with pytest.raises(ValueError, match="as it was read"):
        make_box(0, 2, (3,)).witness(np.zeros(3))
    with pytest.raises(ValueError, match="as it was read"):
        make_box(0, 1, (3,)).to(torch.float32, "cpu").witness(np.zeros(3))


@pytest.mark.parametrize(
    "lower, upper, message",
    [
        ([0.0, 2.0, 3.0], [1.0, 1.0, 2.0], r"contradictory bounds: X_1 would need 2.0 <= 1.0"),
        ([0.0, float("nan")], [1.0, 1.0], "X_1 is not finite"),
        ([0.0, 0.0], [float("inf"), 1.0], "X_0 is not finite"),
        ([0.0], [1.0, 1.0], "shapes"),
    ],
)
def test_checked_boxes_refuse_bad_bounds(lower, upper, message):
    with pytest.raises(InputError, match=message):
        Box.checked(torch.tensor([lower]), torch.tensor([upper]), "here")


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_directed_sums_are_the_floats_around_the_exact_sum(a, b):
    from fractions import Fraction

    low = float(add_directed(np.array(a), np.array(b), -np.inf))
    high = float(add_directed(np.array(a), np.array(b), np.inf))
    exact = Fraction(a) + Fraction(b)
    assert Fraction(low) <= exact <= Fraction(high)
    assert high in (low, np.nextafter(low, np.inf))


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.floats(0, 1e-5))
def test_float32_within_finds_a_float32_value_if_there_is_one(x, low, width):
    high = low + width
    found = float(float32_within(np.array(x), np.array(low), np.array(high)))
    assert low <= found <= high
    first = np.float32(low)
    first = first if float(first) >= low else np.nextafter(first, np.float32(np.inf))
    if float(first) <= high:
        assert np.float32(found) == found
        assert abs(found - np.clip(x, low, high)) <= 2.0**-23 * max(1e-30, abs(found)) * 1.01 + 1e-44
