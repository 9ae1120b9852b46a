"""Solvers that fail or lie cost tightness and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bounding.lp.test_triangle_lp import _problem
from tests.laws.attacked import attacked_minimum
from tests.laws.networks import NETWORKS, case
from verifier.bounding.ascent import AscentOptions
from verifier.bounding.krelu import KReluOptions
from verifier.bounding.ladder import METHODS, LadderOptions
from verifier.bounding.lp.duals import Duals, Solver
from verifier.bounding.lp.method import k_relu_lp, solver_for, triangle_lp
from verifier.bounding.lp.network import Affine, RelaxedNetwork
from verifier.relaxations.groups import GroupOptions
from verifier.specs.region import Region

Change = Callable[[Duals, np.random.Generator], Duals | None]


def _each(duals: Duals, change: Callable[[np.ndarray], np.ndarray]) -> Duals:
    lower, upper, cuts = ({n: change(v) for n, v in side.items()} for side in (duals.lower, duals.upper, duals.cuts))
    return replace(duals, lower=lower, upper=upper, cuts=cuts, value=1e9)


def _breaks(duals: Duals, random: np.random.Generator) -> Duals | None:
    raise RuntimeError("the solver crashed")


LIES: dict[str, Change] = {
    "no answer": lambda d, r: None,
    "exception": _breaks,
    "wrong optimum": lambda d, r: replace(d, value=1e9),
    "noise": lambda d, r: _each(d, lambda v: r.normal(size=v.shape) * 10.0 ** r.integers(-3, 9)),
    "negated": lambda d, r: _each(d, lambda v: -v),
    "nan": lambda d, r: _each(d, lambda v: np.where(r.random(v.shape) < 0.5, np.nan, v)),
    "infinite": lambda d, r: _each(d, lambda v: np.full_like(v, np.inf)),
    "zero": lambda d, r: _each(d, np.zeros_like),
    "lost activations": lambda d, r: replace(d, lower={}, upper={}),
    "half the answers": lambda d, r: d if r.random() < 0.5 else None,
}


class Liar:
    """The real solver's answers, changed."""

    def __init__(self, solver: Solver, change: Change, seed: int):
        self.solver, self.change, self.random = solver, change, np.random.default_rng(seed)

    def minimise(self, row: int, deadline: float | None) -> Duals | None:
        found = self.solver.minimise(row, deadline)
        assert found is not None
        return self.change(found, self.random)


@settings(max_examples=25)
@given(name=st.sampled_from(sorted(NETWORKS)), lie=st.sampled_from(sorted(LIES)), seed=st.integers(0, 2**32))
def test_lies_are_never_bounds(name: str, lie: str, seed: int):
    one = case(name, "box", seed, batch=2, rows=2)
    problem = _problem(one)

    def make(network: RelaxedNetwork, region: Region, rows: Affine) -> Solver:
        return Liar(solver_for(network, region, rows), LIES[lie], seed)

    found = triangle_lp(problem, LadderOptions(), make=make)
    attacked = attacked_minimum(one.graph, one.region, one.C, one.generator)
    assert bool(found.lower.isfinite().all())
    assert bool((found.lower <= attacked + 1e-11).all())
    assert bool((found.lower >= METHODS["crown"](problem, LadderOptions(), None).lower - 1e-11).all())


@settings(max_examples=15)
@given(name=st.sampled_from(("mlp", "cnn", "maxpool")), lie=st.sampled_from(sorted(LIES)), seed=st.integers(0, 2**32))
def test_lies_about_cuts_are_never_bounds(name: str, lie: str, seed: int):
    one = case(name, "box", seed, batch=2, rows=2)
    problem = _problem(one)
    crown = METHODS["crown"](problem, LadderOptions(), None)
    joint = KReluOptions(GroupOptions(2, 4, 1, least_area=0.0))
    options = LadderOptions(over=crown.relaxation, joint=joint, joint_final=AscentOptions(iterations=3))

    def make(network: RelaxedNetwork, region: Region, rows: Affine) -> Solver:
        return Liar(solver_for(network, region, rows), LIES[lie], seed)

    found = k_relu_lp(problem, options, make=make)
    attacked = attacked_minimum(one.graph, one.region, one.C, one.generator)
    assert bool(found.lower.isfinite().all())
    assert bool((found.lower <= attacked + 1e-9).all())
    assert bool((found.lower >= crown.lower - 1e-11).all())


@pytest.mark.parametrize("lie", ["no answer", "exception"])
def test_without_an_answer_ascent_takes_over(lie: str):
    problem = _problem(case("mlp", "box", seed=9, radius=0.4))

    def make(network: RelaxedNetwork, region: Region, rows: Affine) -> Solver:
        return Liar(solver_for(network, region, rows), LIES[lie], 0)

    found = triangle_lp(problem, LadderOptions(), make=make)
    crown = METHODS["crown"](problem, LadderOptions(), None).lower
    best = triangle_lp(problem, LadderOptions()).lower
    assert float((found.lower - crown).max()) > 1e-3
    torch.testing.assert_close(found.lower, best, rtol=0.05, atol=0.05)
