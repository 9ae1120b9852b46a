"""Octahedra of groups of neurons by the dual function: bounds of signed sums of a few entries of a node.

Axes: B batch, G groups, D directions, k neurons of a group, R rows of a step (see `verifier.bounding.intermediate`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from verifier.bounding.ascent import AscentOptions, ancestors, ascend
from verifier.bounding.dual import DualPoint, Objective, Relaxation, lower_bound
from verifier.graph.ir import Graph
from verifier.relaxations.cuts import Mixed, Push
from verifier.relaxations.octahedra import directions
from verifier.specs.box import flat
from verifier.specs.region import Region
from verifier.workers import Workers, chunks_of

#: line weights of the rows on groups' sums, for each activation below: (B, G, D', *X), see `DualPoint`
Weights = Mapping[str, tuple[Tensor | None, Tensor | None]]


@dataclass(frozen=True)
class OctahedraOptions:
    """How octahedra are bounded.

    Args:
        ascent: of the line weights of sums, from those of their terms; None evaluates these only.
        chunk_bytes: memory that the coefficients of one chunk of rows take.
        budget: numbers that the line weights of all rows of a node may be; beyond it there is no ascent.
    """

    ascent: AscentOptions | None = None
    chunk_bytes: int = 8 << 20
    budget: int = 1 << 25


def octahedra(
    graph: Graph,
    region: Region,
    relaxation: Relaxation,
    name: str,
    groups: Tensor,
    options: OctahedraOptions,
    known: Weights | None = None,
) -> tuple[Tensor, Weights]:
    """Upper limits (B, G, D) of a node's groups (B, G, k) in all `directions`, and line weights that give them.

    Those of single entries are the node's box. All others are bounded at CROWN's dual point and, where the box was
    tightened by ascent, at one near that which the dual points of the single entries add up to.

    Args:
        known: the weights, where they were found before.
    """
    batch, count, k = groups.shape
    box = relaxation.boxes[name]
    lower, upper = (flat(end).gather(1, groups.flatten(1)).reshape(groups.shape) for end in (box.lower, box.upper))
    several = directions(k)[2 * k :].to(lower)
    single = _of_single_entries(graph, relaxation, name)
    widest = max(prod(graph.shapes[node]) for node in ancestors(graph, name))
    ascent = options.ascent
    if single is None or batch * count * len(several) * single.size() > options.budget:
        ascent = None
    numbers = batch * len(several) * (widest if single is None else 4 * widest)
    step = max(1, options.chunk_bytes // (lower.element_size() * numbers))
    workers = Workers.on(lower.device)

    def bounded(places: Tensor) -> tuple[Tensor, Weights | None]:
        part = groups[:, places]
        given = None if not known else each(known, lambda w: w[:, places].flatten(1, 2))
        sums = None if single is None else single.sums(part, several)
        return _several(graph, region, relaxation, _rows(graph, name, part, several), sums, given, ascent)

    parts = workers.map(bounded, chunks_of(torch.arange(count, device=groups.device), step, workers.count))
    bounds = torch.cat([bound for bound, _ in parts], 1).unflatten(1, (count, -1))
    climbed = [each(w, lambda t: t.unflatten(1, (-1, len(several)))) for _, w in parts if w is not None]
    limits = torch.cat([upper, -lower, -bounds], -1)
    return limits, known or _joined(climbed)


def _several(
    graph: Graph,
    region: Region,
    relaxation: Relaxation,
    objective: Objective,
    sums: tuple[Mapping[str, Mixed], DualPoint] | None,
    known: Weights | None,
    ascent: AscentOptions | None,
) -> tuple[Tensor, Weights | None]:
    """Bounds (B, G * D) of the signed sums that an objective's rows are, and the line weights that an ascent found for
    them, None without one. `sums` are the cuts and the dual point that their terms add up to."""
    bound = lower_bound(graph, region, relaxation, objective)
    if sums is None:
        return bound, None
    cuts, dual = sums
    now = replace(relaxation, cuts=cuts)
    if known is not None or ascent is None:
        dual = dual if known is None else replace(dual, weights=known)
        return torch.maximum(bound, lower_bound(graph, region, now, objective, dual)), None
    better, dual = ascend(graph, region, now, objective, replace(ascent, cut_step=0.0), start=dual)
    return torch.maximum(bound, better), dual.weights


def each(weights: Weights, change: Callable[[Tensor], Tensor]) -> Weights:
    """Weights whose every tensor was changed."""
    return {n: tuple(None if w is None else change(w) for w in pair) for n, pair in weights.items()}  # type: ignore[misc]


def _joined(parts: list[Weights]) -> Weights:
    """Weights of all groups from those of chunks of them."""

    def side(name: str, which: int) -> Tensor | None:
        found = [w for part in parts if (w := part[name][which]) is not None]
        return torch.cat(found, 1) if found else None

    return {name: (side(name, 0), side(name, 1)) for name in (parts[0] if parts else {})}


def _rows(graph: Graph, name: str, groups: Tensor, several: Tensor) -> Objective:
    """The negatives of signed sums of entries: groups (B, G, k) and signs (D, k) make G * D rows."""
    shape = graph.shapes[name]
    rows = several.new_zeros(*groups.shape[:2], len(several), prod(shape))
    index = groups.unsqueeze(2).expand(-1, -1, len(several), -1)
    rows.scatter_(3, index, -several.expand(*index.shape))
    return Objective(name, rows.reshape(len(groups), -1, *shape))


@dataclass(frozen=True)
class _Single:
    """What ascent chose for single entries: 2R rows, entries and after them their negatives.

    Args:
        rows: (B, R) the entries.
        weights: their line weights, as of `DualPoint`.
        pushes: for each activation with cuts, what their multipliers added to each of the 2R rows.
    """

    rows: Tensor
    weights: Weights
    pushes: Mapping[str, Push]

    def size(self) -> int:
        """Numbers that the line weights of one row are."""
        return sum(w[0, 0].numel() for pair in self.weights.values() for w in pair if w is not None)

    def sums(self, groups: Tensor, several: Tensor) -> tuple[dict[str, Mixed], DualPoint]:
        """Cuts and a dual point for signed sums of entries, with signs `several` (D, k), of groups (B, G, k).

        Weights are the mean of the entries'; what cuts add to a sum is what they added to its terms. An entry that was
        not bounded borrows from another: no choice is unsound.
        """
        place = (groups.unsqueeze(-1) == self.rows[:, None, None]).to(torch.uint8).argmax(-1)  # (B, G, k)
        # rows bound negatives of the sums: a positive sign takes the second half, where the entries' negatives are
        take = place.unsqueeze(2) + torch.where(several > 0, self.rows.shape[1], 0)
        take = take.flatten(1, 2)  # (B, G * D, k)
        present = (several != 0).to(several).repeat(groups.shape[1], 1)  # (G * D, k)
        mean = present / present.sum(1, keepdim=True)
        weights = {
            name: (None if low is None else _sum(low, take, mean), None if high is None else _sum(high, take, mean))
            for name, (low, high) in self.weights.items()
        }
        cuts = {name: Mixed(*(_sum(part, take, present) for part in push)) for name, push in self.pushes.items()}
        ones = present.new_ones(*take.shape[:2], 1)
        return cuts, DualPoint(weights, cut_multipliers=dict.fromkeys(cuts, ones))


def _sum(values: Tensor, take: Tensor, share: Tensor) -> Tensor:
    """``sum_j share_j values[take_j]``: rows (B, N, *X) of values (B, R, *X), for take (B, N, k) and share (N, k)."""
    total = torch.zeros((), dtype=values.dtype, device=values.device)
    element = torch.arange(len(take), device=take.device).unsqueeze(1)
    for j in range(take.shape[2]):
        total = total + values[element, take[:, :, j]] * share[:, j].reshape(1, -1, *[1] * (values.dim() - 2))
    return total


def _of_single_entries(graph: Graph, relaxation: Relaxation, name: str) -> _Single | None:
    """What the last ascents on a node's box chose (those with cuts where there were any), or None without any."""
    steps = [(rows, dual) for rows, dual in relaxation.steps.get(name, ()) if isinstance(dual, DualPoint)]
    climbed = [step for step in steps if step[1].cut_multipliers] or [step for step in steps if of_each_row(*step)]
    if not climbed:
        return None

    def joined(parts: list[Tensor]) -> Tensor:
        halves = [part.chunk(2, dim=1) for part in parts]
        return torch.cat([half[side] for side in (0, 1) for half in halves], 1)

    def side(node: str, which: int) -> Tensor | None:
        parts = [dual.weights[node][which] for _, dual in climbed]
        return None if parts[0] is None else joined([part for part in parts if part is not None])

    duals = [dual for _, dual in climbed]
    pushes = {}
    for node in duals[0].cut_multipliers:
        size = prod(graph.shapes[node])
        each = [relaxation.cuts[node].push(dual.cut_multipliers[node], size) for dual in duals]
        pushes[node] = tuple(joined(list(parts)) for parts in zip(*each, strict=True))
    weights = {node: (side(node, 0), side(node, 1)) for node in duals[0].weights}
    return _Single(torch.cat([rows for rows, _ in climbed], 1), weights, pushes)


def of_each_row(rows: Tensor, dual: DualPoint) -> bool:
    """Whether a dual point of entries (B, R) has line weights of each row: a fixed choice of lines has not."""
    return any(w is not None and w.shape[1] == 2 * rows.shape[1] for pair in dual.weights.values() for w in pair)
