"""A final Softmax: rows that compare outputs are carried over to the logits, all others are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.operators.build import Builder
from verifier.errors import InputError
from verifier.graph.ir import Graph
from verifier.operators import evaluate, place
from verifier.operators.tail import to_logits
from verifier.specs.property import Polytope, Property, Query
from verifier.specs.region import Box

REGION = Box(torch.zeros(1, 1, 3).double(), torch.ones(1, 1, 3).double())


def _graph(op: str | None, shape: tuple[int, ...] = (1, 3), axis: int = 1) -> Graph:
    b = Builder(*shape)
    b.add("scale", "x", scale=2.0, shift=0.5)
    if op is not None:
        b.add(op, b.nodes[-1].name, attributes={"axis": axis})
    return b.graph()


def _query(C: list[list[float]], d: list[float]) -> Query:
    return Query((Property(REGION, (Polytope(np.array(C), np.array(d)),)),), "spec.vnnlib")


@pytest.mark.parametrize(
    "op, C, d",
    [
        ("softmax", [[1.0, -1.0, 0.0], [0.0, 2.5, -2.5]], [0.0, 0.0]),
        ("log_softmax", [[1.0, -1.0, 0.0]], [0.7]),
        ("log_softmax", [[1.0, 1.0, -2.0]], [-3.0]),
    ],
)
def test_what_survives_the_tail_is_carried_over(op: str, C: list[list[float]], d: list[float]):
    graph, query = to_logits(_graph(op), _query(C, d))
    assert graph.output == "scale_1" and len(graph.nodes) == 2
    assert query.properties[0].unsafe[0].C.tolist() == C


@pytest.mark.parametrize(
    "op, C, d",
    [
        ("softmax", [[1.0, -1.0, 0.0]], [0.1]),  # a difference of probabilities
        ("softmax", [[1.0, 0.0, 0.0]], [0.0]),  # a probability
        ("softmax", [[1.0, 1.0, -2.0]], [0.0]),
        ("softmax", [[1.0, -2.0, 0.0]], [0.0]),
        ("log_softmax", [[1.0, 0.0, 0.0]], [0.0]),
        ("log_softmax", [[1e16, 1.0, -1e16]], [0.0]),  # adds up to 1, but not in floating point
        ("softmax", [[0.0, 0.0, 0.0]], [0.0]),
    ],
)
def test_what_does_not_survive_is_refused(op: str, C: list[list[float]], d: list[float]):
    with pytest.raises(InputError, match="spec.vnnlib 0: a row of it is not a comparison"):
        to_logits(_graph(op), _query(C, d))


def test_outputs_of_different_groups_are_not_comparable():
    """Softmax over axis 1 of (1, 2, 2): entries 0 and 2 share a group, 0 and 1 do not."""
    graph = _graph("softmax", (1, 2, 2), axis=1)
    to_logits(graph, _query([[1.0, 0.0, -1.0, 0.0]], [0.0]))
    with pytest.raises(InputError):
        to_logits(graph, _query([[1.0, -1.0, 0.0, 0.0]], [0.0]))


def test_without_a_tail_nothing_changes():
    graph, query = _graph(None), _query([[1.0, 0.0, 0.0]], [3.0])
    assert to_logits(graph, query) == (graph, query)


@given(x=st.lists(st.floats(-5, 5), min_size=3, max_size=3), d=st.floats(-3, 3))
def test_the_carried_property_means_the_same(x: list[float], d: float):
    point = torch.tensor([x], dtype=torch.float64).reshape(1, 1, 3)
    for op, C, limit in (("softmax", [1.0, -1.0, 0.0], 0.0), ("log_softmax", [1.0, 1.0, -2.0], d)):
        whole, query = _graph(op), _query([C], [limit])
        short, carried = to_logits(whole, query)
        row = torch.tensor(C, dtype=torch.float64)
        before, after = (float((row * evaluate(place(g), point).flatten()).sum()) - limit for g in (whole, short))
        assert np.sign(before) == np.sign(after) or abs(after) < 1e-12
        assert carried is query
