"""Interval bound propagation (IBP): boxes pushed forward, one operator at a time.

Gowal et al. 2018, arXiv 1810.12715.
"""

from __future__ import annotations

from collections.abc import Mapping

from verifier.bounding.dual import Relaxation
from verifier.graph.ir import Graph, Node
from verifier.operators.table import OPERATORS
from verifier.specs.region import Box, Region


def step(node: Node, boxes: Mapping[str, Box], input_name: str) -> Box:
    """Interval of one node from those of its inputs (a source without inputs borrows the batch size of the input)."""
    inputs = [boxes[name] for name in node.inputs] or [boxes[input_name]]
    return OPERATORS[node.op].interval(node, *inputs)


def interval_boxes(graph: Graph, region: Region) -> dict[str, Box]:
    """Intervals (B, *shape) of every node of a placed graph over a region; differentiable."""
    boxes = {graph.input: region.enclosing_box()}
    for node in graph.nodes:
        if node.op != "input":
            boxes[node.name] = step(node, boxes, graph.input)
    return boxes


def interval_relaxation(graph: Graph, region: Region) -> Relaxation:
    """Intervals only. `lower_bound` then merges its rows with the affine operators at the network's end before they
    meet the boxes of the last activations (the elision of the last layer of Gowal et al. 2018)."""
    return Relaxation(interval_boxes(graph, region), {})
