"""Search by linear programs against the truth, and against solvers that lie."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bounding.lp.test_liars import LIES
from tests.laws.networks import NETWORKS, PIECEWISE
from tests.search.cases import (
    first_output_below,
    least_first_output,
    network,
    never,
    problem,
    sampled_least,
)
from verifier.bounding.dual import Relaxation
from verifier.bounding.ladder import LadderOptions, crown
from verifier.bounding.lp.duals import Duals, Empty
from verifier.bounding.lp.program import Program
from verifier.bounding.lp.splits import SplitModel, SplitSolver
from verifier.graph.ir import Graph
from verifier.operators import evaluate, place
from verifier.search.milp import MilpSearch
from verifier.search.result import Replay, SearchOptions
from verifier.specs.property import Polytope
from verifier.specs.region import Box

#: far more than these problems need, so that only an endless search meets it
ENOUGH = 30.0


def _search(
    graph: Graph,
    box: Box,
    unsafe: tuple[Polytope, ...],
    replay: Replay = never,
    make: Callable[[Program], SplitSolver] = SplitModel,
) -> MilpSearch:
    posed, wanted = problem(graph, box, unsafe), torch.ones(1, dtype=torch.bool)
    return MilpSearch(posed, crown(posed, LadderOptions()), wanted, SearchOptions(), replay, make=make)


@pytest.mark.parametrize("seed", range(9))
@pytest.mark.parametrize("name", PIECEWISE)
def test_it_answers_the_truth(name: str, seed: int):
    """36 networks: proved just below the integer program's minimum, refuted by a point just above it."""
    graph, box = network(name, seed, radius=0.6)
    level = least_first_output(graph, box)
    search = _search(graph, box, first_output_below(graph, level - 1e-4))
    search.run(monotonic() + ENOUGH)
    assert bool(search.result().proved[0])
    assert 0 < float(search.result().margins[0]) <= 1e-4 + 1e-6
    tried: list[torch.Tensor] = []

    def confirm(number: int, point: torch.Tensor) -> bool:
        tried.append(point)
        return True

    search = _search(graph, box, first_output_below(graph, level + 1e-3), confirm)
    search.run(monotonic() + ENOUGH)
    assert search.result().falsified and not bool(search.result().proved[0])
    assert float(evaluate(place(graph), tried[0].unsqueeze(0)).flatten()[0]) <= level + 1e-3
    assert bool(box.contains(tried[0].reshape(1, *box.lower.shape))[0, 0])


@pytest.mark.parametrize("name", ["cnn", "residual", "maxpool"])
def test_other_shapes_are_decided_too(name: str):
    graph, box = network(name, seed=1, radius=0.1)
    level = least_first_output(graph, box)
    for gap, proved in ((-0.01, True), (0.01, False)):
        search = _search(graph, box, first_output_below(graph, level + gap))
        search.run(monotonic() + (ENOUGH if proved else 0.3))
        assert bool(search.result().proved[0]) == proved


@settings(max_examples=14)
@given(name=st.sampled_from(sorted(NETWORKS)), seed=st.integers(0, 2**32))
def test_a_planted_counterexample_is_never_proved_away(name: str, seed: int):
    graph, box = network(name, seed, radius=0.3)
    level, _ = sampled_least(graph, box, seed)
    search = _search(graph, box, first_output_below(graph, level + 1e-9))
    search.run(monotonic() + 0.15)
    assert not bool(search.result().proved[0])


def test_a_conjunction_is_excluded_though_no_row_is_alone():
    graph, box = network("mlp", seed=5)
    points = box.sample(200, torch.Generator().manual_seed(0)).flatten(0, 1)
    middle = float(evaluate(place(graph), points).flatten(1)[:, 0].median())
    row = np.zeros((2, int(np.prod(graph.output_shape))))
    row[:, 0] = 1.0, -1.0
    search = _search(graph, box, (Polytope(row, np.array([middle - 0.05, -middle - 0.05])),))
    search.run(monotonic() + ENOUGH)
    assert bool(search.result().proved[0])
    assert float(search.result().margins[0]) == pytest.approx(0.05, abs=1e-6)


class Liar:
    """HiGHS's answers, changed, or passed off as a proof that nothing is there."""

    def __init__(self, program: Program, lie: str, seed: int):
        self.model, self.lie, self.random = SplitModel(program), lie, np.random.default_rng(seed)

    def bound(self, relaxation: Relaxation, deadline: float | None) -> Duals | None:
        found = self.model.bound(relaxation, deadline)
        if found is None or self.lie == "empty":
            return None if found is None else Empty(**vars(found))
        return LIES[self.lie](found, self.random)


@settings(max_examples=24)
@given(
    name=st.sampled_from([*PIECEWISE, "sigmoid", "tangle"]),
    lie=st.sampled_from(["empty", *sorted(LIES)]),
    seed=st.integers(0, 2**32),
)
def test_no_lie_of_a_solver_is_a_proof(name: str, lie: str, seed: int):
    graph, box = network(name, seed, radius=0.3)
    level, _ = sampled_least(graph, box, seed)
    unsafe = first_output_below(graph, level + 1e-9)
    search = _search(graph, box, unsafe, make=lambda program: Liar(program, lie, seed))
    search.run(monotonic() + 0.1)
    assert not bool(search.result().proved[0])


@pytest.mark.parametrize("lie", ["exception", "no answer", "half the answers"])
def test_a_solver_that_fails_leaves_the_search_going(lie: str):
    graph, box = network("mlp", seed=3, radius=0.3)
    unsafe = first_output_below(graph, least_first_output(graph, box) - 0.05)
    search = _search(graph, box, unsafe, make=lambda program: Liar(program, lie, 0))
    search.run(monotonic() + 0.5)
    assert not search.result().falsified
    assert search.result().subproblems > 0


def test_no_time_means_no_work():
    graph, box = network("mlp", seed=11)
    search = _search(graph, box, first_output_below(graph, least_first_output(graph, box) - 0.01))
    search.run(monotonic() - 1)
    assert search.result().subproblems == 0 and not bool(search.result().proved[0])
    search.run(monotonic() + ENOUGH)
    assert bool(search.result().proved[0])
