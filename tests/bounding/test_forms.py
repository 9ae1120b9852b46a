"""Laws of affine forms pushed forward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laws.networks import NETWORKS, Case, case
from tests.operators.build import Builder
from tests.operators.examples import EXAMPLES
from verifier.bounding.forms import AffineForms
from verifier.bounding.intermediate import IntermediateOptions, by_dual, interval_only, relax_network
from verifier.bounding.interval import interval_boxes, step
from verifier.graph.ir import Graph, Node
from verifier.operators import evaluate, place
from verifier.operators.evaluate import evaluate_all
from verifier.operators.table import OPERATORS
from verifier.relaxations.envelope import Envelope
from verifier.specs.box import flat
from verifier.specs.region import Box

MEMORY = 1 << 20
#: evaluation in float64 is rounded as well
ROUNDING = 1e-9


def case_with_fixed_inputs(name: str, seed: int, radius: float) -> Case:
    """Some coordinates of the box are fixed, in all elements of the batch."""
    made = case(name, "box", seed=seed, radius=radius)
    box = made.region
    assert isinstance(box, Box)
    fixed = torch.rand(box.lower[:1].shape, generator=torch.Generator().manual_seed(seed)) < 0.4
    return replace(made, region=Box(box.lower, torch.where(fixed, box.lower, box.upper)))


@settings(max_examples=60)
@given(
    name=st.sampled_from(tuple(NETWORKS)),
    seed=st.integers(0, 2**32),
    radius=st.sampled_from([1e-6, 1e-3, 0.1, 1.0]),
    memory=st.sampled_from([0, 300, 2000, MEMORY]),
    tighten=st.booleans(),
)
def test_values_lie_in_forms_and_boxes(name: str, seed: int, radius: float, memory: int, tighten: bool):
    made = case_with_fixed_inputs(name, seed, radius)
    assert isinstance(made.region, Box)
    assert_forms_hold(made.graph, made.region, memory, tighten, made.generator)


@pytest.mark.parametrize("op", [name for name, operator in OPERATORS.items() if operator.bounded])
def test_every_operator(op: str):
    """Whatever an interval may know: what the form of an operator's output says of its values holds."""
    random = torch.Generator().manual_seed(len(op))
    for graph in EXAMPLES[op]:
        centre = torch.randn(2, *graph.input_shape, generator=random, dtype=torch.float64)
        radius = torch.rand(centre.shape, generator=random, dtype=torch.float64) / 2
        assert_forms_hold(place(graph), Box(centre - radius, centre + radius), MEMORY, False, random)


def assert_forms_hold(graph: Graph, region: Box, memory: int, tighten: bool, random: torch.Generator) -> None:
    """Values of every node lie in its box, and near the affine function of the free inputs that the form names."""
    forms = AffineForms(graph, region, memory)
    kept = dict(forms.forms)

    def push(node: Node, boxes: Mapping[str, Box], relaxed: Mapping[str, Envelope]) -> Box:
        found = forms.push(node, boxes, relaxed)
        kept[node.name] = forms.forms[node.name]
        return found

    dual = by_dual(graph, region, IntermediateOptions()) if tighten else interval_only
    relaxation = relax_network(graph, region, dual, push=push)
    x = region.sample(32, random)
    half = flat(region.upper - region.lower) / 2
    free = (half > 0).any(0)
    t = ((flat(x.flatten(0, 1)).reshape(*x.shape[:2], -1) - flat(region.lower + region.upper) / 2) / half)[..., free]
    t = t.nan_to_num(0.0)
    for node, values in evaluate_all(graph, x.flatten(0, 1)).items():
        value = values.unflatten(0, x.shape[:2])
        box, form, size = relaxation.boxes[node], kept[node], 1 + value.abs()
        assert bool((value >= box.lower - ROUNDING * size).all() and (value <= box.upper + ROUNDING * size).all()), node
        count = min(t.shape[-1], form.generators.shape[1])
        known = form.centre + torch.einsum("kbn,bn...->kb...", t[..., :count], form.generators[:, :count])
        rest = form.noise + form.generators[:, count:].abs().sum(1)
        assert bool(((value - known).abs() <= rest + ROUNDING * size).all()), node


@pytest.mark.parametrize("name", NETWORKS)
def test_boxes_lie_in_the_intervals_and_gain_somewhere(name: str):
    made = case(name, "box", seed=2, radius=0.3)
    assert isinstance(made.region, Box)
    plain = interval_boxes(made.graph, made.region)
    push = AffineForms(made.graph, made.region, MEMORY).push
    boxes = relax_network(made.graph, made.region, interval_only, push=push).boxes
    for node, box in boxes.items():
        size = 1 + torch.maximum(box.lower.abs(), box.upper.abs())
        assert bool((box.lower >= plain[node].lower - ROUNDING * size).all()), node
        assert bool((box.upper <= plain[node].upper + ROUNDING * size).all()), node
    last = made.graph.output
    width, other = (float((box.upper - box.lower).sum()) for box in (boxes[last], plain[last]))
    assert width < other


def test_affine_operators_have_exact_boxes():
    """What intervals lose on two layers in a row, forms keep."""
    random = np.random.default_rng(0)
    b, x = Builder(1, 3), "x"
    for size, out in ((3, 4), (4, 4), (4, 2)):
        x = b.add("linear", x, weight=random.normal(size=(out, size)), bias=random.normal(size=out))
    graph = place(b.graph())
    region = Box(torch.zeros(2, 1, 3).double(), torch.tensor([0.5, 2.0]).double().reshape(2, 1, 1).expand(2, 1, 3))
    push = AffineForms(graph, region, MEMORY).push
    box = relax_network(graph, region, interval_only, push=push).boxes[graph.output]
    corners = torch.cartesian_prod(*[torch.arange(2.0, dtype=torch.float64)] * 3)
    values = [evaluate(graph, (corners * wide).unsqueeze(1)) for wide in region.upper]
    lower, upper = (torch.stack([end(value) for value in values]) for end in (lambda v: v.amin(0), lambda v: v.amax(0)))
    torch.testing.assert_close(box.lower, lower, rtol=0, atol=1e-8)
    torch.testing.assert_close(box.upper, upper, rtol=0, atol=1e-8)
    plain = interval_boxes(graph, region)[graph.output]
    assert bool((plain.lower < lower - 0.1).any())


def test_what_overflows_leaves_the_intervals():
    made = case("mlp", "box", seed=0, radius=0.1)
    assert isinstance(made.region, Box)
    forms = AffineForms(made.graph, made.region, MEMORY)
    node = made.graph.nodes[1]
    boxes = {made.graph.input: made.region}
    forms.forms[made.graph.input].generators.fill_(float("nan"))
    assert OPERATORS[node.op].adjoint is not None
    found, plain = forms.push(node, boxes, {}), step(node, boxes, made.graph.input)
    torch.testing.assert_close((found.lower, found.upper), (plain.lower, plain.upper), rtol=0, atol=ROUNDING)


def test_an_activation_is_not_dead_by_rounding():
    """Where large numbers cancel, what is left is below what was rounded: both sides of the kink stay possible."""
    b = Builder(1, 1)
    wide = b.add("linear", "x", weight=np.full((3, 1), 1e6), bias=np.array([0.1, 0.2, -0.3]))
    thin = b.add("linear", wide, weight=np.array([[1.0, 1.0, -2.0]]), bias=np.array([-0.9]))
    b.relu(thin)
    graph, point = place(b.graph()), torch.full((1, 1, 1), 0.7, dtype=torch.float64)
    push = AffineForms(graph, Box(point, point), MEMORY).push
    box = relax_network(graph, Box(point, point), interval_only, push=push).boxes[graph.nodes[2].name]
    exact = Fraction(0.1) + Fraction(0.2) - 2 * Fraction(-0.3) + Fraction(-0.9)
    assert Fraction(float(box.lower)) < exact < Fraction(float(box.upper)) and float(box.lower) < 0 < float(box.upper)
