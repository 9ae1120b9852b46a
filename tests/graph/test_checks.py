"""The check of a graph finds whatever makes it illegal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from verifier.graph.checks import SIGNATURES, check
from verifier.graph.ir import OPS, Graph, Node
from verifier.graph.shapes import RULES

LAYER = Node("h", "linear", ("x",), constants={"weight": np.ones((3, 4)), "bias": np.zeros(3)})
LAST = Node("y", "relu", ("h",), constants={"slope": np.zeros(())})
GRAPH = Graph((Node("x", "input"), LAYER, LAST), "x", "y", {"x": (1, 4), "h": (1, 3), "y": (1, 3)})


def with_layer(**changes: Any) -> Graph:
    return replace(GRAPH, nodes=(GRAPH.nodes[0], replace(LAYER, **changes), LAST))


def test_a_legal_graph_passes():
    assert check(GRAPH) is GRAPH


def test_every_operator_has_a_signature_and_a_shape():
    assert SIGNATURES.keys() == OPS.keys()
    assert RULES.keys() == OPS.keys() - {"input"}


ILLEGAL: dict[str, Callable[[], Graph]] = {
    "two nodes named": lambda: replace(GRAPH, nodes=(*GRAPH.nodes, LAST)),
    "must be the first node": lambda: replace(GRAPH, nodes=GRAPH.nodes[1:]),
    "the only one": lambda: replace(GRAPH, nodes=(*GRAPH.nodes, Node("z", "input"))),
    "unknown operator": lambda: with_layer(op="sine"),
    "with 2 inputs": lambda: with_layer(inputs=("x", "x")),
    "do not come before": lambda: with_layer(inputs=("y",)),
    "with the attributes": lambda: with_layer(attributes={"axis": 1}),
    "with the constants": lambda: with_layer(constants={"bias": np.zeros(3)}),
    "its weight is not finite float64": lambda: with_layer(constants={"weight": np.ones((3, 4), np.float32)}),
    "its bias is not finite": lambda: with_layer(constants={"weight": np.ones((3, 4)), "bias": np.full(3, np.nan)}),
    "does not fit": lambda: with_layer(constants={"weight": np.ones((3, 5))}),
    "the bias does not have": lambda: with_layer(constants={"weight": np.ones((3, 4)), "bias": np.zeros(4)}),
    r"has the shape \[1, 3\], not \[3\]": lambda: replace(GRAPH, shapes={"x": (1, 4), "h": (3,), "y": (1, 3)}),
    "name nodes that are not there": lambda: replace(GRAPH, output="z"),
    "shapes, name nodes": lambda: replace(GRAPH, shapes={**GRAPH.shapes, "z": (1,)}),
}


@pytest.mark.parametrize("message", ILLEGAL)
def test_an_illegal_graph_is_found(message: str):
    with pytest.raises(ValueError, match=message):
        check(ILLEGAL[message]())
