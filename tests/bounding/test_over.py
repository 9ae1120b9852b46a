"""Methods over boxes that another method made."""

from __future__ import annotations

import pytest
import torch

from tests.laws.networks import case
from verifier import schedule
from verifier.bounding.dual import Objective
from verifier.bounding.intermediate import IntermediateOptions, by_dual, relax_network, standing
from verifier.bounding.ladder import METHODS, Bounds, LadderOptions, Problem, crown, reevaluate
from verifier.bounding.rows import Rows
from verifier.operators import place
from verifier.operators.table import OPERATORS


def problem(seed: int, dtype: torch.dtype = torch.float64) -> Problem:
    made = case("cnn", "box", seed, batch=2, rows=3)
    owner = torch.zeros(2, 3, dtype=torch.int64)
    graph = place(made.graph, dtype)
    rows = Rows(Objective(graph.output, made.C.to(dtype)), owner, (1, 1))
    return Problem(graph, made.region.to(dtype, "cpu"), rows)


@pytest.mark.parametrize("method", schedule.bounding_methods())
@pytest.mark.parametrize("seed", [0, 3])
def test_the_boxes_are_taken_and_the_evidence_can_be_evaluated_again(method: str, seed: int):
    single = problem(seed, torch.float32)
    first = crown(single, LadderOptions())
    found: Bounds = schedule.bounding(method)(single, LadderOptions(over=first.relaxation), None)
    for node in single.graph.nodes[1:]:
        if OPERATORS[node.op].envelope is not None:
            source = node.inputs[0]
            assert found.relaxation.boxes[source] is first.relaxation.boxes[source]
    again = reevaluate(problem(seed), found)
    assert torch.allclose(again.lower, found.lower.double(), atol=1e-4)


def test_no_method_is_looser_over_tighter_boxes_than_its_own():
    both = problem(1)
    tight = crown(both, LadderOptions()).relaxation
    for method in ("ibp", "crown-ibp"):
        loose = METHODS[method](both, LadderOptions(), None)
        better = METHODS[method](both, LadderOptions(over=tight), None)
        assert bool((better.lower >= loose.lower - 1e-9).all()) and bool((better.lower > loose.lower).any())


def test_standing_boxes_come_with_their_steps():
    made = problem(2)
    first = relax_network(made.graph, made.region, by_dual(made.graph, made.region, IntermediateOptions()))
    second = relax_network(made.graph, made.region, standing(first))
    assert set(second.steps) == set(first.steps) and any(second.steps.values())
    assert all(second.steps[name] is first.steps[name] for name in first.steps)


def test_the_whole_way_is_at_least_as_tight():
    """With rows that are proved at once the ascent ends at CROWN's point, unless it is to go the whole way."""
    made = problem(0)
    raised = Objective(made.rows.objective.node, made.rows.objective.C, torch.full((2, 3), 1e3, dtype=torch.float64))
    easy = Problem(made.graph, made.region, Rows(raised, made.rows.owner, made.rows.polytopes))
    options = LadderOptions()
    short, whole = (METHODS["alpha-crown"](easy, o, None).lower for o in (options, options.tightest()))
    assert bool((whole >= short - 1e-9).all()) and bool((whole > short + 1e-6).any())
