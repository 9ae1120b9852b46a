"""Separation: what primal points violate becomes a cut, few cuts do, and whatever the points are, cuts hold."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laws.attacked import attacked_minimum
from tests.laws.networks import Case, case, mlp
from verifier.bounding.ascent import AscentOptions, ascend
from verifier.bounding.dual import Objective, Relaxation, lower_bound
from verifier.bounding.intermediate import IntermediateOptions, by_dual, relax_network
from verifier.bounding.krelu import KReluOptions, join_again, join_groups
from verifier.bounding.lp.method import ProgramPrimal, lp_point, solver_for
from verifier.bounding.separation import AscentPrimal, Point, SeparationOptions, with_violated
from verifier.graph.ir import Graph
from verifier.operators import evaluate_all, place
from verifier.relaxations.cuts import Cuts
from verifier.relaxations.groups import GroupOptions
from verifier.specs.region import Box, Region

GROUPS = KReluOptions(GroupOptions(2, 8, 1, least_area=0.0), smooth=True)
SLACK = 1e-9


def _plain(graph: Graph, region: Region, groups: KReluOptions | None = None) -> Relaxation:
    join = None if groups is None else join_groups(graph, region, groups)
    return relax_network(graph, region, by_dual(graph, region, IntermediateOptions()), join)


def _wide() -> tuple[Graph, Region, Objective]:
    graph = place(mlp(np.random.default_rng(1), lambda b, x: b.relu(x), (4, 12, 12, 2)))
    region = Box(-torch.ones(1, 1, 4).double(), torch.ones(1, 1, 4).double())
    return graph, region, Objective(graph.output, torch.tensor([[1.0, -1.0]]).double().reshape(1, 1, 1, 2))


def _by_program(graph: Graph, region: Region, relaxation: Relaxation, objective: Objective) -> torch.Tensor:
    wanted = torch.ones(objective.C.shape[:2], dtype=torch.bool)
    point, missing = lp_point(graph, region, relaxation, objective, wanted, None, solver_for)
    assert not bool(missing.any())
    return lower_bound(graph, region, relaxation, objective, point)


def _rows(relaxation: Relaxation) -> int:
    return sum(int((cut.P != 0).any(-1).sum()) for cut in relaxation.cuts.values() if isinstance(cut, Cuts))


@pytest.mark.parametrize("way", ["program", "ascent"])
def test_few_cuts_are_as_good_as_all(way: str):
    graph, region, objective = _wide()
    every = _plain(graph, region, GROUPS)
    best, alone = (_by_program(graph, region, r, objective).item() for r in (every, replace(every, cuts={})))
    primal = (ProgramPrimal if way == "program" else AscentPrimal)(graph, region, objective)
    some = with_violated(graph, region, _plain(graph, region), primal, GROUPS, SeparationOptions(rounds=4))
    found = _by_program(graph, region, some, objective).item()
    assert alone + 0.9 * (best - alone) <= found <= best + 1e-6 and best > alone + 0.01
    assert 0 < _rows(some) < _rows(every)


def test_the_mean_of_an_ascent_is_near_the_optimum():
    graph, region, objective = _wide()
    relaxation = _plain(graph, region)
    programs, means = (p(graph, region, objective)(relaxation) for p in (ProgramPrimal, AscentPrimal))
    assert programs is not None and means is not None and set(programs) == set(means)
    for name, pair in means.items():
        for mean, exact in zip(pair, programs[name], strict=True):
            free = exact != 0  # others are no variables of the program
            assert float((mean - exact)[free].abs().mean()) < 0.5 * float(exact[free].abs().mean())


def _assert_cuts_hold(problem: Case, relaxation: Relaxation) -> None:
    values = evaluate_all(problem.graph, problem.region.sample(64, problem.generator).flatten(0, 1))
    for node in problem.graph.nodes:
        cut = relaxation.cuts.get(node.name)
        if cut is not None:
            z, x = (values[v].unflatten(0, (64, -1)).flatten(2) for v in (node.name, node.inputs[0]))
            multipliers = torch.rand(cut.zero(4).shape, generator=problem.generator, dtype=torch.float64)
            on_output, on_input, constant = cut.push(multipliers, z.shape[2])
            total = torch.einsum("rbn,bsn->rbs", z, on_output) + torch.einsum("rbn,bsn->rbs", x, on_input) + constant
            assert bool((total <= SLACK).all()), node.name


@settings(max_examples=8)
@given(
    name=st.sampled_from(("mlp", "leaky", "clip", "cnn", "residual", "maxpool", "sigmoid", "tanh")),
    kind=st.sampled_from(("box", "l2")),
    seed=st.integers(0, 2**32),
    k=st.sampled_from((2, 3)),
)
def test_cuts_hold_whatever_the_points_are(name: str, kind: str, seed: int, k: int):
    problem = case(name, kind, seed, radius=0.5)
    graph, region = problem.graph, problem.region

    def primal(relaxation: Relaxation) -> Point:
        found = {}
        for node in graph.nodes:
            if node.name in relaxation.envelopes:
                shape = (2, 3, prod(graph.shapes[node.name]))
                found[node.name] = tuple(torch.randn(2, *shape, generator=problem.generator, dtype=torch.float64))
        return found

    groups = KReluOptions(GroupOptions(k, 4, k - 1, least_area=0.0), smooth=k == 2)
    relaxation = with_violated(graph, region, _plain(graph, region), primal, groups, SeparationOptions(rounds=2))
    _assert_cuts_hold(problem, relaxation)
    objective = Objective(graph.output, problem.C)
    attacked = attacked_minimum(graph, region, problem.C, problem.generator)
    climbed, dual = ascend(graph, region, relaxation, objective, AscentOptions(iterations=6, cut_step=0.5))
    assert bool((climbed <= attacked + SLACK).all())
    again = relax_network(
        graph,
        region,
        by_dual(graph, region, IntermediateOptions()),
        join_again(graph, region, {n: cut for n, cut in relaxation.cuts.items()}),
    )
    torch.testing.assert_close(lower_bound(graph, region, again, objective, dual), climbed, rtol=1e-9, atol=1e-9)


def test_pairs_of_sigmoids_gain():
    """Two rising sigmoids of the same sum pull in opposite directions; alone each is bounded as if by itself."""
    problem = case("sigmoid", "box", seed=2, batch=1, rows=2, radius=1.0)
    graph, region, objective = problem.graph, problem.region, Objective(problem.graph.output, problem.C)
    relaxation = _plain(graph, region)
    options = AscentOptions(iterations=150, step=0.1, decay=0.98, cut_step=0.3, patience=150)
    alone, _ = ascend(graph, region, relaxation, objective, options)
    primal = ProgramPrimal(graph, region, objective)
    together = with_violated(graph, region, relaxation, primal, GROUPS)
    found, _ = ascend(graph, region, together, objective, options)
    assert bool((found >= alone - 1e-3).all()) and float((found - alone).max()) > 1e-3


def test_without_a_primal_point_there_are_no_cuts():
    graph, region, _ = _wide()
    relaxation = _plain(graph, region)
    assert not with_violated(graph, region, relaxation, lambda r: None, GROUPS).cuts
    late = with_violated(graph, region, relaxation, lambda r: {}, GROUPS, deadline=0.0)
    assert not late.cuts
