"""Numbers that overflow on the way prove nothing: a box with a score that is not a number must not be lost."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import verifier
from verifier.graph.ir import Graph, Node
from verifier.specs.box import Box
from verifier.specs.property import Polytope, Property


def _overflowing(gain: float) -> Graph:
    """``gain * r - gain * r - relu(x_2)`` with ``r = relu(gain * (relu(x_1) - 0.5))``: it reaches -1."""
    first = np.array([[gain, 0], [gain, 0], [0, 1.0]])
    nodes = (
        Node("x", "input"),
        Node("ra", "relu", ("x",), constants={"slope": np.zeros(())}),
        Node("b", "linear", ("ra",), constants={"weight": first, "bias": np.array([-gain / 2, -gain / 2, 0])}),
        Node("rb", "relu", ("b",), constants={"slope": np.zeros(())}),
        Node("y", "linear", ("rb",), constants={"weight": np.array([[gain, -gain, -1.0]])}),
    )
    return Graph(nodes, "x", "y", {"x": (1, 2), "ra": (1, 2), "b": (1, 3), "rb": (1, 3), "y": (1, 1)})


@pytest.mark.parametrize("method", ["auto", "branch-and-bound"])
@pytest.mark.parametrize("gain", [1e155, 1e200])
def test_overflow_proves_nothing(method: str, gain: float):
    ends = (torch.full((1, 1, 2), end, dtype=torch.float64) for end in (-1.0, 1.0))
    spec = Property(Box(*ends), (Polytope(np.array([[1.0]]), np.array([-0.9])),))
    assert isinstance(verifier.verify(_overflowing(gain), spec, method=method, timeout=2), verifier.Undecided)
