"""A network over a region without the neurons that are inactive all over it: all of a search then has less to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor
from torch.nn.functional import linear

from verifier.bounding.dual import DualPoint
from verifier.bounding.ladder import Problem
from verifier.bounding.rounding import roundings
from verifier.graph.ir import Graph, Node
from verifier.specs.box import flat, magnitude
from verifier.specs.region import Box


@dataclass(frozen=True)
class Remaining:
    """Which neurons remain.

    Args:
        entries: of the nodes that lose some, indices along the last axis; of a ReLU the same as of its input.
        inputs: node -> the one before it, of which it reads what remains.
    """

    entries: Mapping[str, Tensor]
    inputs: Mapping[str, str]

    @classmethod
    def of(cls, graph: Graph, boxes: Mapping[str, Box]) -> Remaining:
        """
        Args:
            boxes: of all nodes, proved.
        """
        nodes = {node.name: node for node in graph.nodes}
        readers = Counter(name for node in graph.nodes for name in node.inputs)
        entries: dict[str, Tensor] = {}
        inputs: dict[str, str] = {}
        for last in graph.nodes:
            relu = nodes[last.inputs[0]] if last.op == "linear" else None
            if relu is None or relu.op != "relu" or bool(relu.constants["slope"].any()):
                continue
            first = nodes[relu.inputs[0]]
            if first.op != "linear" or not readers[relu.name] == readers[first.name] == 1:
                continue
            kept = _last_axis(boxes[first.name].upper > -_allowance(first, boxes[first.inputs[0]]))
            if 0 < len(kept) < graph.shapes[first.name][-1]:
                entries |= {first.name: kept, relu.name: kept}
                inputs[last.name] = relu.name
        return cls(entries, inputs)

    def problem(self, problem: Problem) -> Problem:
        """The same properties of the smaller network."""
        graph = problem.graph
        shapes = dict(graph.shapes)
        for name, kept in self.entries.items():
            shapes[name] = (*shapes[name][:-1], len(kept))
        return replace(problem, graph=replace(graph, nodes=tuple(map(self._node, graph.nodes)), shapes=shapes))

    def _node(self, node: Node) -> Node:
        constants = dict(node.constants)
        if node.name in self.entries and node.op == "linear":
            constants = {name: value[self.entries[node.name]] for name, value in constants.items()}
        elif node.name in self.entries:
            constants = {"slope": constants["slope"].new_zeros(())}
        if node.name in self.inputs:
            constants["weight"] = constants["weight"][:, self.entries[self.inputs[node.name]]]
        return replace(node, constants=constants)

    def boxes(self, boxes: Mapping[str, Box]) -> dict[str, Box]:
        found = dict(boxes)
        for name, kept in self.entries.items():
            found[name] = Box(found[name].lower[..., kept], found[name].upper[..., kept])
        return found

    def weights(self, dual: DualPoint) -> DualPoint:
        """The line weights of a dual point, without its multipliers."""
        found = dict(dual.weights)
        for name in self.entries.keys() & found.keys():
            low, high = (None if w is None else w[..., self.entries[name]] for w in found[name])
            found[name] = (low, high)
        return DualPoint(found)


def _allowance(layer: Node, box: Box) -> Tensor:
    """What the box of a layer's output may be off by: without the neuron, nothing else allows for that."""
    size, bias = magnitude(box), layer.constants.get("bias")
    return roundings(linear(size, layer.constants["weight"].abs(), None if bias is None else bias.abs()))


def _last_axis(mask: Tensor) -> Tensor:
    """Indices along the last axis of (B, *X) where a mask holds anywhere."""
    return flat(mask.movedim(-1, 0)).any(1).nonzero()[:, 0]
