"""How large a network's linear program can become, known before any work is done."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch

from verifier.bounding.ascent import ancestors
from verifier.bounding.dual import Objective, linear_bound
from verifier.bounding.lp.lines import TANGENTS
from verifier.errors import InputError
from verifier.graph.ir import Graph
from verifier.operators.cost import placement
from verifier.operators.table import OPERATORS

#: memory that a solver may take, in bytes
MOST_BYTES = 4 << 30
#: rough memory of a solver: its copies of the matrix and the factors of a basis
BYTES_PER_NONZERO, BYTES_PER_LINE = 150, 1000
#: lines of a piecewise linear activation on both sides together, at most
_LINES = 4
#: activations that are bounded by tangents
_SMOOTH = ("sigmoid", "tanh")


@dataclass(frozen=True)
class Size:
    """Columns, rows and nonzero coefficients, where no neuron is stable."""

    columns: int
    rows: int
    nonzeros: int

    @property
    def bytes(self) -> int:
        return BYTES_PER_NONZERO * self.nonzeros + BYTES_PER_LINE * (self.rows + self.columns)


def estimate(graph: Graph) -> Size:
    """Size of the program of a placed graph; the rows of a layer are taken to be as full as the one of its middle."""
    below = ancestors(graph, graph.output)
    columns, rows, nonzeros = prod(graph.input_shape), 0, 0
    for node in graph.nodes:
        if node.name in below and node.op != "input" and OPERATORS[node.op].envelope is not None:
            count, lines = prod(graph.shapes[node.name]), 2 * TANGENTS if node.op in _SMOOTH else _LINES
            columns += 2 * count
            rows += (1 + lines) * count
            nonzeros += (1 + 2 * lines + _width(graph, node.inputs[0])) * count
    return Size(columns, rows, nonzeros)


@torch.no_grad()
def _width(graph: Graph, name: str) -> int:
    """Coefficients of the entry in the middle of a node on the network's input and outputs of activations."""
    dtype, device = placement(graph)
    C = torch.zeros(1, 1, prod(graph.shapes[name]), dtype=dtype, device=device)
    C[..., C.shape[2] // 2] = 1.0
    bound = linear_bound(graph, {}, Objective(name, C.reshape(1, 1, *graph.shapes[name])))
    return sum(int(A.count_nonzero()) for A in bound.A.values())


def require_size(graph: Graph, most: int = MOST_BYTES) -> None:
    """Refuse a network whose program would not fit into so many bytes.

    Raises:
        InputError: names the estimate.
    """
    size = estimate(graph)
    if size.bytes > most:
        raise InputError(
            str(graph.file.path) if graph.file else "network",
            f"its linear program would have up to {size.columns:,} columns, {size.rows:,} rows and {size.nonzeros:,} "
            f"nonzeros, about {size.bytes / 2**30:.2g} GiB of memory, and {most / 2**30:.2g} GiB are allowed",
            "choose --method alpha-crown or auto, or allow more with --memory",
        )
