"""Tighter boxes at the root: they hold every value, and they are tighter."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laws.networks import NETWORKS, case
from tests.laws.oracle import exact_minimum
from tests.search.cases import first_output_below, least_first_output, network, never, problem
from verifier.bounding.ladder import Bounds, LadderOptions, Problem, crown, reevaluate
from verifier.bounding.rows import stack_rows
from verifier.operators import evaluate_all, place
from verifier.search.activation_split import ActivationSplit
from verifier.search.result import RootOptions, SearchOptions
from verifier.search.root import refine
from verifier.specs.property import Polytope, Property
from verifier.specs.region import Box

ROUNDING = 1e-9


def _refined(posed: Problem, exact: Problem, rounds: int, size: int = 64) -> tuple[dict[str, Box], dict[str, Box]]:
    """Boxes before and after."""
    root: Bounds = reevaluate(exact, crown(posed, LadderOptions()))
    before = dict(root.relaxation.boxes)
    return before, refine(posed, exact, before, size, RootOptions(rounds=rounds), monotonic() + 20)


@settings(max_examples=12)
@given(
    name=st.sampled_from(sorted(NETWORKS)),
    kind=st.sampled_from(["box", "l1", "l2"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 2**32),
)
def test_refined_boxes_hold_every_value(name: str, kind: str, dtype: torch.dtype, seed: int):
    one = case(name, kind, seed, batch=2)
    size = int(np.prod(one.graph.output_shape))
    prop = Property(one.region.select(torch.tensor([0])), (Polytope(np.eye(1, size), np.zeros(1)),))
    exact, posed = (
        Problem(place(one.graph, t), one.region.to(t, "cpu"), stack_rows(one.graph, [prop] * 2, t, "cpu"))
        for t in (torch.float64, dtype)
    )
    before, after = _refined(posed, exact, rounds=2)
    values = evaluate_all(place(one.graph), one.region.sample(256, one.generator).flatten(0, 1))
    for node, box in after.items():
        inner = values[node].reshape(256, 2, *box.lower.shape[1:])
        assert bool((inner >= box.lower - ROUNDING).all())
        assert bool((inner <= box.upper + ROUNDING).all())
        assert bool((box.lower >= before[node].lower).all()) and bool((box.upper <= before[node].upper).all())


@pytest.mark.parametrize("name", ["mlp", "leaky", "cnn"])
def test_rounds_bring_ends_near_their_true_values(name: str):
    """Of the gap between CROWN's end and the integer program's most is closed, and the program is never passed."""
    graph, box = network(name, seed=3, radius=1.0)
    exact = problem(graph, box, first_output_below(graph, 0.0))
    before, after = _refined(exact, exact, rounds=8)
    source = [node.inputs[0] for node in graph.nodes if node.op == "relu"][-1]
    nodes = graph.nodes[: next(i for i, node in enumerate(graph.nodes) if node.name == source) + 1]
    below = replace(graph, nodes=nodes, output=source)
    old, new = (boxes[source].lower.flatten() for boxes in (before, after))
    moved = (new > old + 1e-6).nonzero()[:, 0].tolist()
    assert moved
    gap = left = 0.0
    for j in moved[:6]:
        row = np.zeros(len(old))
        row[j] = 1.0
        truth = exact_minimum(place(below), box, row)
        assert float(new[j]) <= truth + ROUNDING
        goal = min(truth, 0.0)  # beyond which the lower end of a ReLU's input does not matter
        gap, left = gap + goal - float(old[j]), left + max(0.0, goal - float(new[j]))
    assert left < 0.5 * gap


def test_without_time_the_boxes_stand():
    graph, box = network("mlp", seed=3)
    exact = problem(graph, box, first_output_below(graph, 0.0))
    before = dict(crown(exact, LadderOptions()).relaxation.boxes)
    assert refine(exact, exact, before, 16, RootOptions(), monotonic() - 1) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["mlp", "residual", "sigmoid"])
def test_a_search_that_begins_again_over_tighter_boxes_answers_the_truth(name: str, dtype: torch.dtype):
    graph, box = network(name, seed=3, radius=0.2 if name == "residual" else 0.8)
    level = -2.0 if name == "sigmoid" else least_first_output(graph, box)
    for gap, proved in ((-0.01, True), (1e-3, False)):
        unsafe = first_output_below(graph, level + gap)
        posed = problem(graph, box, unsafe, dtype)
        options = replace(SearchOptions(), root=RootOptions(after=0.0, share=0.05, rounds=2))
        wanted, root = torch.ones(1, dtype=torch.bool), crown(posed, LadderOptions())
        search = ActivationSplit(posed, problem(graph, box, unsafe), root, wanted, options, never)
        search.run(monotonic() + (60 if proved else 0.5))
        if name != "sigmoid":
            assert bool(search.ledger.result().proved[0]) == proved
