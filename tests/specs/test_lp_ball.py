"""Balls of norm 1 and 2 intersected with a box, against brute force and a general-purpose solver."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verifier.errors import InputError
from verifier.specs.region import Box, LpBall, stack

NORMS = st.sampled_from([1, 2])
SIZES = st.sampled_from([1, 2, 7, 100])
RADII = st.sampled_from([0.0, 1e-6, 0.1, 1.0, 5.0, 100.0])


def make_ball(seed: int, norm: int, size: int, radius: float, batch: int = 2, dtype=torch.float64) -> LpBall:
    """A ball in the unit cube; half of the coordinates start on a face of it."""
    generator = torch.Generator().manual_seed(seed)
    center = torch.rand(batch, size, generator=generator, dtype=dtype)
    edge = torch.rand(batch, size, generator=generator, dtype=dtype) < 0.5
    center = torch.where(edge, center.round(), center)
    box = Box(torch.zeros_like(center), torch.ones_like(center))
    return LpBall.checked(center, torch.full((batch,), radius, dtype=dtype), box, norm)


def make_rows(seed: int, batch: int, size: int, rows: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + 77)
    A = torch.randn(batch, rows, size, generator=generator, dtype=torch.float64)
    A[:, 1] = A[:, 1].round()  # ties and zeros
    return A


@given(st.integers(0, 10**6), NORMS, SIZES, RADII)
def test_minimum_bounds_samples_and_the_gradient_attains_it_inside(seed, norm, size, radius):
    ball = make_ball(seed, norm, size, radius)
    A = make_rows(seed, 2, size).requires_grad_()
    least = ball.minimum(A)
    points = ball.sample(64, torch.Generator().manual_seed(seed))
    assert bool(ball.contains(points).all())
    assert bool((torch.einsum("rbn,bsn->rbs", points, A.detach()) >= least - 1e-9).all())
    (minimiser,) = torch.autograd.grad(least.sum(), A)
    assert torch.allclose((A * minimiser).sum(-1), least, atol=1e-9)
    per_row = minimiser.transpose(0, 1)
    assert torch.allclose(ball.box.project(per_row), per_row, rtol=0, atol=1e-12)
    distance = torch.linalg.vector_norm(per_row - ball.center, ord=norm, dim=-1)
    assert bool((distance <= radius * (1 + 1e-9) + 1e-12).all())


@given(st.integers(0, 10**6), NORMS)
def test_either_batch_may_be_one(seed, norm):
    ball = make_ball(seed, norm, 7, 0.5, batch=3)
    A = make_rows(seed, 3, 7)
    for b in range(3):
        single = ball.select(torch.tensor([b]))
        assert torch.allclose(single.minimum(A)[b], ball.minimum(A)[b])
        assert torch.allclose(ball.minimum(A[b : b + 1])[b], ball.minimum(A)[b])


def test_many_coordinates_are_spent_exactly():
    """More coordinates move than are looked at first."""
    ball = make_ball(0, 1, 3000, 200.0, batch=1)
    A = make_rows(0, 1, 3000)
    direction = torch.where(A[0] > 0, ball.center, 1 - ball.center)
    order = A[0].abs().argsort(-1, descending=True)
    room = direction.gather(-1, order)
    spent = torch.minimum((200 - (room.cumsum(-1) - room)).clamp(min=0), room)
    expected = (A[0] * ball.center).sum(-1) - (A[0].abs().gather(-1, order) * spent).sum(-1)
    assert torch.allclose(ball.minimum(A)[0], expected, atol=1e-9)


def test_against_a_conic_solver():
    cvxpy = pytest.importorskip("cvxpy")
    for norm, seed in ((1, 0), (2, 1), (2, 2)):
        ball = make_ball(seed, norm, 30, 0.8, batch=1)
        A = make_rows(seed, 1, 30, rows=2)
        for row in range(2):
            x = cvxpy.Variable(30)
            inside = [cvxpy.norm(x - ball.center[0].numpy(), norm) <= 0.8, x >= 0, x <= 1]
            value = cvxpy.Problem(cvxpy.Minimize(A[0, row].numpy() @ x), inside).solve()
            assert float(ball.minimum(A)[0, row]) == pytest.approx(value, abs=1e-5)


def test_single_precision_and_large_numbers_stay_lower_bounds():
    for norm in (1, 2):
        for scale in (1e-20, 1.0, 1e20):
            ball = make_ball(4, norm, 50, 0.7)
            A = make_rows(4, 2, 50) * scale
            least = ball.minimum(A)
            single = ball.to(torch.float32, "cpu").minimum(A.float())
            assert bool(single.isfinite().all())
            assert torch.allclose(single.double(), least, rtol=1e-4, atol=1e-5 * scale)


@given(st.integers(0, 10**6), NORMS, SIZES, RADII)
def test_projection_is_the_nearest_point_inside(seed, norm, size, radius):
    ball = make_ball(seed, norm, size, radius)
    generator = torch.Generator().manual_seed(seed)
    x = ball.center + torch.randn(10, 2, size, generator=generator, dtype=torch.float64)
    nearest = ball.project(x)
    assert bool(ball.contains(nearest).all())
    # the angle to every point of a convex set is obtuse, seen from the nearest one
    others = ball.sample(32, generator)
    angle = torch.einsum("rbn,qrbn->qrb", x - nearest, others.unsqueeze(1) - nearest)
    assert bool((angle <= 1e-8 * (1 + size)).all())
    assert torch.allclose(ball.project(nearest), nearest, atol=1e-9)


def test_projection_of_something_that_is_not_a_number_ends():
    ball = make_ball(0, 2, 3, 0.5)
    assert bool(ball.project(torch.full((1, 2, 3), torch.nan, dtype=torch.float64)).isnan().any())


def test_samples_reach_the_surface():
    for norm in (1, 2):
        center = torch.full((1, 6), 0.5, dtype=torch.float64)
        ball = LpBall.checked(center, torch.tensor([0.4], dtype=torch.float64), None, norm)
        points = ball.sample(40, torch.Generator().manual_seed(0))
        distance = torch.linalg.vector_norm(points - center, ord=norm, dim=-1)
        assert torch.allclose(distance[::4], torch.tensor(0.4, dtype=torch.float64))
        assert float(distance[1::4].min()) < 0.39
        if norm == 1:
            assert bool(((points - center)[::4] != 0).sum(-1).eq(1).all())


@given(st.integers(0, 10**6), NORMS, RADII)
def test_enclosing_box_and_narrowing_contain_the_set(seed, norm, radius):
    ball = make_ball(seed, norm, 7, radius)
    points = ball.sample(32, torch.Generator().manual_seed(seed))
    assert bool(ball.enclosing_box().contains(points).all())
    wide = ball.to(torch.float32, "cpu")
    assert wide.center.dtype == wide.radius.dtype == wide.lower.dtype == torch.float32
    again = LpBall(wide.center.double(), wide.radius.double(), wide.box.to(torch.float64, "cpu"), norm)
    assert bool(again.contains(points).all())
    assert bool((again.radius <= radius * (1 + 1e-6) + 1e-5).all())


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("radius", [0.0, 1e-5, 0.3, 4.0])
def test_witness_is_a_float32_point_of_the_set(norm, radius):
    ball = make_ball(1, norm, 50, radius, batch=1)
    ball = LpBall(ball.center.float().double(), ball.radius, ball.box, norm)  # images are float32 values
    candidate = np.random.default_rng(0).normal(size=50)
    witness = ball.witness(candidate)
    assert witness is not None
    assert np.array_equal(witness, witness.astype(np.float32).astype(np.float64))
    assert bool(ball.contains(torch.tensor(witness)[None, None]).all())
    reached = np.linalg.norm(witness - ball.center[0].numpy(), ord=norm)
    best = np.linalg.norm(
        ball.project(torch.tensor(candidate)[None, None])[0, 0].numpy() - ball.center[0].numpy(), norm
    )
    assert reached >= best * (1 - 1e-3) - 1e-5


def test_witness_of_a_radius_below_float32():
    third = torch.tensor([[1 / 3]], dtype=torch.float64)
    ball = LpBall.checked(third, torch.tensor([1e-12], dtype=torch.float64), None, 2)
    witness = ball.witness(np.array([0.4]))
    assert witness is not None and abs(float(witness[0]) - 1 / 3) <= 1e-12  # no float32 value in reach
    assert ball.witness(np.array([np.nan])) is None
    with pytest.raises(ValueError, match="as it was read"):
        ball.to(torch.float32, "cpu").witness(np.array([0.4]))


def test_no_witness_where_rounding_leaves_the_ball():
    center = torch.tensor([[1 / 3, 1 / 3]], dtype=torch.float64)
    wide = Box(torch.zeros_like(center), torch.ones_like(center))
    radius = torch.tensor([1.01 * abs(float(np.float32(1 / 3)) - 1 / 3)], dtype=torch.float64)
    assert LpBall.checked(center, radius, wide, 1).witness(np.array([0.5, 0.5])) is None


def test_select_reshape_and_stack():
    ball = make_ball(0, 2, 6, 0.5, batch=3)
    part = ball.select(torch.tensor([1])).reshape((2, 3))
    assert part.center.shape == part.lower.shape == part.upper.shape == (1, 2, 3)
    both = stack([ball, ball])
    assert isinstance(both, LpBall) and both.batch == 6
    with pytest.raises(InputError, match="differ in kind, norm or shape"):
        stack([ball, make_ball(0, 1, 6, 0.5)])
    with pytest.raises(InputError, match="differ in kind, norm or shape"):
        stack([ball, ball.box])


@pytest.mark.parametrize(
    "norm, radius, center, message",
    [
        (3, 0.1, 0.5, "norm 3 is not known"),
        (2, -0.1, 0.5, "radius is"),
        (2, float("nan"), 0.5, "radius is"),
        (2, 0.1, float("nan"), "X_0 is not finite"),
        (1, 0.1, 1.5, "the centre lies above the allowed range: X_0"),
        (1, 0.1, -0.5, "the centre lies below the allowed range: X_0"),
    ],
)
def test_checked_balls_refuse_bad_data(norm, radius, center, message):
    box = Box(torch.zeros(1, 1), torch.ones(1, 1))
    with pytest.raises(InputError, match=message):
        LpBall.checked(torch.tensor([[center]]), torch.tensor([radius]), box, norm)
