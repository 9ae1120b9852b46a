"""The rungs: each sound, in order, reproducible from its evidence, and sure of itself by no more than rounding."""

from __future__ import annotations

from time import monotonic

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laws.attacked import attacked_minimum
from tests.laws.networks import NETWORKS, case, region
from tests.operators.build import Builder
from verifier.bounding.ladder import (
    METHODS,
    LadderOptions,
    Problem,
    allowance,
    alpha_fixed,
    reevaluate,
)
from verifier.bounding.rows import stack_rows
from verifier.graph.ir import Graph
from verifier.operators import evaluate, place
from verifier.specs.property import Polytope, Property
from verifier.specs.region import Box, Region

RUNGS = {**METHODS, "alpha-fixed": alpha_fixed}
SLACK = 1e-11


def _problem(graph: Graph, inputs: Region, properties: list[Property], dtype: torch.dtype = torch.float64) -> Problem:
    return Problem(place(graph, dtype), inputs.to(dtype, "cpu"), stack_rows(graph, properties, dtype, "cpu"))


def _drawn(name: str, kind: str, seed: int, dtype: torch.dtype = torch.float64) -> Problem:
    """Two properties of one and of two polytopes."""
    random = np.random.default_rng(seed)
    graph = NETWORKS[name](random)
    inputs = region(kind, graph.input_shape, 2, random)
    size = int(np.prod(graph.output_shape))

    def polytope(rows: int) -> Polytope:
        return Polytope(random.normal(size=(rows, size)), random.normal(size=rows))

    properties = [
        Property(inputs.select(torch.tensor([0])), (polytope(1),)),
        Property(inputs.select(torch.tensor([1])), (polytope(2), polytope(1))),
    ]
    return _problem(graph, inputs, properties, dtype)


PROBLEMS = {
    "name": st.sampled_from(tuple(NETWORKS)),
    "kind": st.sampled_from(("box", "l2", "l1")),
    "seed": st.integers(0, 2**32),
}


@settings(max_examples=25)
@given(**PROBLEMS)
def test_rungs_are_sound_and_in_order(name: str, kind: str, seed: int):
    problem = _drawn(name, kind, seed)
    objective = problem.rows.objective
    assert objective.offset is not None
    found = {method: rung(problem, LadderOptions(), None) for method, rung in RUNGS.items()}
    generator = torch.Generator().manual_seed(seed)
    attacked = attacked_minimum(problem.graph, problem.region, objective.C, generator) + objective.offset
    for method, bounds in found.items():
        assert bool((bounds.lower <= attacked + SLACK).all()), method
    assert bool((found["ibp"].lower <= found["crown-ibp"].lower + SLACK).all())
    assert bool((found["ibp"].lower <= found["crown"].lower + SLACK).all())
    assert bool((found["crown"].lower <= found["alpha-fixed"].lower + SLACK).all())
    assert bool(found["ibp"].by_interval.all())


@settings(max_examples=15)
@given(**PROBLEMS, method=st.sampled_from(tuple(RUNGS)))
def test_evidence_gives_the_same_bounds_again(name: str, kind: str, seed: int, method: str):
    problem = _drawn(name, kind, seed)
    found = RUNGS[method](problem, LadderOptions(), None)
    again = reevaluate(problem, found)
    torch.testing.assert_close(again.lower, found.lower, rtol=1e-9, atol=1e-9)


@settings(max_examples=25)
@given(**PROBLEMS, method=st.sampled_from(tuple(RUNGS)))
def test_float32_is_off_by_less_than_its_allowance(name: str, kind: str, seed: int, method: str):
    """What a float32 bound claims beyond its allowance, float64 confirms at the same dual points."""
    single, double = (_drawn(name, kind, seed, dtype) for dtype in (torch.float32, torch.float64))
    found = RUNGS[method](single, LadderOptions(), None)
    again = reevaluate(double, found)
    claimed = (found.lower - allowance(single, found)).double()
    torch.testing.assert_close(again.lower, found.lower.double(), rtol=1e-3, atol=1e-3)
    assert bool((claimed <= again.lower).all())
    objective = double.rows.objective
    assert objective.offset is not None
    generator = torch.Generator().manual_seed(seed)
    attacked = attacked_minimum(double.graph, double.region, objective.C, generator) + objective.offset
    assert bool((again.lower <= attacked + SLACK).all())
    assert bool((claimed <= attacked).all())


@pytest.mark.parametrize("method", RUNGS)
def test_after_the_deadline_bounds_are_still_bounds(method: str):
    problem = _drawn("residual", "box", 3)
    late = RUNGS[method](problem, LadderOptions(), monotonic() - 1)
    generator = torch.Generator().manual_seed(0)
    objective = problem.rows.objective
    assert objective.offset is not None
    attacked = attacked_minimum(problem.graph, problem.region, objective.C, generator) + objective.offset
    assert bool(late.lower.isfinite().all())
    assert bool((late.lower <= attacked + SLACK).all())


def test_a_selected_problem_has_the_bounds_of_its_part():
    problem = _drawn("cnn", "l2", 1)
    second = problem.select(torch.tensor([1]))
    whole, part = (METHODS["crown-ibp"](p, LadderOptions(), None).lower for p in (problem, second))
    torch.testing.assert_close(part[0], whole[1], rtol=1e-12, atol=1e-12)


def test_the_allowance_grows_with_the_terms():
    """The same network far from the origin: larger terms, larger allowance, in proportion."""
    single = case("mlp", "box", 4)
    properties = [
        Property(single.region.select(torch.tensor([i])), (Polytope(np.ones((1, 4)), np.zeros(1)),)) for i in (0, 1)
    ]
    plain = _problem(single.graph, single.region, properties)
    box = single.region.enclosing_box()
    far = _problem(single.graph, type(box)(box.lower + 1e6, box.upper + 1e6), properties)
    small, large = (allowance(p, METHODS["crown"](p, LadderOptions(), None)) for p in (plain, far))
    assert bool((small > 0).all()) and bool((large > 1e4 * small).all())


@pytest.mark.parametrize("behind_a_relu", [False, True])
@pytest.mark.parametrize("method", ["ibp", "crown", "alpha-crown"])
def test_cancellation_is_allowed_for(method: str, behind_a_relu: bool):
    """Terms of size 1e5 that cancel leave a value without correct digits in float32: nothing may be claimed of it.

    With `behind_a_relu` the damage is in the box of a neuron, and only through it in the bound.
    """
    wrong = 0
    for seed in range(30):
        random = np.random.default_rng(seed)
        b = Builder(1, 4)
        bias = (1e5 * (1 + random.random(32))).astype(np.float32).astype(float)
        weight = random.normal(size=(1, 32)).astype(np.float32).astype(float)
        weight[0, -1] = np.float32(-(weight[0, :-1] @ bias[:-1]) / bias[-1])
        hidden = b.relu(b.add("linear", "x", weight=np.zeros((32, 4)), bias=bias))
        value = b.add("linear", hidden, weight=weight)
        if behind_a_relu:
            value = b.add("linear", b.relu(value), weight=[[1.0]], bias=[-1e-4])
        graph = b.graph()
        box = Box(torch.zeros(1, 1, 4).double(), torch.ones(1, 1, 4).double())
        exact = float(evaluate(place(graph), box.lower))
        problem = _problem(graph, box, [Property(box, (Polytope(np.ones((1, 1)), np.zeros(1)),))], torch.float32)
        found = METHODS[method](problem, LadderOptions(), None)
        claimed = float(found.lower - allowance(problem, found))
        assert claimed <= exact, seed
        wrong += float(found.lower) > exact
    assert wrong > 5  # the bound itself is often wrong: the allowance is what saves the verdict
