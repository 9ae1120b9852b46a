"""How far a point is from a centre, in the unit of a region; and the nearest point of a hyperplane in that unit."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from verifier.specs.region import Box, LpBall, Region

_NEARLY = 0.999  # sides of a box whose ratio is at least this are equal but for rounding
_EDGE = 1e-6
_NEWTON_STEPS = 60  # coordinates at their limits only become more; a handful is typical


@dataclass(frozen=True, eq=False)
class Gauge:
    """The distance ``|(x - center) / scale|_norm``; positions in this unit are called u.

    Args:
        center: (A, *X)
        scale: (A, *X), non-negative; a coordinate of scale zero is fixed.
        lower, upper: (A, *X), limits of u around zero, possibly infinite.
        norm: inf, 2 or 1.
    """

    center: Tensor
    scale: Tensor
    lower: Tensor
    upper: Tensor
    norm: float

    @staticmethod
    def of(region: Region, center: Tensor | None = None) -> Gauge:
        """The gauge by which a region is what lies within a distance of one of its centre (and within its limits).

        Args:
            center: (A, *X), for boxes the points that they were made around; None for their middles. Where a box
                reaches less far on one side of it than on the other, that side counts as a limit.
        """
        if isinstance(region, LpBall):
            scale = region.radius.reshape(-1, *[1] * (region.center.dim() - 1)).expand_as(region.center)
            return Gauge.between(region.center, scale, region.box.lower, region.box.upper, region.norm)
        box: Box = region.enclosing_box()
        if center is None:
            center, scale = (box.lower + box.upper) / 2, (box.upper - box.lower) / 2
            below = above = scale
        else:
            center = box.project(center)
            below, above = center - box.lower, box.upper - center
            scale = torch.maximum(below, above)
        lower = torch.where(below < _NEARLY * scale, box.lower, -inf)
        upper = torch.where(above < _NEARLY * scale, box.upper, inf)
        return Gauge.between(center, scale, lower, upper, inf)

    @staticmethod
    def between(center: Tensor, scale: Tensor, lower: Tensor, upper: Tensor, norm: float) -> Gauge:
        """A gauge whose limits are bounds of x."""
        unit = torch.where(scale > 0, scale, 1)
        low, high = ((bound - center) / unit for bound in (lower, upper))
        low, high = low.clamp(max=0), high.clamp(min=0)
        return Gauge(center, scale, torch.where(scale > 0, low, 0), torch.where(scale > 0, high, 0), norm)

    def select(self, index: Tensor) -> Gauge:
        """Some of the inputs (int64 indices)."""
        parts = (part[index] for part in (self.center, self.scale, self.lower, self.upper))
        return Gauge(*parts, self.norm)

    def to(self, dtype: torch.dtype, device: torch.device | str) -> Gauge:
        """The gauge in another precision, rounded to nearest."""
        parts = (part.to(device, dtype) for part in (self.center, self.scale, self.lower, self.upper))
        return Gauge(*parts, self.norm)

    def point(self, u: Tensor) -> Tensor:
        """x (A, *X) of a position u."""
        return self.center + self.scale * u

    def length(self, u: Tensor) -> Tensor:
        """(A,): the distance of a position u (A, *X) from the centre."""
        return torch.linalg.vector_norm(u.flatten(1), ord=self.norm, dim=-1)

    def steepness(self, gradient: Tensor) -> Tensor:
        """(A,): the dual norm of a gradient by u (A, *X): how much a function changes over a distance of one."""
        dual = {inf: 1, 2: 2, 1: inf}[self.norm]
        return torch.linalg.vector_norm(gradient.flatten(1), ord=dual, dim=-1)

    def clip(self, u: Tensor) -> Tensor:
        """u within its limits."""
        return torch.minimum(torch.maximum(u, self.lower), self.upper)

    def random(self, generator: torch.Generator) -> Tensor:
        """Random positions (A, *X): uniform for the norm inf, for others at a distance of one; within the limits."""
        uniform = torch.rand(self.center.shape, generator=generator, dtype=torch.float64).to(self.center) * 2 - 1
        if self.norm != inf:
            uniform = uniform.clamp(-1 + _EDGE, 1 - _EDGE)
            normal, laplace = torch.erfinv(uniform), -uniform.sign() * torch.log1p(-uniform.abs())
            uniform = normal if self.norm == 2 else laplace
            uniform = uniform / self.length(uniform).reshape(-1, *[1] * (uniform.dim() - 1))
        return self.clip(uniform)

    def to_hyperplane(self, u: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        """The shortest move (A, *X) from u within the limits to where a linear function is zero.

        Args:
            u: (A, *X)
            value: (A,), of the function at u.
            gradient: (A, *X), of the function by u.

        Where the function has no zero within the limits, the move goes to where it comes nearest to one.
        """
        weight, goal = gradient.flatten(1), value.abs()
        direction = -(weight.sign() * value.sign().unsqueeze(1))
        room = torch.where(direction > 0, (self.upper - u).flatten(1), (u - self.lower).flatten(1)).clamp(min=0)
        weight = weight.abs()
        largest = weight.amax(-1)
        unit = torch.where(largest > 0, largest, 1)
        weight, goal = weight / unit.unsqueeze(1), goal / unit
        length = _fill(weight, room, goal) if self.norm == 1 else _spread(weight, room, goal, self.norm)
        return (direction * length).reshape(u.shape)


def _spread(weight: Tensor, room: Tensor, goal: Tensor, norm: float) -> Tensor:
    """The l (A, n) of least norm inf or 2 with ``0 <= l <= room`` and ``<weight, l> = goal`` (A,).

    It is ``min(t v, room)`` with v = 1 or v = weight. The product is concave, increasing and piecewise linear in t, so
    Newton's method from the left of the root is exact after finitely many steps.
    """
    speed = torch.ones_like(weight) if norm == inf else weight
    gain = weight * speed
    slope = gain.sum(-1)
    t = goal / torch.where(slope > 0, slope, 1)
    for _ in range(_NEWTON_STEPS):
        reached = speed * t.unsqueeze(1)
        before, slope = slope, torch.where(reached < room, gain, 0).sum(-1)
        if torch.equal(before, slope):  # the same coordinates are free as before: t is the root
            break
        gap = goal - (weight * torch.minimum(reached, room)).sum(-1)
        t = torch.where((gap > 0) & (slope > 0), t + gap / torch.where(slope > 0, slope, 1), t)
    return torch.minimum(speed * t.unsqueeze(1), room)


def _fill(weight: Tensor, room: Tensor, goal: Tensor) -> Tensor:
    """The l (A, n) of least norm 1 with ``0 <= l <= room`` and ``<weight, l> = goal``: largest weights first."""
    enough = torch.where(weight > 0, goal.unsqueeze(1) / torch.where(weight > 0, weight, 1), 0)
    room = torch.minimum(room, enough)  # finite now, and nothing is lost
    order = weight.argsort(-1, descending=True)
    weight, room = weight.gather(1, order), room.gather(1, order)
    gain = weight * room
    before = gain.cumsum(-1) - gain
    left = (goal.unsqueeze(1) - before).clamp(min=0) / torch.where(weight > 0, weight, 1)
    return torch.zeros_like(weight).scatter(1, order, torch.minimum(left, room))
