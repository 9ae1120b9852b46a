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

from verifier.bounding.dual import CasePoint, DualPoint, Relaxation, envelopes_over, lower_bound
from verifier.bounding.intermediate import entries_split, unit_bounds
from verifier.bounding.rows import Rows
from verifier.graph.ir import Graph
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
    known: tuple[Tensor, DualPoint],
    deadline: float | None = None,
) -> Worth | None:
    """What the ends of all boxes are worth to those polytopes of each property that are not missed yet, or to the
    nearest; None where there is no time for it.

    Args:
        relaxation: with the steps behind its boxes, which are differentiated one by one from the last to the first, so
            that the coefficients of one are in memory at a time; of trees the steps that they began from are enough.
        known: bounds (B, S) of the property's rows, which say what is missed, and the dual point of their ascent.
        deadline: `time.monotonic` value.
    """

    lower, dual = known
    margins = rows.margins(lower)
    counts = margins <= margins.amin(1, keepdim=True).clamp(min=0)

    def of_margins(now: Relaxation) -> Tensor:
        return rows.margins(lower_bound(graph, region, now, rows.objective, dual))[counts].sum()

    slopes = _slopes(graph, relaxation, of_margins)
    for name in reversed(slopes):  # all that comes behind has been added up by then
        low, high = slopes[name]
        for entries, point in reversed(relaxation.steps[name]):  # the last of those that bound an entry is the tightest
            if isinstance(point, CasePoint):
                continue
            if deadline is not None and monotonic() > deadline:
                return None
            weight = torch.cat([low.gather(1, entries), -high.gather(1, entries)], 1)
            bounds = partial(unit_bounds, graph, region, name=name, rows=entries, dual=point)
            more = _slopes(graph, relaxation, lambda now, f=bounds, w=weight: (f(relaxation=now) * w).sum())
            slopes = {n: (slopes[n][0] + more[n][0], slopes[n][1] + more[n][1]) for n in slopes}
            low, high = (slope.scatter(1, entries, 0.0) for slope in (low, high))
    ends = {name: (low.clamp(min=0), high.neg().clamp(min=0)) for name, (low, high) in slopes.items()}
    size = rows.objective.C.new_zeros(region.enclosing_box().batch)
    for name, (low, high) in ends.items():
        box = relaxation.boxes[name]
        size = size + ((low + high) * flat(box.upper - box.lower) * flat(entries_split(graph, name, box))).sum(1)
    return Worth(ends, size)


def _slopes(
    graph: Graph, relaxation: Relaxation, value: Callable[[Relaxation], Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Derivatives (B, n) of a number that depends on a relaxation, with respect to both ends of all boxes that were
    tightened."""
    boxes = {
        name: Box(
            *(end.clone().requires_grad_() for end in (relaxation.boxes[name].lower, relaxation.boxes[name].upper))
        )
        for name, steps in relaxation.steps.items()
        if steps
    }
    moved = {**relaxation.boxes, **boxes}
    with torch.enable_grad():
        found = value(Relaxation(moved, envelopes_over(graph, relaxation, moved)))
        ends = [end for box in boxes.values() for end in (box.lower, box.upper)]
        if found.requires_grad:
            parts = torch.autograd.grad(found, ends, materialize_grads=True)
        else:
            parts = [torch.zeros_like(end) for end in ends]
    parts = [flat(part) for part in parts]
    return dict(zip(boxes, zip(parts[::2], parts[1::2], strict=True), strict=True))
