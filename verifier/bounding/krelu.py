"""k-ReLU: cuts on groups of neurons, derived from the dual function's own bounds on their inputs.

Singh et al. 2019 (NeurIPS), "Beyond the single neuron convex barrier for neural network certification". For every
group: its octahedron by backward passes, the points that span the hull of inputs and outputs over it, and cuts.

Axes: B batch, G groups, D directions, k neurons of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from time import monotonic

import torch
from torch import Tensor

from verifier.bounding.ascent import AscentOptions, ancestors, ascend
from verifier.bounding.cases import CaseOptions
from verifier.bounding.dual import Relaxation
from verifier.bounding.intermediate import (
    Bounded,
    IntermediateOptions,
    Join,
    Steps,
    Tighten,
    both_sides,
    by_dual,
    intersect_rows,
    rows_per_chunk,
    share_until,
    unit_rows,
)
from verifier.bounding.octahedra import OctahedraOptions, Weights, each, octahedra
from verifier.graph.ir import Graph, Node
from verifier.operators.table import OPERATORS
from verifier.relaxations.cuts import Cuts, Hulls, JointBound
from verifier.relaxations.groups import GroupOptions, choose_groups
from verifier.relaxations.hulls import facets, limits
from verifier.relaxations.octahedra import corners
from verifier.specs.box import flat
from verifier.specs.region import Box, Region
from verifier.workers import Workers, chunks_of

#: points of octahedra lie beyond the box by less than this share of its largest end
_BEYOND = 1e-6


@dataclass(frozen=True)
class KReluOptions:
    """How cuts are made.

    Args:
        groups: which neurons go together.
        facets: whether the hulls' facets are computed (`Cuts`), or their corners only (`Hulls`), which is quick for
            larger groups, too, but takes more steps to climb.
        octahedra: what is known of their inputs.
        chunk_bytes: memory that coefficients and multipliers of one chunk of rows take.
        budget: numbers that the multipliers of all rows on the box of one node may be; the neurons of the largest
            area come first, and the boxes of those beyond it are tightened without cuts.
        cases: case distinctions that tighten the boxes in place of the ascent, in networks without convolutions; None
            for none.
        kept: time that is kept for the property's rows, as a share of what a box has.
        smooth: whether sigmoids and tanhs are grouped, too: their hulls have many facets.
    """

    groups: GroupOptions = field(default_factory=GroupOptions)
    facets: bool = True
    octahedra: OctahedraOptions = field(
        default_factory=lambda: OctahedraOptions(AscentOptions(iterations=5, step=0.1, decay=0.9))
    )
    chunk_bytes: int = 8 << 20
    budget: int = 1 << 25
    cases: CaseOptions | None = field(default_factory=CaseOptions)
    kept: float = 0.3
    smooth: bool = False


def by_dual_with_cuts(
    graph: Graph,
    region: Region,
    intermediate: IntermediateOptions,
    options: KReluOptions,
    deadline: float | None = None,
    known: Relaxation | None = None,
) -> Tighten:
    """Tighten boxes by the dual function at CROWN's point, and by ascent that also climbs on the cuts before a node.

    Args:
        intermediate: its ascent is the one with cuts; None goes without.
        known: as of `by_dual`.
    """
    ascent = intermediate.ascent
    first = by_dual(graph, region, replace(intermediate, ascent=None), deadline, known)

    def climbed(name: str, now: Relaxation, ascent: AscentOptions, until: float | None, rows: Tensor) -> Bounded | None:
        """Both sides of some entries (B, R) of a node by ascent; None where it is too late."""
        if until is not None and monotonic() > until:
            return None
        if not now.cuts:
            return both_sides(graph, region, now, name, rows, intermediate.slopes, ascent, until)
        objective = unit_rows(graph, name, rows, now.boxes[name].lower.dtype)  # dense rows, which know cuts
        return ascend(graph, region, now, objective, ascent, deadline=until)

    def by_ascent(
        name: str, relaxation: Relaxation, box: Box, wanted: Callable[[Box], Tensor], until: float | None
    ) -> tuple[Box, Steps]:
        """All that is wanted, as much of it with cuts as the budget allows."""
        if ascent is None:
            return box, ()
        below, steps = ancestors(graph, name), ()
        width = sum(cut.zero(1)[0].numel() for node, cut in relaxation.cuts.items() if node in below)
        rows = _by_area(box, wanted(box))
        count = min(rows.shape[1], options.budget // (2 * box.batch * width)) if width else 0
        workers = Workers.on(box.lower.device)
        for part, cuts, more in ((rows[:, :count], relaxation.cuts, width), (rows[:, count:], {}, 0)):
            now = replace(relaxation, boxes={**relaxation.boxes, name: box}, cuts=cuts)
            chunks = chunks_of(part, rows_per_chunk(graph, name, box, options.chunk_bytes, more), workers.count)
            work = partial(climbed, name, now, ascent, until)
            for chunk, found in zip(chunks, workers.map(work, chunks), strict=True):
                if found is not None:
                    box, steps = intersect_rows(box, chunk, found[0]), (*steps, (chunk, found[1]))
        return box, steps

    def tighten(name: str, relaxation: Relaxation, wanted: Callable[[Box], Tensor]) -> tuple[Box, Steps]:
        until = share_until(graph, relaxation, deadline, options.kept)
        box, steps = first(name, relaxation, wanted)
        if not steps:  # intervals that are exact need none
            return box, steps
        box, more = by_ascent(name, relaxation, box, wanted, until)
        return box, (*steps, *more)

    return tighten


def _by_area(box: Box, wanted: Tensor) -> Tensor:
    """Flat indices (B, R) of the wanted entries, those of the largest triangle first."""
    area = torch.where(flat(wanted), -flat(box.lower) * flat(box.upper), -torch.inf)
    return area.argsort(dim=1, descending=True, stable=True)[:, : int(flat(wanted).sum(1).max())]


def join_groups(graph: Graph, region: Region, options: KReluOptions, deadline: float | None = None) -> Join:
    """Cuts for every activation with enough unstable neurons: those with kinks, and by the options smooth ones.

    Args:
        deadline: `time.monotonic` value after which no further activation gets any.
    """

    def join(node: Node, relaxation: Relaxation) -> JointBound | None:
        late = deadline is not None and monotonic() > deadline
        found = None if late else candidates(graph, region, relaxation, node, options)
        if found is None:
            return None
        groups, points, weights = found
        dtype = relaxation.boxes[node.inputs[0]].lower.dtype
        if not options.facets:
            return Hulls(groups, points.to(dtype), weights)
        normals = facets(points.flatten(0, 1)).unflatten(0, points.shape[:2])
        return with_limits(groups, normals.to(dtype), points, weights)

    return join


def candidates(
    graph: Graph, region: Region, relaxation: Relaxation, node: Node, options: KReluOptions
) -> tuple[Tensor, Tensor, Weights] | None:
    """Groups (B, G, k) of an activation with the points (B, G, V, 2k) that span their hulls, and the line weights that
    bounded the octahedra; None where it takes no part or has no groups."""
    operator, box = OPERATORS[node.op], relaxation.boxes[node.inputs[0]]
    if operator.splits is None or (operator.kinks is None and not (options.smooth and operator.pieces is not None)):
        return None
    area = -box.lower * box.upper if operator.kinks is not None else _area_of_lines(relaxation, node)
    area = torch.where(operator.splits(node, box), area, torch.zeros_like(area))
    groups = choose_groups(flat(area), options.groups)
    if groups is None:
        return None
    return groups, *_points(graph, region, relaxation, node, groups, options.octahedra)


def _area_of_lines(relaxation: Relaxation, node: Node) -> Tensor:
    """Twice the area (B, *X) that the lines which CROWN takes of each neuron leave over its interval."""
    envelope, box = relaxation.envelopes[node.name], relaxation.boxes[node.inputs[0]]
    low, high = (
        slope[:, 0] * (box.lower + box.upper) / 2 + (0.0 if icept is None else icept[:, 0])
        for slope, icept in (envelope.lower.line(None), envelope.upper.line(None))
    )
    return 2 * (high - low) * (box.upper - box.lower)


def join_again(graph: Graph, region: Region, evidence: Mapping[str, JointBound]) -> Join:
    """The cuts that `evidence` has over another relaxation, such as one in float64.

    Of the evidence only groups, normals and line weights are taken: octahedra, points and limits are computed anew.
    """

    def join(node: Node, relaxation: Relaxation) -> JointBound | None:
        old, dtype = evidence.get(node.name), relaxation.boxes[node.inputs[0]].lower.dtype
        if not isinstance(old, Cuts | Hulls):
            return None
        known = each(old.evidence, lambda w: w.to(dtype))
        points, weights = _points(graph, region, relaxation, node, old.index, OctahedraOptions(), known)
        if isinstance(old, Hulls):
            return Hulls(old.index, points.to(dtype), weights)
        return with_limits(old.index, torch.cat([old.P, old.R], -1).to(dtype), points, weights)

    return join


def with_limits(groups: Tensor, normals: Tensor, points: Tensor, weights: Weights) -> Cuts:
    """Cuts (B, G, F) with normals (B, G, F, 2k) of any origin, valid for the hulls of points (B, G, V, 2k)."""
    k, batch = groups.shape[-1], points.shape[:2]
    p = limits(normals.flatten(0, 1), points.flatten(0, 1)).unflatten(0, batch)
    return Cuts(groups, normals[..., :k], normals[..., k:], p.to(normals.dtype), weights)


def _points(
    graph: Graph,
    region: Region,
    relaxation: Relaxation,
    node: Node,
    groups: Tensor,
    options: OctahedraOptions,
    known: Weights | None = None,
) -> tuple[Tensor, Weights]:
    """Points (B, G, V, 2k) in float64, outputs first, whose hulls hold the groups (B, G, k) of an activation.

    With them the line weights that bounded the octahedra; `known` ones are evaluated again.
    """
    operator, k = OPERATORS[node.op], groups.shape[-1]
    reach, weights = octahedra(graph, region, relaxation, node.inputs[0], groups, options, known)
    if operator.kinks is not None:
        x = corners(reach.flatten(0, 1), operator.kinks(node), k).unflatten(0, reach.shape[:2])
        return torch.cat([operator.forward(_of_entries(graph, node, groups), x), x], -1), weights
    assert operator.pieces is not None
    limits = reach.flatten(0, 1).double()
    margin = _BEYOND * limits[:, : 2 * k].abs().amax(1, keepdim=True)
    lower, upper = -limits[:, k : 2 * k], limits[:, :k]
    pieces = operator.pieces(node, Box(torch.minimum(lower, upper) - margin, torch.maximum(lower, upper) + margin))
    x = corners(limits, pieces.inner, k)
    sides = [side.transpose(1, 2) for side in pieces.at(x.transpose(1, 2))]
    z = [torch.stack([sides[c][..., i] for i, c in enumerate(choice)], -1) for choice in product((0, 1), repeat=k)]
    return torch.cat([torch.cat([part, x], -1) for part in z], 1).unflatten(0, reach.shape[:2]), weights


def _of_entries(graph: Graph, node: Node, groups: Tensor) -> Node:
    """An activation with its constants (slopes) picked for the entries of groups: (B, G, 1, k)."""
    shape = graph.shapes[node.name]
    constants = {
        name: value.double().expand(shape).reshape(-1)[groups].unsqueeze(-2) for name, value in node.constants.items()
    }
    return replace(node, constants=constants)
