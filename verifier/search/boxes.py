"""Relaxing a batch of subproblems, each with the pre-activation boxes that its parent left it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from verifier.bounding.dual import DualPoint, Objective, Relaxation
from verifier.bounding.intermediate import Steps, Tighten
from verifier.bounding.rounding import rounding_scale, roundings
from verifier.graph.ir import Graph
from verifier.operators.table import OPERATORS
from verifier.specs.box import overlap
from verifier.specs.region import Box
from verifier.specs.rounding import narrow

Boxes = Mapping[str, Box]


def sources(graph: Graph) -> tuple[str, ...]:
    """Nodes that are the input of an activation whose envelope depends on it, in order."""
    nodes = (node for node in graph.nodes if node.op in OPERATORS and OPERATORS[node.op].splits is not None)
    return tuple(dict.fromkeys(node.inputs[0] for node in nodes))


def in_working(boxes: Boxes, dtype: torch.dtype, device: torch.device) -> dict[str, Box]:
    """Boxes in the precision of a search, no smaller than they were."""
    return {
        name: Box(narrow(box.lower, dtype, device, -torch.inf), narrow(box.upper, dtype, device, torch.inf))
        for name, box in boxes.items()
    }


def inheriting(known: Boxes, tighten: Tighten) -> Tighten:
    """Start from the boxes that are known already, then tighten."""

    def inherit(name: str, relaxation: Relaxation, wanted: Callable[[Box], Tensor]) -> tuple[Box, Steps]:
        if name in known:
            box = overlap(relaxation.boxes[name], known[name])
            relaxation = replace(relaxation, boxes={**relaxation.boxes, name: box})
        box, _ = tighten(name, relaxation, wanted)
        return box, ()

    return inherit


def slack(graph: Graph, relaxation: Relaxation, objective: Objective, dual: DualPoint) -> Tensor:
    """What a bound at a dual point has to exceed to count, (B, S): see `verifier.bounding.ladder.allowance`."""
    return roundings(rounding_scale(graph, relaxation, objective, dual))
