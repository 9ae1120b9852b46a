"""Law 1, lines: every line of every family lies on its side of the function all over the box."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.operators.boxes import KINDS, boxes, points
from tests.operators.examples import EXAMPLES, output_node
from tests.relaxations.lines import gaps, kinks, violations, weights
from verifier.operators import OPERATORS, place
from verifier.relaxations.envelope import Chord, Mixture

ACTIVATIONS = [name for name, operator in OPERATORS.items() if operator.envelope is not None]
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


@DTYPES
@pytest.mark.parametrize("op", ACTIVATIONS)
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(("", *KINDS)))
def test_every_line_is_a_bound(op: str, dtype: torch.dtype, seed: int, kind: str):
    generator = torch.Generator().manual_seed(seed)
    for graph in EXAMPLES[op]:
        box = boxes(graph.input_shape, 16, generator, dtype, kind)
        assert violations(output_node(place(graph, dtype)), box, generator) == 0


@pytest.mark.parametrize("op", ACTIVATIONS)
@given(
    lower=st.floats(-50, 50),
    width=st.floats(0, 1e4) | st.floats(0, 1e-5) | st.sampled_from([1e-300, 5e-324]),
    weight=st.floats(0, 1),
    share=st.floats(0, 1),
)
def test_a_line_at_a_point(op: str, lower: float, width: float, weight: float, share: float):
    """The same with ends that hypothesis chooses, so that it can look for the exceptional ones."""
    for graph in EXAMPLES[op]:
        node = output_node(place(graph))
        shape = (1, *graph.input_shape)
        box = boxes(graph.input_shape, 1, torch.Generator(), kind="at zero")
        box = type(box)(box.lower + lower, box.lower + lower + width)
        x = (box.lower + share * (box.upper - box.lower)).clamp(box.lower, box.upper).unsqueeze(0)
        alpha = torch.full((1, 1, *shape[1:]), weight, dtype=torch.float64)
        envelope = OPERATORS[op].envelope
        assert envelope is not None
        for family, sign in ((envelope(node, box).lower, -1), (envelope(node, box).upper, 1)):
            gap, rounding = gaps(node, box, family, alpha, x)
            assert bool((sign * gap >= -rounding).all())


@pytest.mark.parametrize("op", ACTIVATIONS)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_every_line_touches_the_function(op: str, seed: int):
    """No line of a hull can be moved closer: somewhere in the box its gap closes."""
    generator = torch.Generator().manual_seed(seed)
    for graph in EXAMPLES[op]:
        node = output_node(place(graph))
        box = boxes(graph.input_shape, 8, generator, kind=("around", "positive", "negative")[seed % 3])
        grid = torch.linspace(0, 1, 2001, dtype=torch.float64).reshape(-1, *[1] * box.lower.dim())
        near = torch.tensor(kinks(node)).double().reshape(-1, *[1] * box.lower.dim()).expand(-1, *box.lower.shape)
        x = torch.cat([box.lower + grid * (box.upper - box.lower), near.clamp(box.lower, box.upper)])
        envelope = OPERATORS[op].envelope
        assert envelope is not None
        for family in (envelope(node, box).lower, envelope(node, box).upper):
            for weight in weights(tuple(box.lower.shape), 2, generator, torch.float64):
                gap, rounding = gaps(node, box, family, weight, x)
                # between grid points, a curve of second derivative <= 1 leaves its tangent by half a step squared
                step = ((box.upper - box.lower) / 2000).square().unsqueeze(1)
                assert bool((gap.abs() - rounding - step).amin(0).le(0).all())


@DTYPES
@pytest.mark.parametrize("op", ACTIVATIONS)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(("", *KINDS)))
def test_where_nothing_splits_the_lines_are_the_function(op: str, dtype: torch.dtype, seed: int, kind: str):
    generator = torch.Generator().manual_seed(seed)
    for graph in EXAMPLES[op]:
        node = output_node(place(graph, dtype))
        box = boxes(graph.input_shape, 8, generator, dtype, kind)
        splits, envelope = OPERATORS[op].splits, OPERATORS[op].envelope
        assert splits is not None and envelope is not None
        stable = ~splits(node, box)
        x = points(box, 8, generator, kinks(node))
        for family in (envelope(node, box).lower, envelope(node, box).upper):
            for weight in weights(tuple(box.lower.shape), 2, generator, dtype):
                gap, rounding = gaps(node, box, family, weight, x)
                assert bool(((gap.abs() <= rounding) | ~stable.unsqueeze(1)).all())


def test_families_of_one_line_ignore_the_weight():
    line = Chord(torch.ones(2, 3), torch.ones(2, 3))
    assert line.default is None
    assert torch.equal(line.line(torch.zeros(2, 5, 3))[0], line.line(None)[0])


def test_a_mixture_runs_from_its_first_line_to_its_last():
    one, zero = torch.ones(2, 3), torch.zeros(2, 3)
    mixture = Mixture(zero, one, default=one, intercept_0=2 * one, intercept_1=4 * one)
    for weight, slope, intercept in ((0.0, 0.0, 2.0), (0.25, 0.25, 2.5), (1.0, 1.0, 4.0)):
        found = mixture.line(torch.full((2, 4, 3), weight))
        assert found[1] is not None
        assert found[0].unique().tolist() == [slope] and found[1].unique().tolist() == [intercept]
    assert torch.equal(mixture.line(None)[0], one.unsqueeze(1))
