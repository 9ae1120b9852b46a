"""What one forward pass of a network costs, to choose batch sizes that do not depend on the machine's mood."""

from __future__ import annotations

from math import prod

import torch

from verifier.graph.ir import Graph, Node


def placement(graph: Graph) -> tuple[torch.dtype, torch.device]:
    """Precision and device of a placed graph; float64 on the CPU where it has no weights at all."""
    for node in graph.nodes:
        for constant in node.constants.values():
            if constant.is_floating_point():
                return constant.dtype, constant.device
    return torch.float64, torch.device("cpu")


def multiply_adds(graph: Graph) -> int:
    """Multiply-adds of one forward pass of one input; every other operation counts one per output."""
    return sum(_multiply_adds(graph, node) for node in graph.nodes)


def _multiply_adds(graph: Graph, node: Node) -> int:
    outputs = prod(graph.shapes[node.name])
    if node.op not in ("linear", "conv", "conv_transpose"):
        return outputs
    weight = tuple(node.constants["weight"].shape)
    if node.op == "conv_transpose":
        return prod(graph.shapes[node.inputs[0]]) * prod(weight[1:])
    return outputs * prod(weight[1:])
