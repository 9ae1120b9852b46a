"""Octahedra: what is known of the inputs of a group of neurons, and the points that span the group's hull.

An octahedron is ``{x : <d, x> <= limit_d for all d in {-1, 0, 1}^k but 0}`` (Singh et al. 2019, NeurIPS, section 4);
of four neurons only those d count that join two at most, and of five those that join neighbours on a ring, since
80 planes meet in too many points.
A piecewise linear activation is linear on each part that the planes through its kinks cut out of it, so the hull of
inputs and outputs over the octahedron is spanned by the corners of these parts. Kinks may differ from neuron to neuron.
The planes' normals are the same for every group: all that k of them meet in is found by matrices that are computed
once.

Axes: N groups, D directions, V points, k neurons of a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations, product

import torch
from torch import Tensor

#: limits are raised, and points accepted beyond them, by these shares of the group's largest value: the first covers
#: the rounding errors of the limits, the second (much smaller) those of a point that was computed from them
INFLATION, TOLERANCE = 1e-7, 1e-9
#: groups of more neurons than these: there are too many points to try; only neighbours are joined; only pairs are
LARGEST, LARGEST_PAIRS, LARGEST_FULL = 5, 4, 3
#: numbers that a step over a chunk of groups may hold
CHUNK_NUMBERS = 1 << 21


@lru_cache
def directions(k: int) -> Tensor:
    """All directions (D, k) of an octahedron: first ``+e_i``, then ``-e_i``, then those of several neurons.

    Raises:
        ValueError: k is too large.
    """
    if k > LARGEST:
        raise ValueError(f"groups of {k} neurons are too large: choose at most {LARGEST}")
    joined = range(2, (k if k <= LARGEST_FULL else 2) + 1)
    several = [d for d in product((1.0, -1.0, 0.0), repeat=k) if sum(map(abs, d)) in joined]
    if k > LARGEST_PAIRS:
        several = [d for d in several if any(d[i] and d[i - 1] for i in range(k))]
    unit = torch.eye(k, dtype=torch.float64)
    return torch.cat([unit, -unit, torch.tensor(several, dtype=torch.float64).reshape(-1, k)])


def corners(limits: Tensor, kinks: Sequence[float | Tensor], k: int) -> Tensor:
    """Points (N, V, k) in float64 that hold all corners of the parts of octahedra.

    The octahedra are inflated by `INFLATION`. Groups with fewer points than others repeat one.

    Args:
        limits: (N, D) in the order of `directions`.
        kinks: values of x at which the activation bends, each one number or (N, k).
    """
    limits = limits.double()
    scale = limits[:, : 2 * k].abs().amax(1, keepdim=True)
    limits = limits + INFLATION * (limits.abs() + scale)
    normals, choices, inverses = _meetings(k, len(kinks))
    step = max(1, CHUNK_NUMBERS // (len(choices) * len(normals)))
    bends = [torch.as_tensor(kink).to(limits).expand(len(limits), k) for kink in kinks]
    parts = [
        _corners(part, [bend[start : start + step] for bend in bends], normals, choices, inverses)
        for start, part in zip(range(0, len(limits), step), limits.split(step), strict=True)
    ]
    most = max(part.shape[1] for part in parts)
    return torch.cat([torch.cat([p, p[:, :1].expand(-1, most - p.shape[1], -1)], 1) for p in parts])


@lru_cache
def _meetings(k: int, kinks: int) -> tuple[Tensor, Tensor, Tensor]:
    """Directions (D, k); and of every choice of k planes that meet in one point, which they are (C, k) among the
    directions and, after them, the planes of each kink, and the inverse of their normals (C, k, k)."""
    normals = directions(k)
    planes = torch.cat([normals, *[torch.eye(k, dtype=torch.float64)] * kinks])
    choices = torch.tensor(list(combinations(range(len(planes)), k)))
    matrices = planes[choices]
    meet = torch.linalg.det(matrices).abs() > 0.5  # determinants are whole numbers
    return normals, choices[meet], torch.linalg.inv(matrices[meet])


def _corners(limits: Tensor, kinks: Sequence[Tensor], normals: Tensor, choices: Tensor, inverses: Tensor) -> Tensor:
    k = normals.shape[1]
    normals, choices, inverses = (x.to(limits.device) for x in (normals, choices, inverses))
    planes = torch.cat([limits, *kinks], 1)
    points = torch.einsum("cij,ncj->nci", inverses, planes[:, choices])
    slack = TOLERANCE * planes.abs().amax(1).reshape(-1, 1, 1)
    inside = (points @ normals.T <= limits.unsqueeze(1) + slack).all(2)
    most = max(1, int(inside.sum(1).max()))
    order = inside.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
    chosen = points.gather(1, order.unsqueeze(2).expand(-1, -1, k))
    kept = inside.gather(1, order).unsqueeze(2)
    chosen = torch.where(kept, chosen, chosen[:, :1])
    if bool(inside.any(1).all()):
        return chosen
    return _or_box(chosen, limits, kinks, inside.any(1))


def _or_box(points: Tensor, limits: Tensor, kinks: Sequence[Tensor], found: Tensor) -> Tensor:
    """For groups whose limits contradict each other (by more than was allowed for): the box's corners and kinks."""
    k = points.shape[2]
    upper, lower = limits[:, :k], -limits[:, k : 2 * k]
    low, high = torch.minimum(lower, upper), torch.maximum(lower, upper)
    ends = [low, high, *(kink.clamp(low, high) for kink in kinks)]
    grid = torch.stack(
        [
            torch.stack([ends[c][:, i] for i, c in enumerate(choice)], 1)
            for choice in product(range(len(ends)), repeat=k)
        ],
        1,
    )
    most = max(points.shape[1], grid.shape[1])
    points, grid = (torch.cat([p, p[:, :1].expand(-1, most - p.shape[1], -1)], 1) for p in (points, grid))
    return torch.where(found.reshape(-1, 1, 1), points, grid)
