"""Cuts as rows of programs: duality with the dual function, both models alike, and only few of them are added."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.laws.networks import Case, case
from verifier.bounding.ascent import AscentOptions, ascend
from verifier.bounding.dual import Objective, Relaxation, lower_bound
from verifier.bounding.intermediate import IntermediateOptions, by_dual, relax_network
from verifier.bounding.krelu import KReluOptions, join_groups
from verifier.bounding.lp.duals import Duals, Solver, dual_point
from verifier.bounding.lp.highs import HighsModel
from verifier.bounding.lp.model import ConvexModel
from verifier.bounding.lp.network import objective_rows, one_element, relaxed_network
from verifier.bounding.lp.program import program
from verifier.relaxations.groups import GroupOptions
from verifier.specs.region import Box

SOLVER = 1e-6
GROUPS = KReluOptions(GroupOptions(2, 20, 1, least_area=0.0), smooth=True)


def _relaxed(problem: Case) -> Relaxation:
    graph, region = problem.graph, problem.region
    return relax_network(
        graph, region, by_dual(graph, region, IntermediateOptions()), join_groups(graph, region, GROUPS)
    )


def _solve(problem: Case, solver: Solver) -> list[Duals]:
    found = [solver.minimise(s, None) for s in range(problem.C.shape[1])]
    assert all(one is not None for one in found)
    return [one for one in found if one is not None]


@pytest.mark.parametrize("name", ["leaky", "cnn", "residual"])
def test_duality_holds_with_cuts(name: str):
    """The optimum is the dual function's at the program's dual point: above the triangles' and above ascent."""
    problem = case(name, "box", seed=3, batch=1, rows=3, radius=0.8)
    graph, region, objective = problem.graph, problem.region, Objective(problem.graph.output, problem.C)
    relaxation = _relaxed(problem)
    one, rows = one_element(graph, relaxation, 0), objective_rows(graph, objective)
    network = relaxed_network(graph, one, graph.output)
    assert isinstance(region, Box) and network.cuts
    made = program(network, region)
    found = _solve(problem, HighsModel(made, rows))
    optimum = torch.tensor([answer.value for answer in found], dtype=torch.float64)
    proved = lower_bound(graph, region, relaxation, objective, dual_point(one, found))[0]
    assert bool(((proved - optimum).abs() <= SOLVER * (1 + optimum.abs())).all()), (proved, optimum)
    alone = relaxed_network(graph, Relaxation(one.boxes, one.envelopes), graph.output)
    triangles = [answer.value for answer in _solve(problem, HighsModel(program(alone, region), rows))]
    assert float((optimum - torch.tensor(triangles, dtype=torch.float64)).max()) > 1e-3
    climbed, _ = ascend(graph, region, relaxation, objective, AscentOptions(iterations=40, cut_step=0.5))
    assert bool((climbed[0] <= optimum + SOLVER * (1 + optimum.abs())).all())


@pytest.mark.parametrize("kind", ["box", "l2"])
@pytest.mark.parametrize("name", ["cnn", "sigmoid"])
def test_the_readable_model_agrees(name: str, kind: str):
    problem = case(name, kind, seed=3, batch=1, rows=2, radius=0.8)
    graph, region, objective = problem.graph, problem.region, Objective(problem.graph.output, problem.C)
    relaxation = _relaxed(problem)
    one, rows = one_element(graph, relaxation, 0), objective_rows(graph, objective)
    network = relaxed_network(graph, one, graph.output)
    found = _solve(problem, ConvexModel(network, region, rows))
    optimum = np.array([answer.value for answer in found])
    assert any(answer.cuts[name].any() for answer in found for name in answer.cuts)
    if kind == "box":
        assert isinstance(region, Box)
        others = _solve(problem, HighsModel(program(network, region), rows))
        np.testing.assert_allclose([answer.value for answer in others], optimum, atol=SOLVER)
    proved = lower_bound(graph, region, relaxation, objective, dual_point(one, found))[0].numpy()
    assert np.all(proved >= optimum - 1e-5 * (1 + np.abs(optimum)))


def test_only_violated_cuts_become_rows():
    problem = case("cnn", "box", seed=3, batch=1, rows=1, radius=0.8)
    graph, region = problem.graph, problem.region
    one = one_element(graph, _relaxed(problem), 0)
    assert isinstance(region, Box)
    made = program(relaxed_network(graph, one, graph.output), region)
    model = HighsModel(made, objective_rows(graph, Objective(graph.output, problem.C)))
    assert model.minimise(0, None) is not None
    rows = model._model.highs.getNumRow() - len(made.row_lower)
    assert 0 < rows < len(made.cuts[1]) / 2
