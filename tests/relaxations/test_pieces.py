"""Pieces of sigmoid and tanh, and hulls made of them: they hold at points of the exact image, over any box."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.operators.activations import OPERATORS
from verifier.relaxations.hulls import facets, limits, outside
from verifier.relaxations.octahedra import corners, directions
from verifier.relaxations.pieces import Pieces
from verifier.specs.region import Box

SMOOTH = {operator.name: operator for operator in OPERATORS if operator.pieces is not None}
FUNCTIONS = {"sigmoid": torch.sigmoid, "tanh": torch.tanh}
SCALES = (0.0, 1e-300, 1e-12, 1e-4, 1.0, 7.0, 1e3, 1e12)


def _pieces(op: str, lower: torch.Tensor, upper: torch.Tensor) -> Pieces:
    pieces = SMOOTH[op].pieces
    assert pieces is not None
    return pieces(None, Box(lower, upper))  # type: ignore[arg-type]  # it knows no attributes


def test_smooth_activations_have_pieces():
    assert set(SMOOTH) == set(FUNCTIONS)


@settings(max_examples=60)
@given(
    op=st.sampled_from(sorted(FUNCTIONS)),
    scale=st.sampled_from(SCALES),
    width=st.sampled_from(SCALES),
    seed=st.integers(0, 2**32),
)
def test_the_function_lies_between_its_pieces(op: str, scale: float, width: float, seed: int):
    random = np.random.default_rng(seed)
    lower = torch.from_numpy(scale * random.normal(size=(6, 2)))
    lower[0] = -width * torch.from_numpy(random.uniform(size=2))  # zero lies inside
    lower[1] = 0.0
    upper = lower + width * torch.from_numpy(random.uniform(size=(6, 2)))
    upper[2] = lower[2]
    pieces = _pieces(op, lower, upper)
    assert bool((pieces.knots[1:] >= pieces.knots[:-1]).all())
    shares = torch.cat([torch.linspace(0, 1, 40), torch.from_numpy(random.uniform(size=20))]).double()
    x = lower.unsqueeze(2) + (upper - lower).unsqueeze(2) * shares
    x = torch.cat([torch.minimum(x, upper.unsqueeze(2)), pieces.knots.movedim(0, 2)], 2)
    low, high = pieces.at(x)
    value = FUNCTIONS[op](x)
    assert bool((low < value).all()) and bool((value < high).all())


@pytest.mark.parametrize("op", sorted(FUNCTIONS))
def test_pieces_are_continuous_and_close(op: str):
    lower, upper = torch.tensor([[-3.0, 1.0, -5.0]]).double(), torch.tensor([[2.0, 4.0, -1.0]]).double()
    pieces = _pieces(op, lower, upper)
    for knot in pieces.inner:
        around = torch.stack([knot - 1e-9, knot, knot + 1e-9], -1)
        for side in pieces.at(around):
            assert float(side.amax(-1).sub(side.amin(-1)).max()) < 1e-8
    low, high = pieces.at(lower.unsqueeze(2) + (upper - lower).unsqueeze(2) * torch.linspace(0, 1, 200).double())
    assert float((high - low).max()) < 0.2


def _cloud(random: np.random.Generator, k: int, shape: str, scale: float) -> torch.Tensor:
    """Points (m, k) that fill a body, a plane, a line or nothing."""
    cloud = random.normal(size=({"point": 1, "segment": 2}.get(shape, 40), k)) + random.normal(size=k)
    if shape in ("thin", "flat"):
        cloud[:, 1] = cloud[:, 0] + (0 if shape == "flat" else 1e-9 * random.normal(size=len(cloud)))
    return torch.from_numpy(cloud * scale)


@settings(max_examples=30)
@given(
    op=st.sampled_from(sorted(FUNCTIONS)),
    k=st.sampled_from((2, 2, 2, 3)),
    shape=st.sampled_from(("point", "segment", "flat", "thin", "body")),
    scale=st.sampled_from((1e-12, 1e-4, 1.0, 5.0, 1e6)),
    seed=st.integers(0, 2**32),
)
def test_limits_hold_on_the_exact_image(op: str, k: int, shape: str, scale: float, seed: int):
    """Of facets (pairs) and random directions, at the images of points of an octahedron."""
    random = np.random.default_rng(seed)
    cloud = _cloud(random, k, shape, scale)
    reach = (cloud @ directions(k).T).amax(0, keepdim=True)
    margin = 1e-6 * reach[:, : 2 * k].abs().amax(1, keepdim=True)
    pieces = _pieces(op, -reach[:, k : 2 * k] - margin, reach[:, :k] + margin)
    x = corners(reach, pieces.inner, k)
    sides = [side.transpose(1, 2) for side in pieces.at(x.transpose(1, 2))]
    z = [torch.stack([sides[c][..., i] for i, c in enumerate(choice)], -1) for choice in product((0, 1), repeat=k)]
    points = torch.cat([torch.cat([part, x], -1) for part in z], 1)
    mixture = torch.from_numpy(random.dirichlet(np.ones(len(cloud)), size=60)) @ cloud
    inside = torch.cat([cloud, mixture])
    image = torch.cat([FUNCTIONS[op](inside), inside], 1)
    normals = torch.from_numpy(random.normal(size=(1, 30, 2 * k)))
    if k == 2:
        normals = torch.cat([normals, facets(points)], 1)
    assert bool(((normals @ image.T).amax(2) <= limits(normals, points)).all())
    assert bool((outside(image, points.expand(len(image), -1, -1)) <= 1e-9).all())


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32), width=st.sampled_from((2, 4, 6)), scale=st.sampled_from((1e-9, 1.0, 1e6)))
def test_what_is_outside_of_a_hull(seed: int, width: int, scale: float):
    """Mixtures of points are inside; what lies beyond a face by a tenth of the cube is outside, by no more."""
    random = np.random.default_rng(seed)
    cube = scale * torch.tensor(list(product((-1.0, 1.0), repeat=width)), dtype=torch.float64)
    inside = torch.from_numpy(random.dirichlet(np.ones(len(cube)), size=5)) @ cube
    beyond = torch.from_numpy(random.uniform(-1, 1, size=(5, width))) * scale
    beyond[:, 0] = 1.1 * scale
    points = cube.expand(5, -1, -1)
    assert bool((outside(inside, points) <= 1e-9).all())
    assert bool((outside(beyond, points, steps=200) - 0.1).abs().amax() < 1e-3)
