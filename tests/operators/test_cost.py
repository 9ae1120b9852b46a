from __future__ import annotations

import torch

from verifier.graph.ir import Graph, Node
from verifier.operators.cost import multiply_adds, placement


def graph_of(node: Node, shape: tuple[int, ...], out: tuple[int, ...]) -> Graph:
    return Graph((Node("x", "input"), node), "x", node.name, {"x": shape, node.name: out})


def test_linear():
    weight = {"weight": torch.zeros(7, 5), "bias": torch.zeros(7)}
    rows = graph_of(Node("y", "linear", ("x",), constants=weight), (3, 5), (3, 7))
    assert multiply_adds(rows) == 3 * 5 + 3 * 7 * 5


def test_convolutions():
    weight = {"weight": torch.zeros(8, 3, 5, 5), "bias": torch.zeros(8)}
    conv = graph_of(Node("y", "conv", ("x",), constants=weight), (1, 3, 12, 12), (1, 8, 8, 8))
    assert multiply_adds(conv) == 3 * 12 * 12 + 8 * 8 * 8 * 3 * 5 * 5
    weight = {"weight": torch.zeros(3, 8, 5, 5), "bias": torch.zeros(8)}
    transposed = graph_of(Node("y", "conv_transpose", ("x",), constants=weight), (1, 3, 8, 8), (1, 8, 12, 12))
    assert multiply_adds(transposed) == 3 * 8 * 8 + 3 * 8 * 8 * 8 * 5 * 5


def test_placement():
    weight = {"weight": torch.zeros(7, 5, dtype=torch.float32), "bias": torch.zeros(7, dtype=torch.float32)}
    linear = graph_of(Node("y", "linear", ("x",), constants=weight), (5,), (7,))
    assert placement(linear) == (torch.float32, torch.device("cpu"))
    assert placement(graph_of(Node("y", "sigmoid", ("x",)), (2,), (2,))) == (torch.float64, torch.device("cpu"))
