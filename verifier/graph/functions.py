"""Model-local functions, which are inlined before a network is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx

from verifier.graph.faults import Invalid

#: the most nodes that a network may have once its functions are inlined
MAX_NODES = 1_000_000

_Key = tuple[str, str, str]


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without calls of its own functions.

    Raises:
        Invalid: a function calls itself, or inlining would give more than `MAX_NODES` nodes.
    """
    if not model.functions:
        return model
    if _expanded_size(model) > MAX_NODES:
        raise Invalid(f"its functions expand to more than {MAX_NODES:,} nodes", "give a smaller network")
    from onnx.inliner import inline_local_functions  # needed by few files

    return inline_local_functions(model)


def _expanded_size(model: onnx.ModelProto) -> int:
    """Number of nodes after inlining, found without doing it: nested functions can grow exponentially."""
    calls = {(f.domain, f.name, f.overload): list(_called(f.node)) for f in model.functions}
    sizes: dict[_Key, int] = {}
    while len(sizes) < len(calls):
        ready = [
            key for key, nodes in calls.items() if key not in sizes and all(n in sizes or n not in calls for n in nodes)
        ]
        if not ready:
            raise Invalid("one of its functions calls itself")
        for key in ready:
            sizes[key] = sum(sizes.get(node, 1) for node in calls[key])
    return sum(sizes.get(node, 1) for node in _called(model.graph.node))


def _called(nodes: Iterable[onnx.NodeProto]) -> Iterator[_Key]:
    """What each node calls, those in the graphs of control flow included."""
    for node in nodes:
        yield node.domain, node.op_type, node.overload
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _called(graph.node)
