"""Directions in which the hull of a group of neurons is worth a cut: the facets of its points.

Which directions are chosen is a question of tightness alone. The limit of each is taken over all points and raised, so
that a cut holds whatever Qhull made of the points.

Axes: N groups, V points, F directions, k neurons of a group; a point is (outputs, inputs), 2k numbers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

#: limits are raised by this share of themselves and of the group's largest value
INFLATION = 1e-7
#: coefficients of a facet below this share of its largest count as zero
NEGLIGIBLE = 1e-6


def facets(points: Tensor) -> Tensor:
    """Outward normals (N, F, 2k) of the facets of hulls of points (N, V, 2k) that say something of several neurons.

    Left out are facets of a single neuron, which its lines know, and of inputs alone, which follow from the layers
    before. Groups with fewer facets are filled up with zeros; one whose points are too flat for Qhull has none.
    """
    from scipy.spatial import ConvexHull, QhullError  # takes .2 s to import

    owners, normals = [], []
    for number, cloud in enumerate(points.double().cpu().numpy()):
        try:
            equations = ConvexHull(cloud).equations
        except QhullError:
            continue
        owners.append(np.full(len(equations), number))
        normals.append(equations[:, :-1])
    width = points.shape[2]
    if not normals:
        return points.new_zeros(len(points), 0, width)
    return _by_owner(*_distinct(np.concatenate(owners), np.concatenate(normals)), len(points)).to(points)


def _distinct(owner: np.ndarray, normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Owners and normals of largest coefficient 1, each once, those of a single neuron or of inputs alone left out."""
    k = normal.shape[1] // 2
    normal = normal / np.abs(normal).max(1, keepdims=True)
    size = np.abs(normal) > NEGLIGIBLE
    several = (size[:, :k] | size[:, k:]).sum(1) > 1
    keep = several & size[:, :k].any(1)
    rounded = np.column_stack([owner[keep], np.round(normal[keep] / NEGLIGIBLE)])
    _, first = np.unique(rounded, axis=0, return_index=True)
    return owner[keep][first], normal[keep][first]


def _by_owner(owner: np.ndarray, normal: np.ndarray, count: int) -> Tensor:
    """Normals, sorted by owner, side by side: (N, F, 2k)."""
    each = np.bincount(owner, minlength=count)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(each) - each, each)
    table = np.zeros((count, max(1, int(each.max(initial=0))), normal.shape[1]))
    table[owner, place] = normal
    return torch.from_numpy(table)


def limits(normals: Tensor, points: Tensor) -> Tensor:
    """Right-hand sides (N, F) in float64 of the cuts with normals (N, F, 2k): the largest value over points
    (N, V, 2k), raised by `INFLATION`; zero for a normal of zeros."""
    normals, points = normals.double(), points.double()
    largest = (normals @ points.transpose(1, 2)).amax(2)
    scale = normals.abs().sum(2) * points.abs().amax((1, 2)).unsqueeze(1)
    return largest + INFLATION * (largest.abs() + scale)
