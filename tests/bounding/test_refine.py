"""Refined boxes: sound whoever solves, inside CROWN's, as tight as the programs, and reproducible without a solver."""

from __future__ import annotations

from time import monotonic

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bounding.lp.test_liars import LIES, Liar
from tests.bounding.lp.test_triangle_lp import _problem
from tests.laws.attacked import attacked_minimum
from tests.laws.networks import NETWORKS, Case, case
from tests.laws.oracle import triangle_minimum
from verifier.bounding.dual import Relaxation
from verifier.bounding.ladder import LadderOptions, alpha_crown, reevaluate
from verifier.bounding.lp.duals import MakeSolver, Solver
from verifier.bounding.lp.method import solver_for, triangle_lp
from verifier.bounding.lp.network import Affine, RelaxedNetwork
from verifier.bounding.refine import RefineOptions, influence, refined, refined_lp
from verifier.graph.ir import Graph
from verifier.operators import evaluate_all
from verifier.specs.region import Box, Region


def _refined(one: Case, make: MakeSolver = solver_for, **options) -> Relaxation:
    return refined(_problem(one), LadderOptions(), None, RefineOptions(**options), make)


def _assert_holds(one: Case, relaxation: Relaxation) -> None:
    x = one.region.sample(64, one.generator)
    for name, value in evaluate_all(one.graph, x.flatten(0, 1)).items():
        value, box = value.unflatten(0, x.shape[:2]), relaxation.boxes[name]
        assert bool((value >= box.lower - 1e-11).all()) and bool((value <= box.upper + 1e-11).all()), name


@settings(max_examples=12)
@given(name=st.sampled_from(sorted(NETWORKS)), seed=st.integers(0, 2**32), workers=st.sampled_from([1, 2]))
def test_refined_boxes_hold_and_lie_in_crowns(name: str, seed: int, workers: int):
    one = case(name, "box", seed, batch=2, rows=2)
    found, before = _refined(one, workers=workers), alpha_crown(_problem(one), LadderOptions(), None).relaxation
    _assert_holds(one, found)
    for node, box in before.boxes.items():
        assert bool((found.boxes[node].lower >= box.lower - 1e-9).all()), node
        assert bool((found.boxes[node].upper <= box.upper + 1e-9).all()), node


@settings(max_examples=15)
@given(name=st.sampled_from(["mlp", "residual", "tangle"]), lie=st.sampled_from(sorted(LIES)), seed=st.integers(0, 99))
def test_no_lie_of_a_solver_gets_into_a_box(name: str, lie: str, seed: int):
    one = case(name, "box", seed, batch=2, rows=1)

    def make(network: RelaxedNetwork, region: Region, rows: Affine) -> Solver:
        return Liar(solver_for(network, region, rows), LIES[lie], seed)

    _assert_holds(one, _refined(one, make))


def test_a_refined_neuron_reaches_its_program():
    one = case("mlp", "box", seed=8, batch=1, rows=1, radius=1.0)
    assert isinstance(one.region, Box)
    found, before = _refined(one), alpha_crown(_problem(one), LadderOptions(), None).relaxation
    name = one.graph.nodes[3].name
    ends = {node: Box(box.lower, box.upper) for node, box in found.boxes.items()}
    open_ = ((before.boxes[name].lower < 0) & (before.boxes[name].upper > 0)).flatten().nonzero()[:, 0].tolist()
    assert open_
    nodes = one.graph.nodes[:4]
    below = Graph(nodes, one.graph.input, name, {node.name: one.graph.shapes[node.name] for node in nodes})
    for j in open_:
        c = np.zeros(before.boxes[name].lower.numel())
        c[j] = 1.0
        least, greatest = (sign * triangle_minimum(below, one.region, ends, sign * c) for sign in (1, -1))
        assert float(found.boxes[name].lower.flatten()[j]) == pytest.approx(least, abs=1e-6)
        assert float(found.boxes[name].upper.flatten()[j]) == pytest.approx(greatest, abs=1e-6)


@pytest.mark.parametrize("name", ["mlp", "cnn", "tangle"])
@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_the_evidence_gives_the_same_bounds_without_a_solver(name: str, chunk: int):
    one = case(name, "box", seed=9, batch=2, rows=2, radius=0.4)
    problem = _problem(one)
    found = refined_lp(problem, LadderOptions(), None, RefineOptions(chunk_bytes=chunk))
    torch.testing.assert_close(reevaluate(problem, found).lower, found.lower, rtol=1e-9, atol=1e-9)
    loose = triangle_lp(problem, LadderOptions()).lower
    slack = 1e-3 if name == "tangle" else 1e-9  # of smooth activations programs know a few tangents only
    assert bool((found.lower >= loose - slack).all()) and float((found.lower - loose).max()) > 1e-3
    assert bool((found.lower <= attacked_minimum(one.graph, one.region, one.C, one.generator) + 1e-11).all())


def test_without_time_crowns_boxes_stand():
    problem = _problem(case("cnn", "box", seed=9))
    late = refined(problem, LadderOptions(), monotonic() - 1, RefineOptions())
    again = refined(problem, LadderOptions(), None, RefineOptions(seconds=0.0))
    plain = alpha_crown(problem, LadderOptions(), None).relaxation
    for name, box in plain.boxes.items():
        assert bool((late.boxes[name].lower <= box.lower + 1e-11).all())
        torch.testing.assert_close(again.boxes[name].lower, box.lower)


def test_neurons_that_matter_most_go_first():
    one = case("mlp", "box", seed=8, batch=1, rows=1, radius=1.0)
    problem = _problem(one)
    plain = alpha_crown(problem, LadderOptions(), None).relaxation
    name = one.graph.nodes[3].name
    box, useful = plain.boxes[name], influence(one.graph, plain, problem.rows.objective)[name]
    worth = useful * torch.minimum(-box.lower, box.upper)  # of the triangles' heights in the middle, but for a factor
    rows = _refined(one).steps[name][-1][0]
    order = worth.flatten()[rows[0]]
    assert len(order) > 1 and bool((order[:-1] >= order[1:]).all()) and bool((order > 0).all())
