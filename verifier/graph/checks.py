"""What makes a graph legal: run after reading and after every rewrite, so that a wrong one cannot spread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from verifier.graph.ir import Graph, Node
from verifier.graph.shapes import Shape, shape_of


@dataclass(frozen=True)
class Signature:
    """What a node of one operator must have.

    Args:
        inputs: how many; None for one or more.
        attributes, constants: names that must be there.
        optional: constants that may be there.
    """

    inputs: int | None
    attributes: frozenset[str] = frozenset()
    constants: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()


def _signature(inputs: int | None, attributes: str = "", constants: str = "", optional: str = "") -> Signature:
    return Signature(inputs, *(frozenset(names.split()) for names in (attributes, constants, optional)))


SIGNATURES: Mapping[str, Signature] = MappingProxyType(
    {
        "input": _signature(0),
        "constant": _signature(0, constants="value"),
        "linear": _signature(1, constants="weight", optional="bias"),
        "conv": _signature(1, "stride padding dilation groups", "weight", "bias"),
        "conv_transpose": _signature(1, "stride padding output_padding dilation groups", "weight", "bias"),
        "scale": _signature(1, constants="scale shift"),
        "expand": _signature(1, "shape"),
        "add": _signature(2),
        "sub": _signature(2),
        "reshape": _signature(1, "shape"),
        "transpose": _signature(1, "perm"),
        "concat": _signature(None, "axis"),
        "take": _signature(1, "axis", "indices"),
        "pad": _signature(1, "pads value"),
        "sum": _signature(1, "axes"),
        "relu": _signature(1, constants="slope"),
        "maximum": _signature(3),
        "minimum": _signature(3),
        "clip": _signature(1, "low high"),
        "sigmoid": _signature(1),
        "tanh": _signature(1),
        "softmax": _signature(1, "axis"),
        "log_softmax": _signature(1, "axis"),
    }
)


def check(graph: Graph) -> Graph:
    """The graph itself, if it is legal.

    Legal means: names are unique, the input comes first and is the only one, every node reads earlier nodes and has
    what its operator needs, constants are finite float64 (indices int64), and the shapes are what they must be.

    Raises:
        ValueError: it is not; the message names the node. That is an error in this package, not in its input.
    """
    known: dict[str, Shape] = {}
    for position, node in enumerate(graph.nodes):
        if node.name in known:
            raise ValueError(f"two nodes named {node.name!r}")
        if (node.op == "input") != (position == 0) or (position == 0 and node.name != graph.input):
            raise ValueError(f"node {node.name!r}: the input must be the first node, and the only one")
        _check_node(node, known)
        known[node.name] = _check_shape(node, graph, known)
    if graph.output not in known or known.keys() != graph.shapes.keys():
        raise ValueError("the output, or the shapes, name nodes that are not there")
    return graph


def _check_node(node: Node, known: Mapping[str, Shape]) -> None:
    signature = SIGNATURES.get(node.op)
    if signature is None:
        raise ValueError(f"node {node.name!r}: unknown operator {node.op!r}")
    if not (len(node.inputs) == signature.inputs or (signature.inputs is None and node.inputs)):
        raise ValueError(f"node {node.name!r}: {node.op} with {len(node.inputs)} inputs")
    missing = [name for name in node.inputs if name not in known]
    if missing:
        raise ValueError(f"node {node.name!r} reads {missing}, which do not come before it")
    if node.attributes.keys() != signature.attributes:
        raise ValueError(f"node {node.name!r}: {node.op} with the attributes {sorted(node.attributes)}")
    if not signature.constants <= node.constants.keys() <= signature.constants | signature.optional:
        raise ValueError(f"node {node.name!r}: {node.op} with the constants {sorted(node.constants)}")
    for name, value in node.constants.items():
        wanted = np.int64 if name == "indices" else np.float64
        if value.dtype != wanted or not np.isfinite(value).all():
            raise ValueError(f"node {node.name!r}: its {name} is not finite {np.dtype(wanted).name}")


def _check_shape(node: Node, graph: Graph, known: Mapping[str, Shape]) -> Shape:
    stated = tuple(graph.shapes.get(node.name, ()))
    shape = stated if node.op == "input" else shape_of(node, [known[name] for name in node.inputs])
    if node.name not in graph.shapes or shape != stated:
        raise ValueError(f"node {node.name!r} has the shape {list(shape)}, not {list(stated)}")
    return shape
