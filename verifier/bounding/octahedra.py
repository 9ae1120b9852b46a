"""Octahedra of groups of neurons by the dual function: bounds of signed sums of a few entries of a node.

Axes: B batch, G groups, D directions, k neurons of a group, R rows of a step (see `verifier.bounding.intermediate`).
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor

from verifier.bounding.ascent import ancestors
from verifier.bounding.dual import DualPoint, Objective, Relaxation, lower_bound
from verifier.bounding.intermediate import Steps
from verifier.graph.ir import Graph
from verifier.relaxations.octahedra import directions
from verifier.specs.box import flat
from verifier.specs.region import Region


def octahedra(
    graph: Graph, region: Region, relaxation: Relaxation, name: str, groups: Tensor, chunk_bytes: int
) -> Tensor:
    """Upper limits (B, G, D) of a node's groups (B, G, k) in all `directions`.

    Those of single entries are the node's box. All others are bounded at CROWN's dual point and, where the box was
    tightened by ascent, at the one that the dual points of the single entries add up to. Chunked to the memory.
    """
    batch, _, k = groups.shape
    box = relaxation.boxes[name]
    lower, upper = (flat(end).gather(1, groups.flatten(1)).reshape(groups.shape) for end in (box.lower, box.upper))
    several = directions(k)[2 * k :].to(lower)
    points: list[Callable[[Tensor], DualPoint | None]] = [lambda part: None]
    numbers = max(prod(graph.shapes[node]) for node in ancestors(graph, name))
    climbed = _of_single_entries(relaxation.steps.get(name, ()))
    if climbed is not None:
        rows, dual = climbed
        numbers += sum(cut[0, 0].numel() for cut in dual.cut_multipliers.values())
        points.append(lambda part: _sums(rows, dual, part, several))
    found = []
    for part in groups.split(max(1, chunk_bytes // (batch * len(several) * lower.element_size() * numbers)), dim=1):
        objective = _rows(graph, name, part, several)
        bounds = [lower_bound(graph, region, relaxation, objective, point(part)) for point in points]
        found.append(-torch.stack(bounds).amax(0).unflatten(1, (part.shape[1], -1)))
    return torch.cat([upper, -lower, torch.cat(found, 1)], -1)


def _rows(graph: Graph, name: str, groups: Tensor, several: Tensor) -> Objective:
    """The negatives of signed sums of entries: groups (B, G, k) and signs (D, k) make G * D rows."""
    shape = graph.shapes[name]
    rows = several.new_zeros(*groups.shape[:2], len(several), prod(shape))
    index = groups.unsqueeze(2).expand(-1, -1, len(several), -1)
    rows.scatter_(3, index, -several.expand(*index.shape))
    return Objective(name, rows.reshape(len(groups), -1, *shape))


def _of_single_entries(steps: Steps) -> tuple[Tensor, DualPoint] | None:
    """Entries (B, R) that were bounded by ascent, and the dual point (2R rows: entries, then their negatives)."""
    climbed = [(rows, dual) for rows, dual in steps if dual.cut_multipliers]
    if not climbed:
        climbed = [(rows, dual) for rows, dual in steps if dual.weights]
    if not climbed:
        return None

    def joined(parts: list[Tensor]) -> Tensor:
        halves = [part.chunk(2, dim=1) for part in parts]
        return torch.cat([half[side] for side in (0, 1) for half in halves], 1)

    def side(name: str, which: int) -> Tensor | None:
        parts = [dual.weights[name][which] for _, dual in climbed]
        return joined([part for part in parts if part is not None]) if parts[0] is not None else None

    last = climbed[-1][1]
    weights = {name: (side(name, 0), side(name, 1)) for name in last.weights}
    cuts = {name: joined([dual.cut_multipliers[name] for _, dual in climbed]) for name in last.cut_multipliers}
    return torch.cat([rows for rows, _ in climbed], 1), DualPoint(weights, cut_multipliers=cuts)


def _sums(rows: Tensor, dual: DualPoint, groups: Tensor, several: Tensor) -> DualPoint:
    """A dual point for signed sums of entries: the mean of the entries' weights, and the sum of their multipliers.

    What is added to the objective for a sum is then what was added for its terms. An entry that was not bounded
    borrows the dual point of another: no choice is unsound.
    """
    place = (groups.unsqueeze(-1) == rows[:, None, None]).to(torch.uint8).argmax(-1)  # (B, G, k)
    # rows bound negatives of the sums: a positive sign takes the second half, where the entries' negatives are
    take = place.unsqueeze(2) + torch.where(several > 0, rows.shape[1], 0)
    take = take.flatten(1, 2)  # (B, G * D, k)
    present = (several != 0).to(several).repeat(groups.shape[1], 1)  # (G * D, k)

    def sums(values: Tensor, share: Tensor) -> Tensor:
        total = 0
        for j in range(take.shape[2]):
            picked = values[torch.arange(len(take), device=take.device).unsqueeze(1), take[:, :, j]]
            total = total + picked * share[:, j].reshape(1, -1, *[1] * (values.dim() - 2))
        assert isinstance(total, Tensor)
        return total

    mean = present / present.sum(1, keepdim=True)
    weights = {
        name: (None if low is None else sums(low, mean), None if high is None else sums(high, mean))
        for name, (low, high) in dual.weights.items()
    }
    return DualPoint(weights, cut_multipliers={n: sums(m, present) for n, m in dual.cut_multipliers.items()})
