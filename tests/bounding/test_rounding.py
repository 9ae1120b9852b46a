"""The scale of rounding errors, against sums made by hand."""

from __future__ import annotations

import torch

from tests.operators.build import Builder
from verifier.bounding.dual import DualPoint, Objective
from verifier.bounding.intermediate import interval_only, relax_network
from verifier.bounding.interval import interval_relaxation
from verifier.bounding.rounding import rounding_scale
from verifier.operators import place
from verifier.specs.region import Box


def _box(low: float, high: float) -> Box:
    return Box(torch.full((1, 1, 1), low).double(), torch.full((1, 1, 1), high).double())


def _row(value: float) -> torch.Tensor:
    return torch.full((1, 1, 1, 1), value).double()


def test_terms_that_cancel_are_counted():
    """(x + 5) + (7 - x) - 1 over [-3, 2]: the output adds 7 + 10 + 1, the layer (3 + 5) + (3 + 7), the input 0."""
    b = Builder(1, 1)
    hidden = b.add("linear", "x", weight=[[1.0], [-1.0]], bias=[5.0, 7.0])
    b.add("linear", hidden, weight=[[1.0, 1.0]], bias=[-1.0])
    graph, box = place(b.graph()), _box(-3, 2)
    relaxation = relax_network(graph, box, interval_only)
    assert rounding_scale(graph, relaxation, Objective(graph.output, _row(1.0)), DualPoint()).item() == 36.0
    offset = torch.full((1, 1), -4.0).double()
    assert rounding_scale(graph, relaxation, Objective(graph.output, _row(-1.0), offset), DualPoint()).item() == 40.0


def test_lines_and_the_boxes_below_them_are_counted():
    """-relu(2 x + 1) over [-1, 1] takes the line 3/4 h + 3/4 over h in [-1, 3].

    The line adds 3/4 * 3 + 3/4; the layer, reached with 3/4 through the line and 1 through the box, 7/4 * (2 + 1); and
    the input 3/2. The interval of the relu, [0, 3], adds 3 instead of the line and the input, and the box its 2 + 1.
    """
    b = Builder(1, 1)
    b.relu(b.add("linear", "x", weight=[[2.0]], bias=[1.0]))
    graph, box = place(b.graph()), _box(-1, 1)
    objective = Objective(graph.output, _row(-1.0))
    lines = rounding_scale(graph, relax_network(graph, box, interval_only), objective, DualPoint())
    assert lines.item() == 3.0 + 5.25 + 1.5
    assert rounding_scale(graph, interval_relaxation(graph, box), objective, DualPoint()).item() == 3.0 + 3.0


def test_chosen_weights_are_those_counted():
    """relu(x) over [-1, 3]: the lower line of weight 1/2 has slope 1/2; box [0] to [3], no layer below."""
    b = Builder(1, 1)
    b.relu("x")
    graph, box = place(b.graph()), _box(-1, 3)
    relaxation = relax_network(graph, box, interval_only)
    dual = DualPoint({graph.output: (_row(0.5), None)})
    scale = rounding_scale(graph, relaxation, Objective(graph.output, _row(1.0)), dual)
    assert scale.item() == 1.5 + 1.5


def test_a_steep_activation_enlarges_the_errors_of_its_box():
    """prelu(2 x + 1) of slope 10: the layer's terms, 2 + 1, count ten times for the errors of the box."""
    b = Builder(1, 1)
    b.relu(b.add("linear", "x", weight=[[2.0]], bias=[1.0]), slope=10.0)
    graph, box = place(b.graph()), _box(-1, 1)
    relaxation = relax_network(graph, box, interval_only)
    scale = rounding_scale(graph, relaxation, Objective(graph.output, _row(1.0)), DualPoint())
    assert scale.item() >= 10 * 3
