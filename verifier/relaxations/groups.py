"""Which neurons of a layer are relaxed together (k-ReLU: Singh et al. 2019, NeurIPS, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import torch
from torch import Tensor


@dataclass(frozen=True)
class GroupOptions:
    """How neurons are grouped.

    Args:
        size: neurons of a group (k), 2 to 5.
        partition: neurons are sorted by area and cut into parts of so many; groups stay within a part (n_s).
        overlap: neurons that two groups may share (s); for pairs 1 gives all of them.
        least_area: neurons whose lines leave less than half of this area are left alone.
        most: groups of a layer; those of the largest neurons come first.
    """

    size: int = 2
    partition: int = 20
    overlap: int = 1
    least_area: float = 0.05
    most: int = 4000


@lru_cache
def subsets(count: int, size: int, overlap: int) -> tuple[tuple[int, ...], ...]:
    """Subsets of ``range(count)``, taken greedily in lexicographic order, of which no two share more than `overlap`."""
    taken: list[tuple[int, ...]] = []
    used: set[tuple[int, ...]] = set()  # what two of them may not share
    for subset in combinations(range(count), size):
        parts = list(combinations(subset, overlap + 1)) if overlap < size else []
        if used.isdisjoint(parts):
            taken.append(subset)
            used.update(parts)
    return tuple(taken)


def choose_groups(area: Tensor, options: GroupOptions) -> Tensor | None:
    """Groups of the neurons of a layer, those of the largest area first.

    Args:
        area: (B, n) twice the area that each neuron's lines leave, for a ReLU ``-l u``; zero for those left alone.

    Returns:
        (B, G, k) int64, or None where no element of the batch has enough neurons. Elements with fewer groups than
        others are filled up with the first k neurons, which may be any.
    """
    order = area.argsort(dim=1, descending=True, stable=True)
    counts = ((area >= options.least_area) & (area > 0)).sum(1).tolist()
    chosen = [_within(ranked[:count], options) for ranked, count in zip(order, counts, strict=True)]
    most = max(len(groups) for groups in chosen)
    if most == 0:
        return None
    spare = torch.arange(options.size, device=area.device).expand(most, -1)
    return torch.stack([torch.cat([groups, spare[len(groups) :]]) for groups in chosen])


def _within(ranked: Tensor, options: GroupOptions) -> Tensor:
    """Groups (G, k) of ranked neurons."""
    parts = [ranked.new_empty(0, options.size)]
    for part in ranked.split(options.partition):
        positions = subsets(len(part), options.size, options.overlap)
        if positions:
            parts.append(part[torch.tensor(positions, device=ranked.device)])
    return torch.cat(parts)[: options.most]
