"""Cuts: what is known jointly of several neurons of one activation, on top of the lines of each.

Neurons come in groups of k. For a group with inputs x and outputs z, every direction ``t = (t_z, t_x)`` has a limit h
with ``<t_z, z> + <t_x, x> <= h`` on the region; adding ``<t_z, z> + <t_x, x> - h`` to an objective can only lower it.
`Cuts` know such limits for a fixed set of directions (facets of a hull) and take non-negative mixtures of them;
`Hulls` know the points whose hull holds the group, and so the limit of every direction (k-ReLU: Singh et al. 2019,
NeurIPS, "Beyond the single neuron convex barrier"; its dual for any cut: Ferrari et al. 2022, arXiv 2205.00263).

Axes: B batch, S objective rows, G groups, F directions of a group, V points of a group, n neurons of the activation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

#: coefficients on the activation's output and on its input (B, S, n), and the constant (B, S)
Push = tuple[Tensor, Tensor, Tensor]


class JointBound(Protocol):
    """What the dual function needs of cuts.

    ``least``: the least value that a multiplier may take, 0 or -inf.
    ``pace``: factor on the steps of an optimiser.
    """

    @property
    def least(self) -> float: ...

    @property
    def pace(self) -> float: ...

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
        evidence: what it takes to derive p again.
    """

    index: Tensor
    P: Tensor
    R: Tensor
    p: Tensor
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def least(self) -> float:
        return 0.0

    @property
    def pace(self) -> float:
        return 1.0

    def zero(self, rows: int) -> Tensor:
        return _by_group(self.p, rows, self.p.shape[-1])

    def to(self, dtype: torch.dtype) -> Cuts:
        """The same in another precision, without evidence."""
        return Cuts(self.index, self.P.to(dtype), self.R.to(dtype), self.p.to(dtype))

    def select(self, batch: Tensor) -> Cuts:
        """Those of elements of the batch, without evidence."""
        index = self.index[batch] if self.index.dim() == 3 else self.index
        return Cuts(index, self.P[batch], self.R[batch], self.p[batch])

    def push(self, multipliers: Tensor, size: int) -> Push:
        mixed = _mix(multipliers, self._table())
        return *_spread(mixed[..., :-1], self.index, size), -mixed[..., -1].sum(2)

    def terms(self, multipliers: Tensor, z: Tensor, x: Tensor) -> Tensor:
        k = self.index.shape[-1]
        mixed = _mix(multipliers, self._table().abs())
        reach = _reach(mixed[..., :k], self.index, z) + _reach(mixed[..., k : 2 * k], self.index, x)
        return reach + mixed[..., -1].sum(2)

    def _table(self) -> Tensor:
        """Rows with their right-hand sides, (B, G, F, 2k + 1): one product mixes both."""
        return torch.cat([self.P, self.R, self.p.unsqueeze(-1)], -1)


def beside(one: Cuts, other: Cuts) -> Cuts:
    """The cuts of two lots of groups of one activation, indices (B, G, k), as those of one."""
    most = max(one.p.shape[-1], other.p.shape[-1])

    def both(name: str) -> Tensor:
        parts = [getattr(cuts, name) for cuts in (one, other)]
        spare = [part.new_zeros(*part.shape[:2], most - part.shape[2], *part.shape[3:]) for part in parts]
        return torch.cat([torch.cat(pair, 2) for pair in zip(parts, spare, strict=True)], 1)

    evidence = {name: tuple(_joined(*pair) for pair in zip(sides, other.evidence[name], strict=True))
                for name, sides in one.evidence.items()}  # fmt: skip
    return Cuts(torch.cat([one.index, other.index], 1), both("P"), both("R"), both("p"), evidence)


def _joined(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return None if one is None or other is None else torch.cat([one, other], 1)


@dataclass(frozen=True)
class Mixed:
    """One cut for each row of an objective, already mixed and spread; multipliers (B, S, 1) >= 0.

    Args:
        on_output, on_input, constant: what multipliers of 1 add, (B, S, n), (B, S, n) and (B, S).
    """

    on_output: Tensor
    on_input: Tensor
    constant: Tensor

    @property
    def least(self) -> float:
        return 0.0

    @property
    def pace(self) -> float:
        return 1.0

    def zero(self, rows: int) -> Tensor:
        return self.constant.new_zeros(len(self.constant), rows, 1)

    def push(self, multipliers: Tensor, size: int) -> Push:
        return self.on_output * multipliers, self.on_input * multipliers, self.constant * multipliers[..., 0]

    def terms(self, multipliers: Tensor, z: Tensor, x: Tensor) -> Tensor:
        return dense_terms(self.push(multipliers, z.shape[1]), z, x)


@dataclass(frozen=True)
class Hulls:
    """Groups whose values ``(z_J, x_J)`` lie in the convex hull of points; multipliers (B, S, G, 2k) of any sign.

    Multipliers are directions ``(t_z, t_x)``, and their limit is the largest value over the points.

    Args:
        index: (G, k) or (B, G, k) int64.
        points: (B, G, V, 2k), outputs first; groups with fewer points repeat one.
        evidence: what it takes to derive the points again.
    """

    index: Tensor
    points: Tensor
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def least(self) -> float:
        return -torch.inf

    @property
    def pace(self) -> float:
        """Less where a neuron is in many groups: all of them push on it at once, and nothing stops at zero."""
        return 2 * len(self.index.unique()) / self.index[..., 0, 0].numel() / self.index.shape[-2:].numel()

    def zero(self, rows: int) -> Tensor:
        return _by_group(self.points, rows, self.points.shape[-1])

    def push(self, multipliers: Tensor, size: int) -> Push:
        limits = _values(multipliers, self.points).amax(-1)
        return *_spread(multipliers, self.index, size), -limits.sum(2)

    def terms(self, multipliers: Tensor, z: Tensor, x: Tensor) -> Tensor:
        k = self.index.shape[-1]
        tilt = multipliers.abs()
        reach = _reach(tilt[..., :k], self.index, z) + _reach(tilt[..., k:], self.index, x)
        return reach + _values(tilt, self.points.abs()).amax(-1).sum(2)


def dense_terms(push: Push, z: Tensor, x: Tensor) -> Tensor:
    """What dense coefficients add up in absolute values (B, S), for outputs and inputs of at most z and x (B, n)."""
    on_output, on_input, constant = (part.abs() for part in push)
    return (on_output * z.unsqueeze(1) + on_input * x.unsqueeze(1)).sum(2) + constant


def _by_group(like: Tensor, rows: int, width: int) -> Tensor:
    """Zeros (B, S, G, width) in the order of memory that products group by group want."""
    return like.new_zeros(like.shape[0], like.shape[1], rows, width).transpose(1, 2)


def _mix(multipliers: Tensor, rows: Tensor) -> Tensor:
    """``sum_f g_f row_f`` of every group: (B, S, G, F) and (B, G, F, w) -> (B, S, G, w)."""
    return torch.matmul(multipliers.transpose(1, 2), rows).transpose(1, 2)


def _values(tilt: Tensor, points: Tensor) -> Tensor:
    """``<t, v>`` of every point: (B, S, G, 2k) and (B, G, V, 2k) -> (B, S, G, V)."""
    return torch.matmul(tilt.transpose(1, 2), points.transpose(2, 3)).transpose(1, 2)


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
