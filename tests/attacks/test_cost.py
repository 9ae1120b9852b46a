from __future__ import annotations

import torch

from verifier.attacks.cost import multiply_adds, placement
from verifier.graph.ir import Graph, Node
from verifier.operators import place


def graph_of(node: Node, shape: tuple[int, ...], out: tuple[int, ...]) -> Graph:
    return Graph((Node("x", "input"), node), "x", node.name, {"x": shape, node.name: out})


def test_linear(random_net):
    relus, weights = 16 + 16, 4 * 16 + 16 * 16 + 16 * 3
    extra = multiply_adds(random_net) - relus - weights
    assert 0 <= extra <= 4  # the input


def test_convolutions():
    weight = {"weight": torch.zeros(8, 3, 5, 5), "bias": torch.zeros(8)}
    conv = graph_of(Node("y", "conv", ("x",), constants=weight), (1, 3, 12, 12), (1, 8, 8, 8))
    assert multiply_adds(conv) == 3 * 12 * 12 + 8 * 8 * 8 * 3 * 5 * 5
    weight = {"weight": torch.zeros(3, 8, 5, 5), "bias": torch.zeros(8)}
    transposed = graph_of(Node("y", "conv_transpose", ("x",), constants=weight), (1, 3, 8, 8), (1, 8, 12, 12))
    assert multiply_adds(transposed) == 3 * 8 * 8 + 3 * 8 * 8 * 8 * 5 * 5


def test_placement(random_net):
    assert placement(place(random_net, torch.float32)) == (torch.float32, torch.device("cpu"))
    assert placement(graph_of(Node("y", "sigmoid", ("x",)), (2,), (2,))) == (torch.float64, torch.device("cpu"))
