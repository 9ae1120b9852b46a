"""What tighter boxes are worth to a property, which says how far case trees are worth growing.

The bound of a row depends on both ends of every box, directly and through the boxes behind it, which are bounds as
well. Its gradient with respect to an end says how much is gained where that end is tightened, with all that follows.

Axes: B batch, R entries of a node, n all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from time import monotonic

import torch
from torch import Tensor

from verifier.bounding.dual import CasePoint, DualPoint, Relaxation, lower_bound
from verifier.bounding.intermediate import unit_bounds
from verifier.bounding.rows import Rows
from verifier.graph.ir import Graph
from verifier.operators.table import OPERATORS
from verifier.specs.box import flat
from verifier.specs.region import Box, Region


@dataclass(frozen=True)
class Worth:
    """What the margins of a property gain.

    Args:
        ends: node -> gain (B, n) for every unit that a lower end rises, and that an upper end falls.
        size: (B,) what they would gain if every box that can be tightened shrank to a point at this rate.
        passes: forward passes of the network that all of the size is worth: a leaf has to gain its share.
    """

    ends: Mapping[str, tuple[Tensor, Tensor]]
    size: Tensor
    passes: float = 1.0

    def rate(self, name: str, rows: Tensor, cost: float) -> Tensor:
        """How many leaves a unit of gain pays for, (B, 2R), on a node's entries (B, R) and on their negatives.

        Args:
            cost: of one leaf, in forward passes of the network.
        """
        low, high = self.ends[name]
        gain = torch.cat([low.gather(1, rows), high.gather(1, rows)], 1)
        share = self.size.unsqueeze(1)
        return torch.where(share > 0, gain * (self.passes / cost) / share, 0.0)


def worth_of(
    graph: Graph,
    region: Region,
    relaxation: Relaxation,
    rows: Rows,
    dual: DualPoint,
    deadline: float | None = None,
) -> Worth | None:
    """What the ends of all boxes are worth to those polytopes of each property that are not missed yet, or to the
    nearest; None where there is no time for it.

    Args:
        relaxation: with the steps behind its boxes, which are differentiated one by one from the last to the first, so
            that the coefficients of one are in memory at a time; of trees the steps that they began from are enough.
        dual: of the property's rows.
        deadline: `time.monotonic` value.
    """
    slopes = {
        name: [torch.zeros_like(flat(end)) for end in (relaxation.boxes[name].lower, relaxation.boxes[name].upper)]
        for name, steps in relaxation.steps.items()
        if steps
    }

    def add_slopes(value: Callable[[Relaxation], Tensor]) -> None:
        """Add those of a number that depends on the boxes."""
        ends = {name: [end.clone().requires_grad_() for end in _ends(relaxation.boxes[name])] for name in slopes}
        boxes = {**relaxation.boxes, **{name: Box(*pair) for name, pair in ends.items()}}
        with torch.enable_grad():
            envelopes = {
                node.name: OPERATORS[node.op].envelope(node, boxes[node.inputs[0]])  # type: ignore[misc]
                for node in graph.nodes
                if node.name in relaxation.envelopes
            }
            found = value(Relaxation(boxes, envelopes))
            if found.requires_grad:
                parts = torch.autograd.grad(found, [end for pair in ends.values() for end in pair], allow_unused=True)
                for total, part in zip((t for pair in slopes.values() for t in pair), parts, strict=True):
                    total += 0.0 if part is None else flat(part)

    def of_margins(now: Relaxation) -> Tensor:
        margins = rows.margins(lower_bound(graph, region, now, rows.objective, dual))
        return margins[margins <= margins.amin(1, keepdim=True).clamp(min=0)].sum()

    add_slopes(of_margins)
    for name, pair in reversed(slopes.items()):
        left = [slope.clone() for slope in pair]
        for entries, point in reversed(relaxation.steps[name]):  # the last of those that bound an entry is the tightest
            if isinstance(point, CasePoint):
                continue
            if deadline is not None and monotonic() > deadline:
                return None
            weight = torch.cat([left[0].gather(1, entries), -left[1].gather(1, entries)], 1)
            bounds = partial(unit_bounds, graph, region, name=name, rows=entries, dual=point)
            add_slopes(lambda now, bounds=bounds, weight=weight: (bounds(relaxation=now) * weight).sum())
            left = [slope.scatter(1, entries, 0.0) for slope in left]
    ends = {name: (low.clamp(min=0), high.neg().clamp(min=0)) for name, (low, high) in slopes.items()}
    size = rows.objective.C.new_zeros(region.enclosing_box().batch)
    for node in graph.nodes:
        splits, source = OPERATORS[node.op].splits if node.op in OPERATORS else None, (*node.inputs, "")[0]
        if splits is not None and source in ends:
            box, (low, high) = relaxation.boxes[source], ends[source]
            size = size + ((low + high) * flat(box.upper - box.lower) * flat(splits(node, box))).sum(1)
    return Worth(ends, size)


def _ends(box: Box) -> tuple[Tensor, Tensor]:
    return box.lower, box.upper
