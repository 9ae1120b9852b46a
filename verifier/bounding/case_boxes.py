"""Boxes tightened by case distinctions, from the dual points that an ascent has found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import monotonic

import torch
from torch import Tensor

from verifier.bounding.ascent import below
from verifier.bounding.cases import CaseOptions, distinguish, numbers, pick_rows
from verifier.bounding.dual import DualPoint, Relaxation
from verifier.bounding.growth import by_gain
from verifier.bounding.intermediate import (
    Steps,
    Tighten,
    intersect_rows,
    share_until,
    unit_bounds,
    unit_rows,
    wanted_rows,
)
from verifier.bounding.octahedra import of_each_row
from verifier.bounding.worth import Worth
from verifier.graph.ir import Graph
from verifier.operators.cost import multiply_adds
from verifier.specs.box import flat, overlap
from verifier.specs.region import Box, Region


def by_cases(
    graph: Graph,
    region: Region,
    options: CaseOptions,
    known: Relaxation,
    worth: Worth,
    kept: float,
    deadline: float | None = None,
) -> Tighten:
    """Tighten the boxes that are known, as far as it is worth it.

    Args:
        known: with line weights of each row behind its boxes.
        kept: as of `share_until`.
        deadline: `time.monotonic` value after which nothing more is tightened.
    """

    whole = multiply_adds(graph)

    def tighten(name: str, relaxation: Relaxation, wanted: Callable[[Box], Tensor]) -> tuple[Box, Steps]:
        cost = multiply_adds(below(graph, name)) / whole
        until, budget = share_until(graph, relaxation, deadline, kept), options.budget
        box = overlap(relaxation.boxes[name], known.boxes[name])
        steps = begun = known.steps.get(name, ())
        for rows, dual in begun:
            if not isinstance(dual, DualPoint) or not of_each_row(rows, dual):
                continue
            chosen = wanted_rows(flat(wanted(box)).gather(1, rows))
            if chosen.shape[1] == 0 or (until is not None and monotonic() > until):
                continue
            some = rows.gather(1, chosen)
            ends = torch.cat([flat(box.lower).gather(1, some), -flat(box.upper).gather(1, some)], 1)
            roots = ends, pick_rows(dual, torch.cat([chosen, chosen + rows.shape[1]], 1))
            now = replace(relaxation, boxes={**relaxation.boxes, name: box})
            objective, pays = unit_rows(graph, name, some, box.lower.dtype), by_gain(worth.rate(name, some, cost))
            how = replace(options, budget=budget)
            bound, point = distinguish(graph, region, now, objective, roots, how, until, pays)
            if point.splits:
                box, steps = intersect_rows(box, some, bound), (*steps, (some, point))
                budget -= numbers(point.point)
        for rows, dual in begun:  # the boxes before are tighter than those that these points were found over
            if until is None or monotonic() < until:
                box = intersect_rows(box, rows, unit_bounds(graph, region, relaxation, name, rows, dual))
        return box, steps

    return tighten


def climbed(known: Relaxation) -> bool:
    """Whether there are line weights of each row behind some box, so that trees have roots."""
    return any(of_each_row(rows, dual) for rows, dual in _plain(known))


def without_cuts(known: Relaxation) -> Relaxation | None:
    """The same boxes without cuts; None where some were found with cuts."""
    return None if any(dual.cut_multipliers for _, dual in _plain(known)) else replace(known, cuts={})


def _plain(known: Relaxation) -> list[tuple[Tensor, DualPoint]]:
    found = (step for steps in known.steps.values() for step in steps)
    return [(rows, dual) for rows, dual in found if isinstance(dual, DualPoint)]
