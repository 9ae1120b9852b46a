"""Triangle programs: duality with the dual function, both models alike, and order among the methods."""

from __future__ import annotations

from pathlib import Path
from time import monotonic

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import verifier
from tests.laws.attacked import attacked_minimum
from tests.laws.networks import NETWORKS, PIECEWISE, Case, case
from verifier.bounding.ascent import AscentOptions, ascend
from verifier.bounding.dual import Objective, Relaxation, lower_bound
from verifier.bounding.intermediate import IntermediateOptions, by_dual, relax_network
from verifier.bounding.ladder import METHODS, LadderOptions, Problem, reevaluate
from verifier.bounding.lp.duals import Duals, dual_point
from verifier.bounding.lp.highs import HighsModel
from verifier.bounding.lp.method import triangle_lp
from verifier.bounding.lp.model import ConvexModel
from verifier.bounding.lp.network import objective_rows, relaxed_network
from verifier.bounding.lp.program import program
from verifier.bounding.rows import Rows, stack_rows
from verifier.operators import place
from verifier.specs.region import Box
from verifier.specs.robustness import resolve

#: HiGHS meets constraints to 1e-7
SOLVER = 1e-6
#: networks whose activations are mixtures of two lines, so that the program and the dual function have one optimum
MIXTURES = [*PIECEWISE, "clip", "cnn", "grouped", "residual", "maxpool", "average pool", "upsampling"]


def _relaxed(problem: Case) -> Relaxation:
    tighten = by_dual(problem.graph, problem.region, IntermediateOptions())
    return relax_network(problem.graph, problem.region, tighten)


def _solve(problem: Case, relaxation: Relaxation, convex: bool) -> list[Duals]:
    """Every row of a case of batch size 1."""
    network = relaxed_network(problem.graph, relaxation, problem.graph.output)
    rows = objective_rows(problem.graph, Objective(problem.graph.output, problem.C))
    if convex:
        solver = ConvexModel(network, problem.region, rows)
    else:
        assert isinstance(problem.region, Box)
        solver = HighsModel(program(network, problem.region), rows)
    found = [solver.minimise(s, None) for s in range(problem.C.shape[1])]
    assert all(one is not None for one in found)
    return [one for one in found if one is not None]


def _proved(problem: Case, relaxation: Relaxation, found: list[Duals]) -> torch.Tensor:
    objective = Objective(problem.graph.output, problem.C)
    return lower_bound(problem.graph, problem.region, relaxation, objective, dual_point(relaxation, found))[0]


@pytest.mark.parametrize("name", MIXTURES)
def test_the_programs_optimum_is_the_dual_functions(name: str):
    problem = case(name, "box", seed=7, batch=1, rows=3, radius=0.3)
    relaxation = _relaxed(problem)
    found = _solve(problem, relaxation, convex=False)
    optimum = torch.tensor([one.value for one in found], dtype=torch.float64)
    proved = _proved(problem, relaxation, found)
    assert bool(((proved - optimum).abs() <= SOLVER * (1 + optimum.abs())).all()), (proved, optimum)
    objective = Objective(problem.graph.output, problem.C)
    climbed, _ = ascend(problem.graph, problem.region, relaxation, objective, AscentOptions(200, 0.1, 0.97, False, 200))
    assert bool((climbed[0] <= optimum + SOLVER * (1 + optimum.abs())).all())
    assert bool((climbed[0] >= optimum - 1e-4 * (1 + optimum.abs())).all()), (climbed, optimum)


@settings(max_examples=25)
@given(name=st.sampled_from(MIXTURES), seed=st.integers(0, 2**32))
def test_duality_on_random_networks(name: str, seed: int):
    problem = case(name, "box", seed, batch=1, rows=2)
    relaxation = _relaxed(problem)
    found = _solve(problem, relaxation, convex=False)
    optimum = torch.tensor([one.value for one in found], dtype=torch.float64)
    proved = _proved(problem, relaxation, found)
    assert bool(((proved - optimum).abs() <= SOLVER * (1 + optimum.abs())).all()), (proved, optimum)


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "tangle"])
def test_tangents_between_those_of_the_program_only_gain(name: str):
    problem = case(name, "box", seed=7, batch=1, rows=3, radius=0.5)
    relaxation = _relaxed(problem)
    found = _solve(problem, relaxation, convex=False)
    optimum = torch.tensor([one.value for one in found], dtype=torch.float64)
    crown = lower_bound(problem.graph, problem.region, relaxation, Objective(problem.graph.output, problem.C))[0]
    proved = _proved(problem, relaxation, found)
    assert bool((proved >= optimum - SOLVER * (1 + optimum.abs())).all()), (proved, optimum)
    assert bool((proved >= crown - SOLVER).all()) and float((proved - crown).max()) > 1e-4


@pytest.mark.parametrize("kind", ["box", "l1", "l2"])
@pytest.mark.parametrize("name", ["mlp", "residual", "tangle"])
def test_the_readable_model_agrees(name: str, kind: str):
    problem = case(name, kind, seed=5, batch=1, rows=2, radius=0.3)
    relaxation = _relaxed(problem)
    found = _solve(problem, relaxation, convex=True)
    optimum = np.array([one.value for one in found])
    if kind == "box":
        np.testing.assert_allclose([one.value for one in _solve(problem, relaxation, False)], optimum, atol=SOLVER)
    proved = _proved(problem, relaxation, found).numpy()
    assert np.all(proved >= optimum - 1e-5 * (1 + np.abs(optimum))), (proved, optimum)
    if name != "tangle":
        assert np.all(proved <= optimum + 1e-5 * (1 + np.abs(optimum))), (proved, optimum)


def _problem(one: Case) -> Problem:
    batch, rows = one.C.shape[:2]
    owner = torch.arange(rows).repeat(batch, 1)
    objective = Objective(one.graph.output, one.C, torch.zeros(batch, rows, dtype=torch.float64))
    return Problem(one.graph, one.region, Rows(objective, owner, (rows,) * batch))


@pytest.mark.parametrize("kind", ["box", "l1", "l2"])
@pytest.mark.parametrize("name", ["mlp", "cnn", "tangle"])
def test_between_crown_and_the_attack(name: str, kind: str):
    one = case(name, kind, seed=9, batch=2, rows=2, radius=0.4)
    problem = _problem(one)
    found = triangle_lp(problem, LadderOptions())
    crown = METHODS["crown"](problem, LadderOptions(), None)
    climbed = METHODS["alpha-crown"](problem, LadderOptions(), None)
    assert bool((found.lower >= crown.lower - 1e-11).all()) and float((found.lower - crown.lower).max()) > 1e-4
    attacked = attacked_minimum(one.graph, one.region, one.C, one.generator)
    assert bool((found.lower <= attacked + 1e-11).all())
    assert climbed.lower.shape == found.lower.shape
    torch.testing.assert_close(reevaluate(problem, found).lower, found.lower, rtol=1e-9, atol=1e-9)


@settings(max_examples=15)
@given(name=st.sampled_from(sorted(NETWORKS)), seed=st.integers(0, 2**32))
def test_its_bounds_are_bounds(name: str, seed: int):
    one = case(name, "box", seed, batch=2, rows=2)
    found = triangle_lp(_problem(one), LadderOptions())
    assert bool((found.lower <= attacked_minimum(one.graph, one.region, one.C, one.generator) + 1e-11).all())


def test_after_the_deadline_crown_stands():
    problem = _problem(case("cnn", "box", seed=9))
    late = triangle_lp(problem, LadderOptions(), monotonic() - 1)
    assert bool(late.lower.isfinite().all())
    assert bool((late.lower <= triangle_lp(problem, LadderOptions()).lower + 1e-9).all())


@pytest.mark.slow
def test_a_wide_saturated_sigmoid_network_has_an_answer(shared: Path):
    """Its lines meet up to rounding in hundreds of neurons; without room between them HiGHS finds no point at all."""
    graph = verifier.load(shared / "vnncomp" / "eran" / "onnx" / "ffnnSIGMOID__Point_6x200.onnx.gz")
    spec = verifier.read_vnnlib(shared / "vnncomp" / "eran" / "vnnlib" / "mnist_spec_idx_1655_eps_0.01200.vnnlib.gz")
    prop = resolve(spec, graph).properties[0]
    problem = Problem(
        place(graph), prop.region.to(torch.float64, "cpu"), stack_rows(graph, [prop], torch.float64, "cpu")
    )
    relaxation = METHODS["crown"](problem, LadderOptions(), None).relaxation
    network = relaxed_network(problem.graph, relaxation, problem.rows.objective.node)
    assert isinstance(problem.region, Box)
    solver = HighsModel(program(network, problem.region), objective_rows(problem.graph, problem.rows.objective))
    assert solver.minimise(0, None) is not None
