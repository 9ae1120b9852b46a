"""Rounding must not prove anything: cases in which an earlier engine answered `verified` wrongly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import verifier
from verifier.graph.ir import Graph, Node
from verifier.specs.box import Box
from verifier.specs.property import Polytope, Property


def _property(lower: float, upper: float, size: int, C: float, d: float) -> Property:
    ends = (torch.full((1, 1, size), end, dtype=torch.float64) for end in (lower, upper))
    return Property(Box(*ends), (Polytope(np.array([[C]]), np.array([d])),))


def _cancelling(width: int) -> Graph:
    """``relu(relu(relu(x_0 + 4096) - 4096) - 6e-5)``: in float32 the second layer has lost the digits of x_0."""
    nodes, shapes, last = [Node("x", "input")], {"x": (1, width)}, "x"
    weight = np.zeros((width, width))
    weight[0, 0] = 1
    for i, shift in enumerate((4096.0, -4096.0, -6e-5)):
        bias = np.zeros(width)
        bias[0] = shift
        nodes.append(Node(f"a{i}", "linear", (last,), constants={"weight": weight, "bias": bias}))
        nodes.append(Node(f"r{i}", "relu", (f"a{i}",), constants={"slope": np.zeros(())}))
        shapes |= {f"a{i}": (1, width), f"r{i}": (1, width)}
        last = f"r{i}"
    nodes.append(Node("y", "linear", (last,), constants={"weight": weight[:1]}))
    return Graph(tuple(nodes), "x", "y", shapes | {"y": (1, 1)})


@pytest.mark.parametrize("method", ["auto", "crown", "alpha-crown"])
def test_errors_that_pass_from_box_to_box(method: str):
    spec = _property(0.0, 2.5e-4, 400, -1.0, -1e-4)  # unsafe: y >= 1e-4, and y reaches 1.9e-4
    verdict = verifier.verify(_cancelling(400), spec, method=method, dtype=torch.float32)
    assert isinstance(verdict, verifier.Undecided)
    assert all(float(margins.max()) <= 0 for margins in verifier.bounds(_cancelling(400), spec, dtype=torch.float32))


@pytest.mark.parametrize(
    "dtype, gain, lower, upper",
    [(torch.float32, 1e6, -17.0, -17.0 + 1e-5), (torch.float64, 1e17, -37.40434233, -37.4043422)],
)
def test_a_sigmoid_far_out(dtype: torch.dtype, gain: float, lower: float, upper: float):
    nodes = (
        Node("x", "input"),
        Node("s", "sigmoid", ("x",)),
        Node("y", "scale", ("s",), constants={"scale": np.asarray(gain), "shift": np.zeros(())}),
    )
    graph = Graph(nodes, "x", "y", dict.fromkeys(("x", "s", "y"), (1, 1)))
    reached = gain / (1 + np.exp(-lower))  # the least output, which is unsafe
    spec = _property(lower, upper, 1, 1.0, 1.05 * reached)
    assert isinstance(verifier.verify(graph, spec, dtype=dtype), verifier.Undecided)
