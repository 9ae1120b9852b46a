"""A network without its inactive neurons is the same function on the region, with the same bounds."""

from __future__ import annotations

from time import monotonic

import numpy as np
import pytest
import torch

from tests.laws.networks import NETWORKS
from tests.operators.build import Builder
from tests.search.cases import first_output_below, network, outcome, problem, start
from verifier.bounding.dual import DualPoint, lower_bound
from verifier.bounding.ladder import LadderOptions, alpha_crown
from verifier.operators import evaluate
from verifier.search.inactive import Remaining
from verifier.search.result import SearchOptions
from verifier.search.subproblem import Frame
from verifier.specs.region import Box


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("seed", range(3))
def test_nothing_changes_on_the_region(name: str, seed: int):
    graph, box = network(name, seed, radius=0.2)
    posed = problem(graph, box, first_output_below(graph, 0.0))
    found = alpha_crown(posed, LadderOptions().tightest())
    boxes = dict(found.relaxation.boxes)
    remaining = Remaining.of(posed.graph, boxes)
    smaller, left, dual = remaining.problem(posed), remaining.boxes(boxes), remaining.weights(found.dual)
    x = box.sample(50, torch.Generator().manual_seed(seed)).flatten(0, 1)
    torch.testing.assert_close(evaluate(smaller.graph, x), evaluate(posed.graph, x), rtol=1e-12, atol=1e-12)
    bounds = []
    for one, its_boxes, its_dual in ((posed, boxes, DualPoint(found.dual.weights)), (smaller, left, dual)):
        frame = Frame.of(one, its_boxes)
        view = frame.view(frame.roots(its_dual))
        bounds.append(lower_bound(one.graph, view.region, view.relaxation, view.objective, view.dual))
        for node in one.graph.nodes:
            assert its_boxes[node.name].lower.shape[1:] == one.graph.shapes[node.name]
    torch.testing.assert_close(*bounds, rtol=1e-9, atol=1e-9)


def test_neurons_that_can_be_active_remain_and_others_go():
    graph, box = network("mlp", 0, radius=0.05)
    posed = problem(graph, box, first_output_below(graph, 0.0))
    boxes = dict(alpha_crown(posed, LadderOptions()).relaxation.boxes)
    remaining = Remaining.of(posed.graph, boxes)
    assert remaining.entries
    for name, kept in remaining.entries.items():
        if name in {node.name for node in graph.nodes if node.op == "linear"}:
            assert kept.tolist() == (boxes[name].upper[0] > 0).reshape(-1).nonzero()[:, 0].tolist()
    again = Remaining.of(remaining.problem(posed).graph, remaining.boxes(boxes))
    assert not again.entries


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("root", [False, True])
def test_a_neuron_that_only_rounding_makes_inactive_remains(dtype: torch.dtype, root: bool):
    """Zombori et al. 2021: ``1e16 x + y - 1e16 z`` is 1 where all are 1, and computed as 0 or less."""
    b = Builder(1, 4)
    weight = np.array([[1e16, 1.0, -1e16, 0], [0, 0.0, 0, 1.0], [0, 0, 0, -1.0]])
    b.add("linear", b.relu(b.add("linear", "x", weight=weight, bias=np.array([0, 0, 0.5]))),
          weight=np.array([[-2.0, 0.1, 0.1]]), bias=np.array([1.0]))  # fmt: skip
    ends = torch.tensor([[1.0, 1, 1, -1], [1, 1, 1, 1]], dtype=torch.float64).reshape(2, 1, 1, 4)
    graph, box = b.graph(), Box(*ends)
    options = SearchOptions() if root else SearchOptions(root=None)
    search = start("activation", graph, box, first_output_below(graph, 0.0), options, dtype=dtype)
    search.run(monotonic() + 1.0)
    assert not bool(outcome(search).proved[0])
