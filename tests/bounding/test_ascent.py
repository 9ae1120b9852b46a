"""Projected gradient ascent: never worse than its start, its dual point gives its bounds, and it ends when told."""

from __future__ import annotations

from time import monotonic

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laws.networks import Case, case, cases
from tests.operators.build import Builder
from verifier.bounding.ascent import AscentOptions, ancestors, ascend
from verifier.bounding.dual import DualPoint, Objective, Relaxation, Slopes, fixed_point, lower_bound
from verifier.bounding.intermediate import IntermediateOptions, by_dual, interval_only, relax_network
from verifier.operators import place
from verifier.specs.region import Box


def _prepared(problem: Case) -> tuple[Relaxation, Objective]:
    tighten = by_dual(problem.graph, problem.region, IntermediateOptions())
    return relax_network(problem.graph, problem.region, tighten), Objective(problem.graph.output, problem.C)


@settings(max_examples=20)
@given(problem=cases(), shared=st.booleans(), steps=st.integers(0, 6))
def test_the_dual_point_gives_the_bounds(problem: Case, shared: bool, steps: int):
    relaxation, objective = _prepared(problem)
    options = AscentOptions(iterations=steps, step=0.4, shared=shared)
    bound, dual = ascend(problem.graph, problem.region, relaxation, objective, options)
    again = lower_bound(problem.graph, problem.region, relaxation, objective, dual)
    start = lower_bound(problem.graph, problem.region, relaxation, objective)
    torch.testing.assert_close(again, bound, rtol=1e-11, atol=1e-11)
    gain = bound - start
    assert bool((gain.sum(1) >= -1e-11).all()) if shared else bool((gain >= -1e-11).all())
    for pair in dual.weights.values():
        for weight in pair:
            assert weight is None or (bool(((weight >= 0) & (weight <= 1)).all()) and not weight.requires_grad)
            assert weight is None or weight.shape[1] == (1 if shared else objective.C.shape[1])


def test_own_weights_beat_shared_ones():
    problem = case("mlp", "box", seed=1, rows=3, radius=0.5)
    relaxation, objective = _prepared(problem)
    shared, own = (
        ascend(problem.graph, problem.region, relaxation, objective, AscentOptions(iterations=60, shared=s))[0]
        for s in (True, False)
    )
    assert float((own - shared).min()) >= -1e-3 and float((own - shared).max()) > 1e-3


def test_done_and_deadline_end_it():
    problem = case("mlp", "box", seed=1, radius=0.5)
    relaxation, objective = _prepared(problem)
    calls: list[torch.Tensor] = []

    def done(best: torch.Tensor) -> bool:
        calls.append(best)
        return len(calls) == 2

    ascend(problem.graph, problem.region, relaxation, objective, AscentOptions(iterations=50), done)
    assert len(calls) == 2
    late, _ = ascend(problem.graph, problem.region, relaxation, objective, AscentOptions(), deadline=monotonic() - 1)
    torch.testing.assert_close(late, lower_bound(problem.graph, problem.region, relaxation, objective))


def test_without_a_choice_there_is_nothing_to_climb():
    b = Builder(1, 3)
    b.add("linear", "x", weight=[[1.0, 2.0, -1.0]])
    graph = place(b.graph())
    region = Box(torch.zeros(1, 1, 3).double(), torch.ones(1, 1, 3).double())
    relaxation = relax_network(graph, region, interval_only)
    objective = Objective(graph.output, torch.ones(1, 1, 1, 1).double())
    bound, dual = ascend(graph, region, relaxation, objective, AscentOptions())
    assert bound.tolist() == [[-1.0]] and dual == DualPoint()


def test_only_what_lies_below_the_objective_gets_weights():
    problem = case("tangle", "box", seed=0)
    relaxation, _ = _prepared(problem)
    inner = next(node for node in problem.graph.nodes if node.op == "clip").inputs[0]
    C = torch.ones(2, 1, *problem.graph.shapes[inner]).double()
    _, dual = ascend(problem.graph, problem.region, relaxation, Objective(inner, C), AscentOptions(iterations=2))
    assert set(dual.weights) == set(relaxation.envelopes) & ancestors(problem.graph, inner)
    assert set(dual.weights) < set(relaxation.envelopes)


@pytest.mark.parametrize("slopes, weight", [("zero", 0.0), ("one", 1.0)])
def test_fixed_points_take_the_ends_of_every_family(slopes: Slopes, weight: float):
    problem = case("prelu", "box", seed=0)
    relaxation, objective = _prepared(problem)
    point = fixed_point(relaxation.envelopes, slopes)
    assert set(point.weights) == set(relaxation.envelopes)
    filled = [w for pair in point.weights.values() for w in pair if w is not None]
    assert filled and all(bool((w == weight).all()) for w in filled)
    assert fixed_point(relaxation.envelopes, "adaptive") == DualPoint()


def test_the_zero_line_of_relu_is_the_lower_line_of_slope_zero():
    """relu over [-1, 3]: the lower bound with slope 0 is 0, with slope 1 it is -1, and CROWN takes slope 1."""
    b = Builder(1, 1)
    b.relu("x")
    graph = place(b.graph())
    region = Box(torch.full((1, 1, 1), -1.0).double(), torch.full((1, 1, 1), 3.0).double())
    relaxation = relax_network(graph, region, interval_only)
    objective = Objective(graph.output, torch.tensor([[[[1.0]], [[-1.0]]]]).double())
    expectations: dict[Slopes, float] = {"zero": 0.0, "one": -1.0, "adaptive": -1.0}
    for slopes, expected in expectations.items():
        bound = lower_bound(graph, region, relaxation, objective, fixed_point(relaxation.envelopes, slopes))
        assert bound.tolist() == [[expected, -3.0]]
