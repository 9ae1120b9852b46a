"""Law 1, intervals: the value at any point of the boxes lies in the interval of every operator."""

from __future__ import annotations

from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.operators.boxes import KINDS, boxes, points
from tests.operators.examples import EXAMPLES
from tests.operators.rounding import magnitudes, tolerance
from verifier.bounding.interval import interval_boxes
from verifier.graph.ir import Graph
from verifier.operators import OPERATORS, evaluate_all, place
from verifier.specs.region import Box


def assert_encloses(graph: Graph, box: Box, x: torch.Tensor) -> None:
    """Values (in float64) of a graph, placed in the precision of `box`, at x (R, B, *X) lie in its intervals."""
    dtype = box.lower.dtype
    found = interval_boxes(place(graph, dtype), box)
    exact = place(place(graph, dtype), torch.float64)  # the rounded constants, in exact arithmetic
    values = evaluate_all(exact, x.double().flatten(0, 1))
    sizes = magnitudes(exact, torch.maximum(box.lower.abs(), box.upper.abs()).double())
    for name, value in values.items():
        value = value.unflatten(0, x.shape[:2])
        slack = tolerance(dtype) * sizes[name]
        assert bool((value >= found[name].lower.double() - slack).all()), name
        assert bool((value <= found[name].upper.double() + slack).all()), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("op", EXAMPLES)
@settings(max_examples=12)
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(("", *KINDS)))
def test_interval_encloses_the_operator(op: str, dtype: torch.dtype, seed: int, kind: str):
    generator = torch.Generator().manual_seed(seed)
    for graph in EXAMPLES[op]:
        box = boxes(graph.input_shape, 4, generator, dtype, kind)
        assert_encloses(graph, box, points(box, 12, generator))


@pytest.mark.parametrize("op", sorted(set(EXAMPLES) - {"constant", "softmax", "log_softmax"}))
def test_interval_of_one_operator_is_attained(op: str):
    """The interval of one operator on independent operands is exact: a corner (or the kink at 0) attains each end."""
    generator = torch.Generator().manual_seed(1)
    fractions = [0.0, 1.0, torch.nan] if OPERATORS[op].adjoint is None else [0.0, 1.0]  # nan: the kink
    for graph in EXAMPLES[op]:
        size = prod(graph.input_shape)
        if len(fractions) ** size > 5000 or any(len(set(node.inputs)) < len(node.inputs) for node in graph.nodes):
            continue
        placed = place(graph)
        box = boxes(graph.input_shape, 3, generator, kind="around")
        corner = torch.cartesian_prod(*[torch.tensor(fractions, dtype=torch.float64)] * size)
        corner = corner.reshape(-1, 1, *graph.input_shape)
        x = torch.where(corner.isnan(), 0, box.lower + corner * (box.upper - box.lower))
        value = evaluate_all(placed, x.flatten(0, 1))[graph.output].unflatten(0, x.shape[:2])
        found = interval_boxes(placed, box)[graph.output]
        torch.testing.assert_close(value.amin(0), found.lower, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(value.amax(0), found.upper, rtol=1e-12, atol=1e-12)
