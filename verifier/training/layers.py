"""A network as layers whose constants are looked up when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from verifier.graph.ir import Graph, Node
from verifier.training.batch_norm import Moments

#: the moments by which a layer normalises
Statistics = Callable[[_BatchNorm], Moments]
#: the constants of a node at this moment
Constants = Callable[[Statistics], Mapping[str, Tensor]]


class Unsupported(Exception):
    """Why a layer cannot be bounded, in words."""


@dataclass(frozen=True)
class Layer:
    """A node of the graph, whose constants are looked up when they are needed."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    constants: Constants
    source: str = ""


@dataclass(frozen=True)
class Trace:
    """The layers of a module in order, and the shapes of their outputs for one input.

    Args:
        traced: a module of the same parameters that can be changed without changing the given one.
    """

    traced: nn.Module
    layers: tuple[Layer, ...]
    input: str
    output: str
    shapes: Mapping[str, tuple[int, ...]]

    def graph(self, statistics: Statistics) -> Graph:
        """The graph of the module's parameters as they are now."""
        nodes = [Node(self.input, "input")]
        for layer in self.layers:
            constants = layer.constants(statistics)
            nodes.append(Node(layer.name, layer.op, layer.inputs, layer.attributes, constants, layer.source))
        return Graph(tuple(nodes), self.input, self.output, self.shapes)


def nothing(statistics: Statistics) -> Mapping[str, Tensor]:
    return {}
