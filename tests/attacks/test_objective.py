from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verifier.attacks.objective import Objective, margin
from verifier.specs.property import Polytope, Property
from verifier.specs.region import Box

UNIT = Box(torch.zeros(1, 1, 2, dtype=torch.float64), torch.ones(1, 1, 2, dtype=torch.float64))


def random_property(generator: np.random.Generator, outputs: int) -> Property:
    """One to three polytopes of one to three rows."""
    rows = generator.integers(1, 4, size=generator.integers(1, 4))
    return Property(UNIT, tuple(Polytope(generator.normal(size=(r, outputs)), generator.normal(size=r)) for r in rows))


@given(st.integers(0, 10**6))
def test_padding_changes_no_margin(seed):
    generator = np.random.default_rng(seed)
    properties = [random_property(generator, 3) for _ in range(3)]
    y = generator.normal(size=(5, 3, 1, 3))
    rows = Objective.of(properties).rows(torch.from_numpy(y))
    expected = [[margin(prop, y[r, p]) for p, prop in enumerate(properties)] for r in range(5)]
    assert Objective.margins(rows).numpy() == pytest.approx(np.array(expected), rel=1e-12)


@given(st.integers(0, 10**6))
def test_margin_agrees_with_membership(seed):
    generator = np.random.default_rng(seed)
    prop, y = random_property(generator, 2), generator.normal(size=2)
    assert (margin(prop, y) <= 0) == any(polytope.contains(y) for polytope in prop.unsafe)


@given(st.integers(0, 10**6))
def test_hinge_vanishes_where_the_target_is_reached(seed):
    generator = np.random.default_rng(seed)
    prop = random_property(generator, 3)
    rows = Objective.of([prop]).rows(torch.from_numpy(generator.normal(size=(4, 1, 3))))
    for k, polytope in enumerate(prop.unsafe):
        target = torch.full((4, 1), k)
        hinge = Objective.hinge(rows, target, torch.zeros(1, dtype=torch.float64))
        real = rows[:, :, k, : len(polytope.d)]
        assert torch.equal(hinge, real.clamp(min=0).sum(-1))
        assert torch.equal(hinge == 0, (real <= 0).all(-1))


def test_minus_one_aims_at_the_nearest_polytope():
    polytopes = tuple(Polytope(np.array([[1.0]]), np.array([d])) for d in (-3.0, -1.0, -2.0))
    objective = Objective.of([Property(UNIT, polytopes)])
    rows = objective.rows(torch.zeros(1, 1, 1, dtype=torch.float64))
    hinge = Objective.hinge(rows, torch.tensor([[-1]]), torch.tensor([0.5], dtype=torch.float64))
    assert hinge.item() == 1.5


def test_boundary_counts_as_violated():
    prop = Property(UNIT, (Polytope(np.array([[1.0]]), np.array([2.0])),))
    assert margin(prop, np.array([2.0])) == 0
    assert margin(prop, np.array([2.5])) == 0.5


def test_inner_bounds_count():
    prop = Property(UNIT, (Polytope(np.array([[1.0]]), np.array([2.0]), np.array([1.0])),))
    assert margin(prop, np.array([2.0])) == 1
    assert Objective.of([prop]).d.item() == 1
