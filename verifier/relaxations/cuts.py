"""Cuts: what is known jointly of several neurons of one activation, on top of the lines of each.

Neurons come in groups of k. For a group with inputs x and outputs z, every direction ``t = (t_z, t_x)`` has a limit h
with ``<t_z, z> + <t_x, x> <= h`` on the region; adding ``<t_z, z> + <t_x, x> - h`` to an objective can only lower it.
`Cuts` know such limits for a fixed set of directions (facets of a hull) and take non-negative mixtures of them;
`Hulls` know the points whose hull holds the group, and so the limit of every direction (k-ReLU: Singh et al. 2019,
NeurIPS, "Beyond the single neuron convex barrier"; its dual for any cut: Ferrari et al. 2022, arXiv 2205.00263).

Axes: B batch, S objective rows, G groups, F directions of a group, V points of a group, n neurons of the activation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

#: coefficients on the activation's output and on its input (B, S, n), and the constant (B, S)
Push = tuple[Tensor, Tensor, Tensor]


class JointBound(Protocol):
    """What the dual function needs of cuts.

    ``index`` (G, k) or (B, G, k) int64: which entries of the (flat) activation each group holds.
    ``least``: the least value that a multiplier may take, 0 or -inf.
    """

    @property
    def index(self) -> Tensor: ...

    @property
    def least(self) -> float: ...

    def zero(self, rows: int) -> Tensor:
        """Multipliers that leave an objective of `rows` rows as it is."""
        ...

    def push(self, multipliers: Tensor, size: int) -> Push:
        """What multipliers add to an objective, for an activation of `size` neurons."""
        ...

    def terms(self, multipliers: Tensor, z: Tensor, x: Tensor) -> Tensor:
        """Sum of the absolute values of all that `push` adds up (B, S), for values up to z and x (B, n)."""
        ...


@dataclass(frozen=True)
class Cuts:
    """Rows ``<P, z_J> + <R, x_J> <= p``, F for each group J; multipliers (B, S, G, F) >= 0.

    Args:
        index: (G, k) or (B, G, k) int64.
        P, R: (B, G, F, k); a row of zeros with p = 0 says nothing and fills groups with fewer rows up.
        p: (B, G, F).
    """

    index: Tensor
    P: Tensor
    R: Tensor
    p: Tensor

    @property
    def least(self) -> float:
        return 0.0

    def zero(self, rows: int) -> Tensor:
        return self.p.new_zeros(len(self.p), rows, *self.p.shape[1:])

    def push(self, multipliers: Tensor, size: int) -> Push:
        tilt = _mix(multipliers, torch.cat([self.P, self.R], -1))
        return *_spread(tilt, self.index, size), -_total(multipliers, self.p)

    def terms(self, multipliers: Tensor, z: Tensor, x: Tensor) -> Tensor:
        k = self.index.shape[-1]
        tilt = _mix(multipliers, torch.cat([self.P, self.R], -1).abs())
        reach = _reach(tilt[..., :k], self.index, z) + _reach(tilt[..., k:], self.index, x)
        return reach + _total(multipliers, self.p.abs())


@dataclass(frozen=True)
class Hulls:
    """Groups whose values ``(z_J, x_J)`` lie in the convex hull of points; multipliers (B, S, G, 2k) of any sign.

    Multipliers are directions ``(t_z, t_x)``, and their limit is the largest value over the points.

    Args:
        index: (G, k) or (B, G, k) int64.
        points: (B, G, V, 2k), outputs first; groups with fewer points repeat one.
    """

    index: Tensor
    points: Tensor

    @property
    def least(self) -> float:
        return -torch.inf

    def zero(self, rows: int) -> Tensor:
        batch, groups, _, width = self.points.shape
        return self.points.new_zeros(batch, rows, groups, width)

    def push(self, multipliers: Tensor, size: int) -> Push:
        limits = _values(multipliers, self.points).amax(-1)
        return *_spread(multipliers, self.index, size), -limits.sum(2)

    def terms(self, multipliers: Tensor, z: Tensor, x: Tensor) -> Tensor:
        k = self.index.shape[-1]
        tilt = multipliers.abs()
        reach = _reach(tilt[..., :k], self.index, z) + _reach(tilt[..., k:], self.index, x)
        return reach + _values(tilt, self.points.abs()).amax(-1).sum(2)


def _mix(multipliers: Tensor, rows: Tensor) -> Tensor:
    """``sum_f g_f row_f`` of every group: (B, S, G, F) and (B, G, F, 2k) -> (B, S, G, 2k)."""
    return torch.matmul(multipliers.transpose(1, 2), rows).transpose(1, 2)


def _values(tilt: Tensor, points: Tensor) -> Tensor:
    """``<t, v>`` of every point: (B, S, G, 2k) and (B, G, V, 2k) -> (B, S, G, V)."""
    return torch.matmul(tilt.transpose(1, 2), points.transpose(2, 3)).transpose(1, 2)


def _total(multipliers: Tensor, p: Tensor) -> Tensor:
    return torch.linalg.vecdot(multipliers.flatten(2), p.flatten(1).unsqueeze(1))


def _spread(tilt: Tensor, index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Directions (B, S, G, 2k) summed up over the groups of each neuron: on outputs and on inputs (B, S, n)."""
    batch, rows, _, width = tilt.shape
    both = torch.cat([index, index + size], -1).reshape(-1, 1, index.shape[-2] * width)
    dense = tilt.new_zeros(batch, rows, 2 * size)
    dense = dense.scatter_add(2, both.expand(batch, rows, -1), tilt.flatten(2))
    return dense[:, :, :size], dense[:, :, size:]


def _reach(tilt: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """``sum |t| |value|`` (B, S) over the groups, for directions (B, S, G, k) and sizes of the values (B, n)."""
    flat = index.reshape(-1, index.shape[-2] * index.shape[-1]).expand(len(values), -1)
    return torch.linalg.vecdot(tilt.flatten(2), values.gather(1, flat).unsqueeze(1))
