"""Interval bound propagation (IBP): boxes pushed forward, one operator at a time.

Gowal et al. 2018, arXiv 1810.12715.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from verifier.bounding.dual import Relaxation
from verifier.graph.ir import Graph, Node
from verifier.operators.table import OPERATORS
from verifier.specs.box import magnitude
from verifier.specs.region import Box, Region

#: products in a sum whose rounding errors are covered, in units of the sum of their absolute values
TERMS = 1 << 13


def step(node: Node, boxes: Mapping[str, Box], input_name: str) -> Box:
    """Interval of one node from those of its inputs (a source without inputs borrows the batch size of the input)."""
    inputs = [boxes[name] for name in node.inputs] or [boxes[input_name]]
    return OPERATORS[node.op].interval(node, *inputs)


def outward(node: Node, boxes: Mapping[str, Box], input_name: str) -> Box:
    """The same, wider by what an affine operator rounds: from layer to layer the widths carry on what was rounded.

    So no activation is dead by rounding alone. It costs two more products, and is for proofs, in float64.
    """
    operator = OPERATORS[node.op]
    if operator.adjoint is None or not node.inputs:
        return step(node, boxes, input_name)
    wide = [wider(boxes[name], magnitude(boxes[name])) for name in node.inputs]
    box = operator.interval(node, *wide)
    offset = operator.forward(node, *(torch.zeros_like(one.lower[:1]) for one in wide))
    return wider(box, magnitude(box) + offset.abs())


def wider(box: Box, size: Tensor) -> Box:
    """A box and what sums round whose products have such absolute values in all."""
    return Box(box.lower - rounded(size), box.upper + rounded(size))


def rounded(size: Tensor) -> Tensor:
    """Allowance for sums whose products have such absolute values in all."""
    return TERMS * torch.finfo(size.dtype).eps * size


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
