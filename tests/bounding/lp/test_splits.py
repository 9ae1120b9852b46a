"""Programs of subproblems: warm or fresh alike, duality with splits, and emptiness that the dual function confirms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.laws.networks import PIECEWISE, case
from tests.operators.build import Builder
from tests.search.cases import first_output_below, least_first_output, network, problem
from verifier.bounding.dual import Objective, Relaxation, Split, lower_bound
from verifier.bounding.intermediate import IntermediateOptions, by_dual, interval_only, relax_network
from verifier.bounding.ladder import LadderOptions, crown
from verifier.bounding.lp.duals import Duals, Empty
from verifier.bounding.lp.mip import candidate
from verifier.bounding.lp.network import objective_rows, relaxed_network
from verifier.bounding.lp.program import Program, program
from verifier.bounding.lp.splits import SplitModel, combination, split_point
from verifier.graph.ir import Graph
from verifier.operators import OPERATORS, evaluate, place
from verifier.specs.region import Box, Region

SOLVER = 1e-6


def _program(graph: Graph, box: Box, relaxation: Relaxation, objective: Objective) -> Program:
    return program(relaxed_network(graph, relaxation, graph.output), box, objective_rows(graph, objective))


def _split(graph: Graph, relaxation: Relaxation, signs: dict[str, torch.Tensor]) -> Relaxation:
    """A subproblem: some pre-activations confined to one side of zero."""
    boxes, envelopes = dict(relaxation.boxes), dict(relaxation.envelopes)
    for name, sign in signs.items():
        box = boxes[name]
        boxes[name] = Box(
            torch.where(sign > 0, box.lower.clamp(min=0), box.lower),
            torch.where(sign < 0, box.upper.clamp(max=0), box.upper),
        )
        for node in graph.nodes:
            if name in node.inputs and node.name in envelopes:
                envelopes[node.name] = OPERATORS[node.op].envelope(node, boxes[name])  # type: ignore[misc]
    return Relaxation(boxes, envelopes, splits={name: Split(sign) for name, sign in signs.items()})


def _proved(graph: Graph, region: Region, relaxation: Relaxation, objective: Objective, found: Duals) -> float:
    point = split_point(relaxation, found)
    return float(lower_bound(graph, region, relaxation, combination(objective, found), point))


@pytest.mark.parametrize("name", [*PIECEWISE, "cnn", "residual", "maxpool"])
def test_duality_holds_in_every_subproblem_of_one_warm_model(name: str):
    one = case(name, "box", seed=7, batch=1, rows=2, radius=0.6)
    graph, box = one.graph, one.region.enclosing_box()
    relaxation = relax_network(graph, box, by_dual(graph, box, IntermediateOptions()))
    objective = Objective(graph.output, one.C)
    warm = SplitModel(_program(graph, box, relaxation, objective))
    random = np.random.default_rng(0)
    answers = []
    for _ in range(12):
        signs = {}
        for node in graph.nodes:
            if node.op == "relu":
                ends = relaxation.boxes[node.inputs[0]]
                sign = torch.as_tensor(random.integers(-1, 2, size=tuple(ends.lower.shape))).double()
                signs[node.inputs[0]] = sign * ((ends.lower < 0) & (ends.upper > 0)) * (random.random() < 0.7)
        split = _split(graph, relaxation, signs)
        found = warm.bound(split, None)
        assert found is not None
        proved = _proved(graph, box, split, objective, found)
        answers.append(type(found))
        if isinstance(found, Empty):
            assert proved > 0
        else:
            assert proved == pytest.approx(found.value, abs=SOLVER * (1 + abs(found.value)))
    assert Duals in answers


def test_splits_that_contradict_each_other_are_proved_empty():
    """x - 1/2 >= 0 and -x - 1/4 >= 0 over x in [-1, 1]."""
    b = Builder(1, 1)
    hidden = b.add("linear", "x", weight=[[1.0], [-1.0]], bias=[-0.5, -0.25])
    b.add("linear", b.relu(hidden), weight=[[1.0, 1.0]])
    graph = place(b.graph())
    box = Box(-torch.ones(1, 1, 1).double(), torch.ones(1, 1, 1).double())
    relaxation = relax_network(graph, box, interval_only)
    objective = Objective(graph.output, torch.ones(1, 1, 1, 1).double(), torch.full((1, 1), -9.0).double())
    model = SplitModel(_program(graph, box, relaxation, objective))
    split = _split(graph, relaxation, {hidden: torch.ones(1, 1, 2).double()})
    found = model.bound(split, None)
    assert isinstance(found, Empty)
    assert _proved(graph, box, split, objective, found) > 0.1
    whole = model.bound(relaxation, None)
    assert whole is not None and not isinstance(whole, Empty)
    assert whole.value == pytest.approx(-9.0)


@pytest.mark.parametrize("name", PIECEWISE)
@pytest.mark.parametrize("seed", range(3))
def test_the_integer_programs_candidate_is_one_where_there_is_one(name: str, seed: int):
    graph, box = network(name, seed, radius=0.6)
    level = least_first_output(graph, box)
    for gap in (-0.01, 0.01):
        posed = problem(graph, box, first_output_below(graph, level + gap))
        relaxation = crown(posed, LadderOptions()).relaxation
        point = candidate(_program(posed.graph, box, relaxation, posed.rows.objective), relaxation, None)
        assert (point is None) == (gap < 0)
        if point is not None:
            x = torch.as_tensor(point).reshape(box.lower.shape)
            assert float(evaluate(posed.graph, x).flatten()[0]) <= level + gap
