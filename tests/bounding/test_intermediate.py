"""Intermediate boxes: the same whatever the chunks, the batch or the replay, and sound when time runs out."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laws.networks import NETWORKS, Case, case, cases
from tests.operators.build import Builder
from verifier.bounding.ascent import AscentOptions
from verifier.bounding.dual import Objective, Slopes, lower_bound
from verifier.bounding.intermediate import (
    IntermediateOptions,
    by_dual,
    by_steps,
    intersect_rows,
    interval_only,
    relax_network,
    unit_rows,
)
from verifier.bounding.interval import interval_boxes
from verifier.bounding.ladder import METHODS, LadderOptions, Problem, reevaluate
from verifier.bounding.rows import Rows
from verifier.operators import place
from verifier.specs.region import Box, LpBall

TIGHT = 1e-10


def assert_same(one: Mapping[str, Box], other: Mapping[str, Box], tolerance: float = TIGHT) -> None:
    assert set(one) == set(other)
    for name, box in one.items():
        torch.testing.assert_close(box.lower, other[name].lower, rtol=tolerance, atol=tolerance, msg=name)
        torch.testing.assert_close(box.upper, other[name].upper, rtol=tolerance, atol=tolerance, msg=name)


def _tightened(problem: Case, options: IntermediateOptions, deadline: float | None = None):
    tighten = by_dual(problem.graph, problem.region, options, deadline)
    return relax_network(problem.graph, problem.region, tighten)


@settings(max_examples=20)
@given(problem=cases(), ascent=st.booleans(), slopes=st.sampled_from(["adaptive", "zero", "one"]))
def test_steps_reproduce_the_boxes(problem: Case, ascent: bool, slopes: Slopes):
    options = IntermediateOptions(slopes, AscentOptions(iterations=3) if ascent else None, chunk_bytes=2000)
    first = _tightened(problem, options)
    again = relax_network(problem.graph, problem.region, by_steps(problem.graph, problem.region, first.steps))
    assert_same(first.boxes, again.boxes)
    assert_same(
        first.boxes,
        relax_network(problem.graph, problem.region, by_steps(problem.graph, problem.region, again.steps)).boxes,
    )


@settings(max_examples=20)
@given(problem=cases(), ascent=st.booleans())
def test_chunks_do_not_change_the_boxes(problem: Case, ascent: bool):
    ways = AscentOptions(iterations=3, patience=100) if ascent else None
    whole = _tightened(problem, IntermediateOptions(ascent=ways, chunk_bytes=1 << 30))
    single = _tightened(problem, IntermediateOptions(ascent=ways, chunk_bytes=1))
    assert_same(whole.boxes, single.boxes, 1e-9)
    for name, steps in single.steps.items():
        assert all(rows.shape[1] == 1 for rows, _ in steps), name


@settings(max_examples=20)
@given(problem=cases(), slopes=st.sampled_from(["adaptive", "zero", "one"]))
def test_a_batch_is_its_elements_one_by_one(problem: Case, slopes: Slopes):
    """A batch tightens as many entries of each element as the neediest asks for: never fewer than an element alone."""
    objective = Objective(problem.graph.output, problem.C)
    together = _tightened(problem, IntermediateOptions(slopes))
    flat = relax_network(problem.graph, problem.region, interval_only)
    crown_ibp = lower_bound(problem.graph, problem.region, flat, objective)
    for i in range(problem.region.batch):
        region = problem.region.select(torch.tensor([i]))
        own = Objective(problem.graph.output, problem.C[i : i + 1])
        alone = relax_network(problem.graph, region, interval_only)
        bound = lower_bound(problem.graph, region, alone, own)
        torch.testing.assert_close(bound[0], crown_ibp[i], rtol=TIGHT, atol=TIGHT)
        tight = relax_network(problem.graph, region, by_dual(problem.graph, region, IntermediateOptions(slopes)))
        first = next(name for name, steps in tight.steps.items())
        for name in (problem.graph.input, first):  # later boxes rest on lines, which need not improve with boxes
            assert bool((together.boxes[name].lower[i] >= tight.boxes[name].lower[0] - TIGHT).all()), name
            assert bool((together.boxes[name].upper[i] <= tight.boxes[name].upper[0] + TIGHT).all()), name


def test_elements_alike_are_bounded_alike():
    """Where all elements of a batch ask for the same entries, each gets the bounds it would get alone."""
    problem = case("residual", "l2", seed=2, batch=1)
    alone = _tightened(problem, IntermediateOptions())
    region = problem.region.select(torch.tensor([0, 0, 0]))
    together = relax_network(problem.graph, region, by_dual(problem.graph, region, IntermediateOptions()))
    for name, box in alone.boxes.items():
        torch.testing.assert_close(together.boxes[name].lower, box.lower.expand(3, *box.lower.shape[1:]))
        torch.testing.assert_close(together.boxes[name].upper, box.upper.expand(3, *box.upper.shape[1:]))


@pytest.mark.parametrize("name", NETWORKS)
def test_rows_shared_by_a_batch_equal_rows_of_each(name: str):
    problem = case(name, "box", seed=5, radius=0.2)
    relaxation = _tightened(problem, IntermediateOptions())
    shared, repeated = problem.C[:1], problem.C[:1].expand_as(problem.C)
    output = problem.graph.output
    for found in (relaxation, relax_network(problem.graph, problem.region, interval_only)):
        torch.testing.assert_close(
            lower_bound(problem.graph, problem.region, found, Objective(output, shared)),
            lower_bound(problem.graph, problem.region, found, Objective(output, repeated)),
            rtol=TIGHT,
            atol=TIGHT,
        )


@pytest.mark.parametrize("name", NETWORKS)
def test_after_the_deadline_intervals_stand(name: str):
    problem = case(name, "l2", seed=2)
    found = _tightened(problem, IntermediateOptions(ascent=AscentOptions()), deadline=monotonic() - 1)
    assert_same(found.boxes, interval_boxes(problem.graph, problem.region), 0.0)
    assert not any(found.steps.values())
    assert set(found.envelopes) == set(relax_network(problem.graph, problem.region, interval_only).envelopes)


def test_nothing_wanted_is_nothing_done():
    """All neurons stable: there is no row to bound."""
    b = Builder(1, 2)
    hidden = b.relu(b.add("linear", "x", weight=[[1.0, 1.0], [1.0, -1.0]], bias=[5.0, 5.0]))
    b.relu(b.add("linear", hidden, weight=[[1.0, 1.0]], bias=[50.0]))
    graph = place(b.graph())
    region = Box(torch.zeros(2, 1, 2).double(), torch.ones(2, 1, 2).double())
    found = relax_network(graph, region, by_dual(graph, region, IntermediateOptions(ascent=AscentOptions())))
    assert not any(found.steps.values())
    objective = Objective(graph.output, torch.ones(1, 1, 1, 1).double())
    # the sum 60 + 2 x0 is exact on lines, 59 on intervals
    assert lower_bound(graph, region, found, objective).tolist() == [[60.0], [60.0]]


def test_an_activation_of_the_input_itself():
    """relu(x0) - relu(x1) over the ball |x0| + |x1| <= 1: the lines leave 1/2 x0 - 1/2 x1 - 1/2 >= -1, exactly."""
    b = Builder(1, 2)
    b.add("linear", b.relu("x"), weight=[[1.0, -1.0]])
    graph = place(b.graph())
    ball = LpBall.checked(torch.zeros(1, 1, 2).double(), torch.ones(1).double(), None, 1)
    found = relax_network(graph, ball, by_dual(graph, ball, IntermediateOptions()))
    assert float(found.boxes["x"].lower.min()) == -1.0 and float(found.boxes["x"].upper.max()) == 1.0
    bound = lower_bound(graph, ball, found, Objective(graph.output, torch.ones(1, 1, 1, 1).double()))
    assert float(bound) == pytest.approx(-1.0, abs=1e-12)


def test_unit_rows_are_entries_and_their_negatives():
    b = Builder(2, 2)
    graph = b.graph("x")
    rows = unit_rows(graph, "x", torch.tensor([[3, 0], [1, 2]]), torch.float64)
    assert rows.C.shape == (2, 4, 2, 2)
    assert rows.C.flatten(2).argmax(2)[:, :2].tolist() == [[3, 0], [1, 2]]
    assert torch.equal(rows.C[:, :2], -rows.C[:, 2:]) and float(rows.C.abs().sum()) == 8.0


def test_two_activations_of_one_value_share_its_box():
    """What either of them wants is tightened: here the relu is stable and the sigmoid never is."""
    b = Builder(1, 2)
    first = b.relu(b.add("linear", "x", weight=[[1.0, 1.0], [1.0, -1.0]]))
    hidden = b.add("linear", first, weight=[[1.0, -1.0], [1.0, 1.0]], bias=[9.0, 9.0])
    b.add("add", b.relu(hidden), b.add("sigmoid", hidden))
    graph = place(b.graph())
    region = Box(-torch.ones(1, 1, 2).double(), torch.ones(1, 1, 2).double())
    found = relax_network(graph, region, by_dual(graph, region, IntermediateOptions()))
    ((rows, _),) = found.steps[hidden]
    assert len(found.envelopes) == 3 and sorted(rows.flatten().tolist()) == [0, 1]


@pytest.mark.parametrize("name", ["mlp", "cnn", "residual", "sigmoid"])
@pytest.mark.parametrize("method", ["alpha-crown", "k-relu"])
def test_what_is_known_is_built_upon(name: str, method: str):
    """A rung that begins from the boxes of another never has a looser box than that one, and can prove its own."""
    one = case(name, "box", seed=3, batch=2)
    C = one.C.expand(2, *one.C.shape[1:])
    rows = Rows(
        Objective(one.graph.output, C, torch.zeros(C.shape[:2], dtype=C.dtype)), torch.zeros(C.shape[:2]).long(), (1, 1)
    )
    before = METHODS["crown"](Problem(one.graph, one.region, rows), LadderOptions(), None)
    after = METHODS[method](Problem(one.graph, one.region, rows, before.relaxation), LadderOptions(), None)
    for source, steps in before.relaxation.steps.items():
        old, new = before.relaxation.boxes[source], after.relaxation.boxes[source]
        assert bool((new.lower >= old.lower).all()) and bool((new.upper <= old.upper).all())
        assert after.relaxation.steps[source][: len(steps)] == steps
    again = reevaluate(Problem(one.graph, one.region, rows), after)
    assert bool((again.lower >= after.lower - 1e-6 * (1 + after.lower.abs())).all())


def test_bounds_that_overflowed_say_nothing():
    """A box that is not a number would pass for one above zero."""
    box = Box(torch.tensor([[-1.0, -2.0, -3.0]]), torch.tensor([[1.0, 2.0, 3.0]]))
    bound = torch.tensor([[torch.nan, torch.inf, -0.5, torch.inf, torch.nan, -torch.inf]])
    cut = intersect_rows(box, torch.tensor([[0, 1, 2]]), bound)
    assert (cut.lower.tolist(), cut.upper.tolist()) == ([[-1.0, -2.0, -0.5]], [[1.0, 2.0, 3.0]])
