"""Rows of properties: what their bounds say about polytopes, and how batches are padded."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.operators.build import Builder
from verifier.bounding.rows import stack_rows
from verifier.specs.property import Polytope, Property
from verifier.specs.region import Box

GRAPH = Builder(1, 2).graph("x")
REGION = Box(torch.zeros(1, 1, 2).double(), torch.ones(1, 1, 2).double())
INF = float("inf")


def _polytope(*rows: tuple[float, float, float]) -> Polytope:
    table = np.array(rows, dtype=np.float64).reshape(-1, 3)
    return Polytope(table[:, :2], table[:, 2])


def _property(*polytopes: Polytope) -> Property:
    return Property(REGION, polytopes)


def test_a_conjunction_needs_one_row_and_a_disjunction_all_polytopes():
    rows = stack_rows(GRAPH, [_property(_polytope((1, 0, 0), (0, 1, 0)), _polytope((1, 1, 5)))], torch.float64, "cpu")
    assert rows.owner.tolist() == [[0, 0, 1]] and rows.polytopes == (2,)
    assert rows.objective.C.shape == (1, 3, 1, 2)
    assert rows.objective.offset is not None and rows.objective.offset.tolist() == [[0.0, 0.0, -5.0]]
    margins = rows.margins(torch.tensor([[-1.0, 2.0, -3.0]]).double())
    assert margins.tolist() == [[2.0, -3.0]]  # one positive row misses the first polytope; the second stays open


def test_a_polytope_without_rows_can_never_be_missed():
    rows = stack_rows(
        GRAPH, [_property(_polytope()), _property(_polytope((1, 0, 0)), _polytope())], torch.float64, "cpu"
    )
    margins = rows.margins(torch.full((2, 1), 100.0).double())
    assert margins.tolist() == [[-INF, INF], [100.0, -INF]]


def test_padding_rows_and_absent_polytopes_decide_nothing():
    properties = [
        _property(_polytope((1, 0, 0))),
        _property(_polytope((1, 0, 0), (0, 1, 0), (1, 1, 0)), _polytope((0, 1, 1))),
    ]
    rows = stack_rows(GRAPH, properties, torch.float64, "cpu")
    assert rows.owner.tolist() == [[0, -1, -1, -1], [0, 0, 0, 1]]
    assert not rows.objective.C[0, 1:].any()
    margins = rows.margins(torch.tensor([[-2.0, 9.0, 9.0, 9.0], [1.0, 3.0, 2.0, -1.0]]).double())
    assert margins.tolist() == [[-2.0, INF], [3.0, -1.0]]
    second = rows.select(torch.tensor([1]))
    assert second.margins(torch.tensor([[1.0, 3.0, 2.0, -1.0]]).double()).tolist() == [[3.0, -1.0]]
    assert second.polytopes == (2,) and torch.equal(second.objective.C, rows.objective.C[1:])


def test_a_bound_that_is_not_a_number_proves_nothing():
    rows = stack_rows(GRAPH, [_property(_polytope((1, 0, 0), (0, 1, 0)))], torch.float64, "cpu")
    margins = rows.margins(torch.tensor([[float("nan"), 1.0]]).double())
    assert not bool((margins > 0).any())


@given(d=st.floats(-1e30, 1e30))
def test_a_right_hand_side_is_rounded_up_in_float32(d: float):
    rows = stack_rows(GRAPH, [_property(_polytope((1, 0, d)))], torch.float32, "cpu")
    assert rows.objective.offset is not None
    limit = -float(rows.objective.offset[0, 0])
    assert limit >= d and abs(limit - d) <= 2.4e-7 * abs(d) + 2e-45
