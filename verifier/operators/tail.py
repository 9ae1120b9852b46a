"""A final Softmax or LogSoftmax: the property is carried over to the logits, where it is linear."""

from __future__ import annotations

from dataclasses import replace
from math import fsum

import numpy as np

from verifier.errors import InputError
from verifier.graph.ir import Graph, Node
from verifier.specs.property import Polytope, Query

TAILS = ("softmax", "log_softmax")


def to_logits(graph: Graph, query: Query) -> tuple[Graph, Query]:
    """The network without its final (Log)Softmax, and the query on its logits; both unchanged where there is none.

    ``log_softmax`` keeps every difference of outputs, so rows whose coefficients sum to zero stay as they are.
    ``softmax`` keeps only the order of outputs, so rows that compare two of them stay.

    Raises:
        InputError: a row is neither; it names the row.
    """
    last = next(node for node in graph.nodes if node.name == graph.output)
    if last.op not in TAILS:
        return graph, query
    for number, prop in enumerate(query.properties):
        for polytope in prop.unsafe:
            _check(graph, last, polytope, f"{query.name or 'property'} {number}")
    logits = last.inputs[0]
    nodes = tuple(node for node in graph.nodes if node is not last)
    return replace(graph, nodes=nodes, output=logits), query


def _check(graph: Graph, last: Node, polytope: Polytope, where: str) -> None:
    axis = last.attributes["axis"]
    for C, d in zip(polytope.C, polytope.d, strict=True):
        row = np.moveaxis(C.reshape(graph.output_shape), axis, -1)
        row = row.reshape(-1, row.shape[-1])
        balanced = all(fsum(group) == 0 for group in row)  # exact: plain sums lose small coefficients
        compares = balanced and np.count_nonzero(row) == 2 and d == 0
        if not (balanced if last.op == "log_softmax" else compares):
            raise InputError(
                where,
                f"a row of it is not a comparison of outputs, which is all that survives the final {last.source}",
                "state the property on the logits, or export the network without its last layer",
            )
