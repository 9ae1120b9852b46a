"""Rounding errors that grow from layer to layer: what they could have made is never proved."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

import verifier
from tests.operators.build import Builder
from verifier.graph.ir import Graph
from verifier.operators import evaluate, place
from verifier.specs.property import Polytope, Property
from verifier.specs.region import Box

#: slope of the map, a little below 2: `x -> s x - 2 s relu(x - 1/2)` is chaotic, and maps [0, 1] into itself
SLOPE = 1.984375 + 1 / 1024 + 3 * 2.0**-30
START = 0.3141592653589793


def tent_maps(count: int) -> Graph:
    b, x = Builder(1, 1), "x"
    for _ in range(count):
        both = b.relu(b.add("linear", x, weight=[[1.0], [1.0]], bias=[0.0, -0.5]))
        x = b.add("linear", both, weight=[[SLOPE, -2 * SLOPE]], bias=[0.0])
    return b.graph()


def exact(count: int) -> float:
    x, slope = Fraction(START), Fraction(SLOPE)
    for _ in range(count):
        x = slope * x - 2 * slope * max(x - Fraction(1, 2), Fraction(0))
    return float(x)


@pytest.mark.parametrize("method", ["auto", "ibp", "crown", "branch-and-bound"])
@pytest.mark.parametrize("count", [60, 70, 80])
def test_what_only_rounding_says_is_not_proved(count: int, method: str):
    """At a single point of a chaotic network the computed value lies on one side of a level, the true one beyond."""
    graph, point = tent_maps(count), torch.full((1, 1, 1), START, dtype=torch.float64)
    true, computed = exact(count), float(evaluate(place(graph), point))
    assert abs(true - computed) > 1e-3
    sign, level = (1.0 if computed > true else -1.0), (true + computed) / 2
    prop = Property(Box(point, point), (Polytope(np.array([[sign]]), np.array([sign * level])),))
    assert not isinstance(verifier.verify(graph, prop, method=method, timeout=1.0), verifier.Verified)
