"""A graph as a module of torch."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from verifier.graph.ir import Graph
from verifier.operators import evaluate, place


class GraphNetwork(nn.Module):
    """A graph as a module: weights are parameters, index lists and slopes of activations buffers.

    Args:
        graph: as read, or placed.

    Attributes:
        structure: the graph without its constants.
        input_shape: of one input. A first axis of 1 in the file is the batch, and is not part of it.
    """

    def __init__(self, graph: Graph, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        placed = place(graph, dtype, "cpu")
        self._names = [tuple(node.constants) for node in graph.nodes]
        self.structure = replace(placed, nodes=tuple(replace(node, constants={}) for node in placed.nodes))
        shape = graph.input_shape
        self.input_shape = shape[1:] if len(shape) > 1 and shape[0] == 1 else shape
        for number, node in enumerate(placed.nodes):
            for name, value in node.constants.items():
                if value.is_floating_point() and name != "slope":
                    self.register_parameter(_key(number, name), nn.Parameter(value.clone()))
                else:
                    self.register_buffer(_key(number, name), value.clone())

    def graph(self) -> Graph:
        """The graph with the parameters of this moment."""

        nodes = enumerate(self.structure.nodes)
        return replace(self.structure, nodes=tuple(replace(node, constants=self.constants(i)) for i, node in nodes))

    def constants(self, number: int) -> dict[str, Tensor]:
        """Those of one node of the structure."""
        return {name: getattr(self, _key(number, name)) for name in self._names[number]}

    def forward(self, x: Tensor) -> Tensor:
        """(B, *input_shape) -> (B, *Y), without the file's batch axis."""
        graph = self.graph()
        y = evaluate(graph, x.reshape(len(x), *graph.input_shape))
        return y.squeeze(1) if y.dim() > 2 and y.shape[1] == 1 else y


def _key(number: int, name: str) -> str:
    return f"node_{number}_{name}"
