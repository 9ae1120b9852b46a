"""Which nodes of a file its output needs, in an order in which they can be computed."""

from __future__ import annotations

import heapq
from collections import defaultdict

import onnx

from verifier.graph.faults import Invalid


def ordered(graph: onnx.GraphProto, output: str) -> list[onnx.NodeProto]:
    """The nodes that the output needs, each after those it reads, otherwise in the order of the file.

    Raises:
        Invalid: a tensor has two producers or none, or nodes read each other in a circle; or a name is not text.
    """
    _require_text(graph)
    given = {value.name for value in (*graph.input, *graph.initializer)}
    producers = _producers(graph, given)
    needed = _needed(graph, output, producers, given)
    readers: dict[int, list[int]] = defaultdict(list)
    waiting = {}
    for i in needed:
        sources = {producers[name] for name in graph.node[i].input if name in producers}
        waiting[i] = len(sources)
        for source in sources:
            readers[source].append(i)
    ready = [i for i, count in waiting.items() if count == 0]
    heapq.heapify(ready)
    order: list[onnx.NodeProto] = []
    while ready:
        i = heapq.heappop(ready)
        order.append(graph.node[i])
        for reader in readers[i]:
            waiting[reader] -= 1
            if waiting[reader] == 0:
                heapq.heappush(ready, reader)
    if len(order) < len(needed):
        raise Invalid("some of its nodes read each other in a circle")
    return order


def _require_text(graph: onnx.GraphProto) -> None:
    """protobuf returns bytes for a string that is not UTF-8, which nothing after this expects."""
    for node in graph.node:
        if not all(isinstance(text, str) for text in (node.name, node.op_type, node.domain, *node.input, *node.output)):
            raise Invalid("one of its names is not text", "copy or export it again")


def _producers(graph: onnx.GraphProto, given: set[str]) -> dict[str, int]:
    producers: dict[str, int] = {}
    for i, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in producers or name in given:
                raise Invalid(f"its tensor '{name}' is defined twice")
            producers[name] = i
    return producers


def _needed(graph: onnx.GraphProto, output: str, producers: dict[str, int], given: set[str]) -> set[int]:
    needed: set[int] = set()
    names = [output]
    while names:
        name = names.pop()
        if name in given:
            continue
        if name not in producers:
            raise Invalid(f"no node of it computes '{name}'")
        i = producers[name]
        if i not in needed:
            needed.add(i)
            names.extend(filter(None, graph.node[i].input))
    return needed
