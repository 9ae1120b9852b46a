"""Measures of looseness against what is known exactly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.laws.networks import case
from tests.operators.build import Builder
from verifier.analysis.measures import Lines, joint_volume, lines_area, relaxation_areas, width_ratios
from verifier.bounding.dual import DualPoint, Relaxation
from verifier.bounding.intermediate import interval_only, relax_network
from verifier.bounding.krelu import KReluOptions, join_groups
from verifier.bounding.ladder import Bounds
from verifier.operators import place
from verifier.operators.table import OPERATORS
from verifier.relaxations.groups import GroupOptions
from verifier.specs.box import flat
from verifier.specs.region import Box


def relu_over(low: float, high: float, **constants):
    """A relu of one neuron over an interval: node, its envelope, and the interval."""
    b = Builder(1, 1)
    b.relu("x", **constants)
    node = place(b.graph()).nodes[-1]
    box = Box(torch.tensor([[low]], dtype=torch.float64), torch.tensor([[high]], dtype=torch.float64))
    envelope = OPERATORS["relu"].envelope
    assert envelope is not None
    return node, envelope(node, box), box


def area(low: float, high: float, whole: bool) -> float:
    _, envelope, box = relu_over(low, high)
    return float(lines_area(Lines.of(envelope, box, whole), box.lower, box.upper))


@given(low=st.floats(-10, -0.01), high=st.floats(0.01, 10))
def test_areas_of_a_relu_are_those_of_geometry(low: float, high: float):
    """Ehlers' triangle has the area -l u / 2; CROWN's lines leave the smaller of two triangles."""
    assert area(low, high, whole=True) == pytest.approx(-low * high / 2)
    assert area(low, high, whole=False) == pytest.approx((high - low) * min(high, -low) / 2)


@pytest.mark.parametrize(("low", "high"), [(0.5, 2.0), (-2.0, -0.5)])
def test_a_stable_neuron_leaves_nothing(low: float, high: float):
    assert area(low, high, whole=True) == area(low, high, whole=False) == 0


def test_the_area_of_a_family_of_tangents_is_nearly_the_whole():
    """Tangents of a sigmoid on one side of zero and its chord: what lies between the function and its chord."""
    b = Builder(1, 1)
    b.add("sigmoid", "x")
    node, operator = place(b.graph()).nodes[-1], OPERATORS["sigmoid"]
    box = Box(torch.tensor([[0.5]], dtype=torch.float64), torch.tensor([[4.0]], dtype=torch.float64))
    assert operator.envelope is not None
    found = float(lines_area(Lines.of(operator.envelope(node, box), box), box.lower, box.upper))
    x = torch.linspace(0.5, 4.0, 10001, dtype=torch.float64)
    ends = torch.sigmoid(x[[0, -1]])
    exact = float(torch.trapezoid(torch.sigmoid(x), x) - 3.5 * ends.mean())
    assert exact <= found <= 1.05 * exact


def test_intervals_leave_the_box_and_weights_leave_the_triangle():
    node, envelope, box = relu_over(-1.0, 3.0)
    image = Box(torch.zeros(1, 1, dtype=torch.float64), box.upper)
    boxes = {node.inputs[0]: box, node.name: image}
    weight = torch.full((1, 1, 1), 0.5, dtype=torch.float64)

    def found(envelopes, dual: DualPoint) -> float:
        nothing = torch.zeros(1, 1)
        return float(relaxation_areas(node, Bounds(nothing, nothing.bool(), Relaxation(boxes, envelopes), dual)))

    assert found({}, DualPoint()) == pytest.approx(12.0)
    assert found({node.name: envelope}, DualPoint()) == pytest.approx(2.0)
    assert found({node.name: envelope}, DualPoint({node.name: (weight, None)})) == pytest.approx(1.5)


def test_widths_leave_out_what_the_reference_knows_exactly():
    wide = Box(torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[4.0, 2.0, 1.0]]))
    narrow = Box(torch.tensor([[1.0, 0.0, 1.0]]), torch.tensor([[2.0, 2.0, 1.0]]))
    assert width_ratios(narrow, wide).tolist() == [0.25, 1.0]


def test_the_volume_of_the_toy_is_known():
    """Two relus of x1 + x2 and x1 - x2 over a box: inputs lie in half of their box, so the cuts leave less than half
    of what the two triangles do, and not nothing."""
    b = Builder(1, 2)
    b.relu(b.add("linear", "x", weight=[[1.0, 1.0], [1.0, -1.0]], bias=[0.0, 0.0]))
    graph = place(b.graph())
    ones = torch.ones(1, 2, dtype=torch.float64)
    region = Box(-ones, ones)
    join = join_groups(graph, region, KReluOptions(groups=GroupOptions(least_area=0.0)))
    relaxation = relax_network(graph, region, interval_only, join)
    share = joint_volume(graph.nodes[-1], relaxation, seed=0)
    assert share is not None and 0.1 < share < 0.5
    assert joint_volume(graph.nodes[-1], relax_network(graph, region, interval_only), seed=0) is None


@given(seed=st.integers(0, 2**32))
def test_the_area_of_a_family_is_no_more_than_that_of_its_default_lines(seed: int):
    made = case("mlp", "box", seed, batch=1)
    relaxation = relax_network(made.graph, made.region, interval_only)
    for node in made.graph.nodes:
        envelope = relaxation.envelopes.get(node.name)
        if envelope is not None:
            box = relaxation.boxes[node.inputs[0]]
            low, high = flat(box.lower), flat(box.upper)
            whole, lines = (lines_area(Lines.of(envelope, box, w), low, high) for w in (True, False))
            assert bool((whole <= lines + 1e-9).all())
