from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verifier.attacks.steps import centre, extreme, inside, normalised, steepest
from verifier.specs.region import Box, LpBall

WIDE = Box(torch.full((2, 3), -9.0, dtype=torch.float64), torch.full((2, 3), 9.0, dtype=torch.float64))
MIDDLE = torch.tensor([[0.5, -1.0, 2.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
RADIUS = torch.tensor([2.0, 0.5], dtype=torch.float64)


def ball(norm: int) -> LpBall:
    return LpBall.checked(MIDDLE, RADIUS, WIDE, norm)


def box() -> Box:
    return Box(MIDDLE - RADIUS[:, None], MIDDLE + RADIUS[:, None])


GRADIENT = torch.tensor([[[3.0, -4.0, 0.0], [1.0, 2.0, -2.0]]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("region", "step"),
    [
        (box(), [[-2.0, 2.0, 0.0], [-0.5, -0.5, 0.5]]),
        (ball(2), [[-1.2, 1.6, 0.0], [-0.5 / 3, -1 / 3, 1 / 3]]),
        (ball(1), [[0.0, 2.0, 0.0], None]),
    ],
    ids=["box", "l2", "l1"],
)
def test_steepest_step(region, step):
    found = steepest(region, GRADIENT)[0]
    for row, expected in zip(found, step, strict=True):
        if expected is not None:
            assert row.tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("region", [box(), ball(2), ball(1)], ids=["box", "l2", "l1"])
def test_extreme_points_attain_the_minimum_inside(region):
    direction = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points = extreme(region, direction)
    values = (direction * points).sum(-1)
    torch.testing.assert_close(values, region.minimum(direction.transpose(0, 1)).T, rtol=0, atol=1e-9)
    torch.testing.assert_close(region.project(points), points, rtol=0, atol=1e-9)


@pytest.mark.parametrize("region", [box(), ball(2), ball(1)], ids=["box", "l2", "l1"])
def test_centre(region):
    torch.testing.assert_close(centre(region), MIDDLE.unsqueeze(0))


def test_a_fixed_coordinate_never_moves():
    lower = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    region = Box(lower, torch.tensor([[1.0, 1.0]], dtype=torch.float64))
    assert steepest(region, torch.ones(1, 1, 2, dtype=torch.float64)).tolist() == [[[-0.5, 0.0]]]


def test_normalised():
    gradient = torch.tensor([[[3.0, -1.0]], [[0.0, 0.0]], [[torch.nan, torch.inf]]], dtype=torch.float64)
    assert normalised(gradient).tolist() == [[[0.75, -0.25]], [[0.0, 0.0]], [[0.0, 0.0]]]


@pytest.mark.parametrize("region", [box(), ball(2), ball(1)], ids=["box", "l2", "l1"])
def test_inside_leads_into_the_region_and_keeps_what_lies_there(region):
    far = MIDDLE + 40 * torch.randn(2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    near = inside(region, far)
    torch.testing.assert_close(region.project(near.unsqueeze(0))[0], near)
    torch.testing.assert_close(inside(region, near), near)
    assert not torch.allclose(near, MIDDLE)


@given(st.integers(0, 10**6))
def test_points_inside_a_cut_euclidean_ball_are_nearly_the_nearest(seed):
    generator = torch.Generator().manual_seed(seed)
    center = (torch.rand(100, 9, generator=generator, dtype=torch.float64) * 2 - 0.5).clamp(0, 1)
    radius = 0.05 + torch.rand(100, generator=generator, dtype=torch.float64)
    region = LpBall.checked(center, radius, Box(torch.zeros_like(center), torch.ones_like(center)), 2)
    x = center + torch.randn(100, 9, generator=generator, dtype=torch.float64) * radius[:, None]
    found, nearest = inside(region, x), region.project(x.unsqueeze(0))[0]
    move = x - center
    usual = center + move * (radius / move.norm(dim=1)).clamp(max=1)[:, None]  # shortened, then clipped
    usual = usual.clamp(0, 1)
    assert ((found - center).norm(dim=1) <= radius * (1 + 1e-12)).all() and region.box.contains(found[None]).all()
    off, usually_off = ((points - x).norm(dim=1) - (nearest - x).norm(dim=1) for points in (found, usual))
    assert off.sum() <= usually_off.sum() / 4
    assert torch.allclose(inside(region, found), found, rtol=0, atol=1e-12)
