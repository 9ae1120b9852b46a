"""Points and cuts of octahedra, against corners found in rational arithmetic."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.relaxations.hulls import facets, limits
from verifier.relaxations.octahedra import corners, directions

#: two inflations, of octahedra and of limits, of some 1e-7 of the group's largest value for each of a few planes
LOOSE = 2e-5


@lru_cache
def _inverses(k: int, kinks: int) -> list[tuple[tuple[int, ...], list[list[Fraction]]]]:
    """Exact inverses of the normals of every k planes that meet in a point."""
    planes = [tuple(int(c) for c in d) for d in directions(k).tolist()]
    planes += [tuple(int(i == j) for j in range(k)) for _ in range(kinks) for i in range(k)]
    found = []
    for choice in combinations(range(len(planes)), k):
        matrix = np.array([planes[c] for c in choice])
        determinant = round(float(np.linalg.det(matrix)))
        if determinant:
            adjugate = np.rint(np.linalg.inv(matrix) * determinant).astype(int)
            found.append((choice, [[Fraction(int(a), determinant) for a in row] for row in adjugate]))
    return found


def _exact_corners(limit: list[Fraction], kinks: tuple[Fraction, ...], k: int) -> list[tuple[Fraction, ...]]:
    """All points of an octahedron in which k of its planes and those of the kinks meet."""
    values = limit + [kink for kink in kinks for _ in range(k)]
    normals = [[int(c) for c in d] for d in directions(k).tolist()]
    found = set()
    for choice, inverse in _inverses(k, len(kinks)):
        point = tuple(sum((a * values[c] for a, c in zip(row, choice, strict=True)), Fraction(0)) for row in inverse)
        if point not in found and all(
            sum(a * x for a, x in zip(d, point, strict=True)) <= most for d, most in zip(normals, limit, strict=True)
        ):
            found.add(point)
    return sorted(found)


def _octahedron(random: np.random.Generator, k: int, shape: str, scale: float) -> tuple[torch.Tensor, np.ndarray]:
    """Limits (1, D) that hold a cloud of points (m, k): many planes touch the same ones, and few bound a volume."""
    count = {"point": 1, "segment": 2}.get(shape, int(random.integers(3, 9)))
    cloud = random.integers(-4, 5, size=(count, k)).astype(float)  # a grid: planes meet in the same points
    if shape in ("thin", "flat"):
        cloud[:, 1] = cloud[:, 0] + (0 if shape == "flat" else 1e-9 * random.normal(size=count))
    if shape == "smooth":
        cloud = random.normal(size=(count, k)) + random.normal(size=k)
    cloud = cloud * scale
    reach = (cloud @ directions(k).numpy().T).max(0)
    slack = random.integers(0, 2, size=reach.shape) * random.uniform(0, 3) * scale
    return torch.from_numpy(reach + slack).reshape(1, -1), cloud


SHAPES = ("point", "segment", "flat", "thin", "grid", "smooth")


@settings(max_examples=40)
@given(
    k=st.sampled_from((2, 2, 2, 3)),
    shape=st.sampled_from(SHAPES),
    scale=st.sampled_from((1e-12, 1e-4, 1.0, 1e6)),
    slope=st.sampled_from((0.0, 0.1, -1.0, 1.5)),
    seed=st.integers(0, 2**32),
)
def test_limits_hold_at_every_exact_corner_and_no_higher(k: int, shape: str, scale: float, slope: float, seed: int):
    random = np.random.default_rng(seed)
    limit, cloud = _octahedron(random, k, shape, scale)
    points = corners(limit, (0.0,), k)

    def lifted(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.clamp(min=0) + slope * x.clamp(max=0), x], -1)

    exact = _exact_corners([Fraction(v) for v in limit[0].tolist()], (Fraction(0),), k)
    # a flat octahedron is empty in exact arithmetic where its limits were rounded; the cloud is in it up to rounding
    spans = [[float(v) for v in point] for point in exact] + cloud.tolist()
    true = lifted(torch.tensor(spans, dtype=torch.float64))
    found = facets(lifted(points))
    normals = torch.cat([found[0], torch.from_numpy(random.normal(size=(20, 2 * k)))]).unsqueeze(0)
    p = limits(normals, lifted(points))[0]
    assert bool((normals[0] @ true.T <= p.unsqueeze(1)).all())
    size = normals[0].abs().sum(1) * float(limit.abs().max())
    assert bool((p - (normals[0] @ true.T).amax(1) <= LOOSE * size + 1e-30).all())


@pytest.mark.parametrize("kinks", [(), (-1.0, 1.0)])
def test_corners_lie_where_the_activation_bends(kinks: tuple[float, ...]):
    """The square [-2, 2]^2 without any diagonal: corners, and with kinks the points of a grid."""
    limit = torch.tensor([[2.0] * 4 + [4.0] * 4], dtype=torch.float64)
    found = {tuple(point) for point in corners(limit, kinks, 2)[0].round(decimals=3).add(0.0).tolist()}
    assert found == set(product((-2.0, *kinks, 2.0), repeat=2))


def test_limits_that_contradict_each_other_leave_the_box():
    limit = torch.tensor([[1.0, 1.0, 1.0, 2.0] + [-9.0] * 4, [1.0, 1.0, 1.0, 1.0] + [2.0] * 4], dtype=torch.float64)
    found = corners(limit, (0.0,), 2)[0]
    for corner in product((-1.0, 0.0, 1.0), (-2.0, 0.0, 1.0)):
        assert bool((found - torch.tensor(corner)).abs().amax(1).amin() < 1e-5)


def test_directions_are_all_signs():
    assert directions(1).tolist() == [[1.0], [-1.0]]
    for k, count in ((2, 8), (3, 26), (4, 32), (5, 30)):
        rows = directions(k).tolist()
        assert len(rows) == len({tuple(row) for row in rows}) == count
        assert torch.equal(directions(k)[: 2 * k], torch.cat([torch.eye(k), -torch.eye(k)]).double())
    with pytest.raises(ValueError, match="at most 5"):
        directions(6)


def test_kinks_of_their_own():
    """Two squares whose neurons bend in different places."""
    limit = torch.tensor([[2.0] * 4 + [4.0] * 4] * 2, dtype=torch.float64)
    kinks = torch.tensor([[-1.0, 0.5], [1.0, 1.5]], dtype=torch.float64)
    for points, (first, second) in zip(corners(limit, (kinks,), 2), kinks.tolist(), strict=True):
        found = {tuple(point) for point in points.round(decimals=3).add(0.0).tolist()}
        assert found == set(product((-2.0, first, 2.0), (-2.0, second, 2.0)))


def test_five_neurons():
    """The box [-1, 1]^5 where no sums of neighbours on the ring pass 1."""
    limit = torch.tensor([[1.0] * 10 + [1.0] * 20], dtype=torch.float64)
    x = corners(limit, (0.0,), 5)
    points = torch.cat([x.clamp(min=0), x], -1)
    normals = torch.zeros(1, 2, 10, dtype=torch.float64)
    normals[0, 0, :5] = 1  # all outputs: the inputs are 1/2 each
    normals[0, 1, 0] = normals[0, 1, 2] = 1  # no neighbours
    assert limits(normals, points)[0].tolist() == pytest.approx([2.5, 2.0], abs=1e-5)


def test_four_neurons():
    """The box [-1, 1]^4 where no two sums pass 1: limits of a few directions, against what is known of them."""
    limit = torch.tensor([[1.0] * 8 + [1.0] * 24], dtype=torch.float64)
    x = corners(limit, (0.0,), 4)
    points = torch.cat([x.clamp(min=0), x], -1)
    normals = torch.zeros(1, 3, 8, dtype=torch.float64)
    normals[0, 0, :4] = 1  # all outputs: the inputs are at most 1/2 each, or one is 1
    normals[0, 1, :2] = 1
    normals[0, 2, 4:] = torch.tensor([1.0, -1.0, 1.0, -1.0])
    assert limits(normals, points)[0].tolist() == pytest.approx([2.0, 1.0, 2.0], abs=1e-5)
