"""Directions in which the hull of a group of neurons is worth a cut: the facets of its points.

Which directions are chosen is a question of tightness alone. The limit of each is taken over all points and raised, so
that a cut holds whatever Qhull made of the points.

Axes: N groups, V points, F directions, k neurons of a group; a point is (outputs, inputs), 2k numbers.
"""

from __future__ import annotations

from math import ceil

import numpy as np
import torch
from torch import Tensor

from verifier.workers import Workers

#: limits are raised by this share of themselves and of the group's largest value
INFLATION = 1e-7
#: coefficients of a facet below this share of its largest count as zero
NEGLIGIBLE = 1e-6
#: coordinates up to which Qhull merges facets at once instead of at the end, as SciPy has it. Besides (Q12), merges
#: that it deems wide are allowed: they would cost all facets of a group, and none is trusted anyway
MOST_EXACT = 4
#: steps of the search for the nearest point of a hull, and what divisors are no smaller than
DESCENT, TINY = 60, 1e-30
#: facets whose coefficients agree to this share of the largest are one
ALIKE = 0.05
#: a group keeps so many times the average number of facets at most: few have more, and all would be filled up to them
MOST = 1.5


def facets(points: Tensor) -> Tensor:
    """Outward normals (N, F, 2k) of the facets of hulls of points (N, V, 2k) that say something of several neurons.

    Left out are facets of a single neuron, which its lines know, and of inputs alone, which follow from the layers
    before. Groups with fewer facets are filled up with zeros; one whose points are too flat for Qhull has none.
    """
    owners, normals = [], []
    clouds = list(points.double().cpu().numpy())
    for number, found in enumerate(Workers.on(torch.device("cpu")).map(_normals, clouds)):  # Qhull frees Python's lock
        owners.append(np.full(len(found), number))
        normals.append(found)
    width = points.shape[2]
    if not any(map(len, normals)):
        return points.new_zeros(len(points), 0, width)
    return _by_owner(*_distinct(np.concatenate(owners), np.concatenate(normals)), len(points)).to(points)


def _normals(cloud: np.ndarray) -> np.ndarray:
    """Outward normals (F, 2k) of the facets of the hull of points (V, 2k), as Qhull proposes them."""
    from scipy.spatial import ConvexHull, QhullError  # takes .2 s to import

    try:
        options = "Qt Q12" if cloud.shape[1] <= MOST_EXACT else "Qt Qx Q12"
        return ConvexHull(cloud, qhull_options=options).equations[:, :-1]
    except QhullError:
        return np.empty((0, cloud.shape[1]))


def _distinct(owner: np.ndarray, normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Owners and normals of largest coefficient 1, in order of owners and the most joint ones first.

    Facets that are alike come once, and those of a single neuron or of inputs alone not at all.
    """
    k = normal.shape[1] // 2
    normal = normal / np.abs(normal).max(1, keepdims=True)
    shares = np.sort(np.maximum(np.abs(normal[:, :k]), np.abs(normal[:, k:])), axis=1)  # of each neuron
    joint = shares[:, -2]
    keep = (joint > NEGLIGIBLE) & (np.abs(normal[:, :k]) > NEGLIGIBLE).any(1)
    owner, normal, joint = owner[keep], normal[keep], joint[keep]
    _, first = np.unique(np.column_stack([owner, np.round(normal / ALIKE)]), axis=0, return_index=True)
    order = first[np.lexsort((-joint[first], owner[first]))]
    return owner[order], normal[order]


def _by_owner(owner: np.ndarray, normal: np.ndarray, count: int) -> Tensor:
    """Normals, sorted by owner, side by side: (N, F, 2k)."""
    each = np.bincount(owner, minlength=count)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(each) - each, each)
    most = ceil(MOST * len(owner) / max(1, np.count_nonzero(each)))
    fits = place < most
    table = np.zeros((count, min(most, int(each.max(initial=0))), normal.shape[1]))
    table[owner[fits], place[fits]] = normal[fits]
    return torch.from_numpy(table)


def outside(values: Tensor, points: Tensor, steps: int = DESCENT) -> Tensor:
    """By how much values (N, 2k) are known to lie outside the hulls of points (N, V, 2k), in units of the largest
    coordinates of each; at most zero where nothing is known.

    Pairwise steps towards the nearest point of a hull (Lacoste-Julien and Jaggi 2015, arXiv 1511.05932); the direction
    that is left says how far the values are beyond all points.
    """
    scale = points.abs().amax(1).clamp(min=TINY)
    values, points = values / scale, points / scale.unsqueeze(1)
    number = torch.arange(len(points), device=points.device)
    share = torch.zeros_like(points[..., 0])
    first = (points - values.unsqueeze(1)).square().sum(2).argmin(1)
    share[number, first] = 1.0
    nearest = points[number, first]
    for _ in range(steps):
        along = torch.linalg.vecdot(points, (values - nearest).unsqueeze(1))
        best, worst = along.argmax(1), along.masked_fill(share <= 0, torch.inf).argmin(1)
        move = points[number, best] - points[number, worst]
        length = torch.linalg.vecdot(values - nearest, move) / move.square().sum(1).clamp(min=TINY)
        length = torch.minimum(length.clamp(min=0), share[number, worst])
        share[number, best] += length
        share[number, worst] -= length
        nearest = nearest + length.unsqueeze(1) * move
    rest = values - nearest
    beyond = torch.linalg.vecdot(rest, values) - torch.linalg.vecdot(points, rest.unsqueeze(1)).amax(1)
    return beyond / rest.norm(dim=1).clamp(min=TINY)


def limits(normals: Tensor, points: Tensor) -> Tensor:
    """Right-hand sides (N, F) in float64 of the cuts with normals (N, F, 2k): the largest value over points
    (N, V, 2k), raised by `INFLATION`; zero for a normal of zeros."""
    normals, points = normals.double(), points.double()
    largest = (normals @ points.transpose(1, 2)).amax(2)
    scale = normals.abs().sum(2) * points.abs().amax((1, 2)).unsqueeze(1)
    return largest + INFLATION * (largest.abs() + scale)
