"""Pairs of ReLUs of opposite inputs: what becomes one, what stays, and that the function stays what it was."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graph.models import model, node, random
from tests.graph.parity import assert_parity
from verifier.graph.ir import Graph

LAYERS = [node("MatMul", "x w", "a"), node("Add", "a b", "z"), node("Relu", "z", "r"), node("MatMul", "r v", "y")]


def net(w: np.ndarray, b: np.ndarray, v: np.ndarray) -> Graph:
    """Weights as ONNX has them, (in, out)."""
    constants = {name: value.astype(np.float32) for name, value in {"w": w, "b": b, "v": v}.items()}
    return assert_parity(model(LAYERS, constants, shape=(1, len(w))))


def slopes(graph: Graph) -> list[float]:
    (relu,) = (n for n in graph.nodes if n.op == "relu")
    width = graph.shapes[relu.name][-1]
    return np.broadcast_to(relu.constants["slope"], width).tolist()


def pair(sign: float, factor: float) -> Graph:
    """``relu(z) v + relu(sign z) factor v`` beside a neuron that has no partner."""
    z, bias, v = random(4, 1), random(1, seed=1), random(1, 3, seed=2)
    w = np.hstack([z, random(4, 1, seed=3), sign * z])
    return net(w, np.hstack([bias, [0.3], sign * bias]), np.vstack([v, random(1, 3, seed=4), factor * v]))


@pytest.mark.parametrize("slope", [-1.0, 1.0, 0.25, 2.0])
def test_opposite_neurons_become_one_with_a_slope(slope: float):
    graph = pair(-1.0, -slope)
    # the neuron stays whose outputs weigh more, so that no slope is above 1
    assert slopes(graph) == ([slope, 0.0] if abs(slope) <= 1 else [0.0, 1 / slope])
    assert "z" not in graph.shapes and "r" not in graph.shapes  # of other neurons than in the file


def test_equal_neurons_and_those_with_unrelated_outputs_stay():
    assert len(slopes(pair(1.0, 1.0))) == 3
    weights = random(4, 1), random(2, 3)
    assert len(slopes(net(np.hstack([weights[0], -weights[0]]), np.zeros(2), weights[1]))) == 2


def test_neurons_with_other_biases_stay():
    z, v = random(4, 1), random(1, 3)
    assert len(slopes(net(np.hstack([z, -z]), np.array([0.5, 0.5]), np.vstack([v, v])))) == 2


def test_a_layer_that_others_read_stays():
    z, v = random(4, 1), random(1, 3)
    nodes = [*LAYERS[:3], node("MatMul", "r v", "m"), node("MatMul", "z v", "n"), node("Add", "m n", "y")]
    constants = {"w": np.hstack([z, -z]), "b": np.zeros(2, np.float32), "v": np.vstack([v, v / 2])}
    assert len(slopes(assert_parity(model(nodes, constants, shape=(1, 4))))) == 2


def test_the_maximum_of_many_values_needs_one_bend_for_each_two():
    """As lattice networks write it: ``max(a, b) = (|a - b| + (a + b)) / 2``, level by level."""
    both = np.array([[1, -1, 1, -1], [-1, 1, 1, -1]], np.float32)  # a - b, b - a, a + b, -a - b
    half = np.array([[0.5], [0.5], [0.5], [-0.5]], np.float32)
    constants = {"w0": np.kron(np.eye(2), both), "v0": np.kron(np.eye(2), half), "w1": both, "v1": half}
    nodes = [
        node("MatMul", "x w0", "z0"),
        node("Relu", "z0", "r0"),
        node("MatMul", "r0 v0", "m0"),
        node("MatMul", "m0 w1", "z1"),
        node("Relu", "z1", "r1"),
        node("MatMul", "r1 v1", "y"),
    ]
    constants = {name: value.astype(np.float32) for name, value in constants.items()}
    graph = assert_parity(model(nodes, constants, shape=(1, 4)))
    bends = [n.constants["slope"].tolist() for n in graph.nodes if n.op == "relu"]
    assert bends == [[-1.0, 1.0, -1.0, 1.0], [-1.0, 1.0]]


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_any_layer_with_some_opposite_neurons_keeps_its_function(seed: int, width: int):
    generator = np.random.default_rng(seed)
    rows = generator.integers(-2, 3, (width, 3)).astype(float)
    partners = generator.integers(0, width, width)
    w = np.vstack([rows, -rows[partners]])
    v = generator.integers(-2, 3, (width, 2)).astype(float)
    v = np.vstack([v, generator.choice([-1.0, 1.0, 0.5], width)[:, None] * v[partners]])
    net(w.T, np.zeros(len(w)), v)
