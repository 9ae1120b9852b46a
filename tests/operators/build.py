"""Graphs built by hand, node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from verifier.graph.ir import Graph, Node
from verifier.operators import evaluate_all, place

Shape = tuple[int, ...]


class Builder:
    """Collects nodes; shapes follow from running the graph once on zeros."""

    def __init__(self, *shape: int):
        self.shape: Shape = shape
        self.nodes = [Node("x", "input")]

    def add(self, op: str, *inputs: str, attributes: dict[str, Any] | None = None, **constants: Any) -> str:
        """Append a node and return its name; numbers and lists become float64 (``indices``: int64) arrays."""
        name = f"{op}_{len(self.nodes)}"
        kinds = {key: np.int64 if key == "indices" else np.float64 for key in constants}
        arrays = {key: np.asarray(value, kinds[key]) for key, value in constants.items()}
        self.nodes.append(Node(name, op, inputs, attributes or {}, arrays))
        return name

    def part(self, start: int, *shape: int) -> str:
        """Entries ``start, start + 1, ...`` of an input of shape (N,), in another shape."""
        indices = range(start, start + int(np.prod(shape)))
        taken = self.add("take", "x", attributes={"axis": 0}, indices=list(indices))
        return self.add("reshape", taken, attributes={"shape": shape})

    def relu(self, x: str, slope: Any = 0.0) -> str:
        return self.add("relu", x, slope=slope)

    def extremum(self, op: str, x: str, y: str) -> str:
        """``maximum`` or ``minimum`` as the reader writes it."""
        return self.add(op, x, y, self.relu(self.add("sub", x, y)))

    def graph(self, output: str | None = None) -> Graph:
        """The graph so far, of the last node or of a named one."""
        output = output or self.nodes[-1].name
        bare = Graph(tuple(self.nodes), "x", output, {"x": self.shape})
        values = evaluate_all(place(bare), torch.zeros(1, *self.shape, dtype=torch.float64))
        shapes = {name: tuple(value.shape[1:]) for name, value in values.items()}
        return Graph(tuple(self.nodes), "x", output, shapes)


def only(op: str, shapes: Sequence[Shape], attributes: dict[str, Any] | None = None, **constants: Any) -> Graph:
    """A graph whose output is one operator, on operands cut out of the input where it takes several."""
    if len(shapes) == 1:
        builder = Builder(*shapes[0])
        builder.add(op, "x", attributes=attributes, **constants)
        return builder.graph()
    builder = Builder(sum(int(np.prod(shape)) for shape in shapes))
    operands, start = [], 0
    for shape in shapes:
        operands.append(builder.part(start, *shape))
        start += int(np.prod(shape))
    if op in ("maximum", "minimum"):
        builder.extremum(op, *operands)
    else:
        builder.add(op, *operands, attributes=attributes, **constants)
    return builder.graph()
