"""Input sets. Bounding needs of a set the minimum of a linear function; attacks need a projection.

Every region is a batch: fields are (B, *X) tensors in the network's input shape X (float64 unless placed).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from verifier.errors import InputError
from verifier.specs.ball_solvers import l1_fill, l1_shrink, l2_scale
from verifier.specs.box import (
    EXTREME_SHARE,
    Box,
    as_numpy,
    check_as_read,
    check_bounds,
    flat,
    flat_rows,
    pair,
    random,
)
from verifier.specs.rounding import narrow, outward

__all__ = ["Box", "LpBall", "Region", "stack"]

_CHUNK = 2**17  # numbers of one temporary that stay in a processor's cache
_NEARLY = 1e-5  # an attack in float32 leaves a ball by less, relative to its radius
_HALF_ROUNDING = 2.0**-25  # of float32, in which witnesses are given: a smaller pull changes none of their digits
_TINY = float(np.finfo(np.float64).tiny)
_NORM_ALLOWANCE = 1e-12  # relative; far above the rounding error of a norm in float64


class Region(Protocol):
    """What every input set offers.

    ``minimum`` returns a *sound lower bound* of the minimum of ``<A, x>`` over the set, tight up to rounding.
    ``witness`` returns the point of the set nearest to a candidate that can be handed to the network as it is
    (see `Box.witness`), or None where the set holds no such point.
    """

    @property
    def batch(self) -> int: ...
    def minimum(self, A: Tensor) -> Tensor: ...  # (B, S, *X) -> (B, S); B of A may be 1
    def project(self, x: Tensor) -> Tensor: ...  # (R, B, *X) -> (R, B, *X)
    def contains(self, x: Tensor) -> Tensor: ...  # (R, B, *X) -> bool (R, B)
    def sample(self, count: int, generator: torch.Generator) -> Tensor: ...  # (count, B, *X)
    def enclosing_box(self) -> Box: ...
    def witness(self, x: np.ndarray) -> np.ndarray | None: ...  # (*X) -> float64 (*X); batch size 1 only
    def to(self, dtype: torch.dtype, device: torch.device | str) -> Region: ...  # rounds outwards
    def select(self, index: Tensor) -> Region: ...  # a sub-batch (int64 indices)
    def reshape(self, shape: Sequence[int]) -> Region: ...  # the same set with another X of equal size


@dataclass(frozen=True, eq=False)
class LpBall:
    """A ball of norm 1 or 2 around a point, intersected with a box that contains the point.

    The linear minimum is a Lagrangian dual in one multiplier per row, a lower bound whatever the multiplier;
    the one found is optimal up to rounding.

    Args:
        center: (B, *X), inside the box.
        radius: (B,), non-negative.
        box: the values that the input may take, (B, *X); `LpBall.checked` makes one for a ball without limits.
        norm: 1 or 2.
        inner_radius: (B,) float64, what a witness may use of the radius where that was rounded up, else None.
    """

    center: Tensor
    radius: Tensor
    box: Box
    norm: int
    inner_radius: Tensor | None = None

    @classmethod
    def checked(cls, center: Tensor, radius: Tensor, box: Box | None, norm: int, where: str = "input region") -> LpBall:
        """A ball of data that came from outside; without ``box`` every coordinate may move by the radius.

        Raises:
            InputError: norm other than 1 and 2, radius negative or not finite, centre not finite or outside
                the box.
        """
        if norm not in (1, 2):
            raise InputError(where, f"a ball of norm {norm!r} is not known", "use 1, 2 or inf")
        if radius.shape != center.shape[:1] or not bool((radius.isfinite() & (radius >= 0)).all()):
            raise InputError(where, f"the radius is {radius.tolist()}", "give one number >= 0 for each input")
        if box is None:
            spread = radius.reshape(-1, *[1] * (center.dim() - 1))
            box = Box(outward(center - spread, -torch.inf), outward(center + spread, torch.inf))
        check_bounds(box.lower, box.upper, where)
        check_bounds(box.lower, center, where, "the centre lies below the allowed range")
        check_bounds(center, box.upper, where, "the centre lies above the allowed range")
        return cls(center, radius, box, norm)

    @property
    def batch(self) -> int:
        return self.center.shape[0]

    @property
    def lower(self) -> Tensor:
        return self.box.lower

    @property
    def upper(self) -> Tensor:
        return self.box.upper

    def minimum(self, A: Tensor) -> Tensor:
        """A lower bound of ``min <A, x>``, tight up to rounding: A (B, S, *X) -> (B, S), either batch may be 1.

        Differentiable in A: the gradient is the minimiser.
        """
        coefficients = flat_rows(A)
        return self._minimum_l1(coefficients) if self.norm == 1 else self._minimum_l2(coefficients)

    def _minimum_l1(self, A: Tensor) -> Tensor:
        largest, spent, price = l1_fill(A.abs(), self._room(A), self.radius.unsqueeze(1))
        unspent = self.radius.unsqueeze(1) - spent.sum(-1)
        return pair(A, flat(self.center)) - (largest * spent).sum(-1) - price * unspent

    def _minimum_l2(self, A: Tensor) -> Tensor:
        """The Lagrangian ``<A, x> + m/2 (|x - center|^2 - radius^2)`` at its minimiser x over the box."""
        rows = max(1, A.shape[1])
        if A.device.type == "cpu":
            rows = min(rows, 1 + _CHUNK // (max(A.shape[0], self.batch) * A.shape[2]))
        values = []
        for part in A.split(rows, dim=1):
            with torch.no_grad():
                point, slack = self._minimiser_l2(part)
            values.append(torch.linalg.vecdot(part, point) + slack)
        return torch.cat(values, dim=1)

    def _minimiser_l2(self, A: Tensor) -> tuple[Tensor, Tensor]:
        """The minimiser x (B, S, n) and the multiplier's share ``m/2 (|x - center|^2 - radius^2)`` (B, S)."""
        radius = self.radius.reshape(-1, 1, 1)
        size = A.abs()
        scale = size.amax(-1, keepdim=True)
        size = size / torch.where(scale > 0, scale, 1)
        room = self._room(A) / torch.where(radius > 0, radius, 1)
        t = l2_scale(size, room, torch.ones_like(room[..., 0])).unsqueeze(-1)
        step = torch.minimum(size * t, room)  # in units of the radius
        slack = (scale / t * radius / 2).squeeze(-1) * (step.square().sum(-1) - 1)
        return flat(self.center).unsqueeze(1) - A.sign() * (step * radius), slack

    def _room(self, A: Tensor) -> Tensor:
        """How far each coordinate can move against the sign of A (B, S, n) within the enclosing box."""
        box, center = self.enclosing_box(), self.center
        below, above = flat(center - box.lower), flat(box.upper - center)
        return torch.where(A.detach() > 0, below.unsqueeze(1), above.unsqueeze(1))

    def project(self, x: Tensor) -> Tensor:
        """The nearest point of the set to each x (R, B, *X), pulled inwards until `contains` agrees."""
        move = flat_rows(x - self.center)
        box, center = self.enclosing_box(), flat(self.center)
        room = torch.where(move > 0, flat(box.upper) - center, center - flat(box.lower))
        size, radius = move.abs(), self.radius.expand(move.shape[:2])
        if self.norm == 1:
            length = l1_shrink(size, room, radius)
        else:
            largest = size.amax(-1, keepdim=True)
            unit = size / torch.where(largest > 0, largest, 1)
            spread = torch.where(radius > 0, radius, 1)
            t = l2_scale(unit, room / spread.unsqueeze(-1), torch.ones_like(radius)) * radius
            length = torch.minimum(unit * torch.minimum(t.unsqueeze(-1), largest), room)
        return self._pull((move.sign() * length).reshape(x.shape))

    def _pull(self, move: Tensor) -> Tensor:
        """``center + move`` in the box, shortened by ever larger factors until it is inside in float arithmetic."""
        shrink = torch.finfo(move.dtype).eps
        point = self.box.project(self.center + move)
        outside = ~self.contains(point)
        while shrink < 8 and bool(outside.any()):
            factor = max(0.0, 1 - shrink)
            pulled = self.box.project(self.center + factor * move)
            point = torch.where(outside.reshape(*outside.shape, *[1] * (move.dim() - 2)), pulled, point)
            outside, shrink = ~self.contains(point), shrink * 8
        return point

    def contains(self, x: Tensor) -> Tensor:
        """Whether each x (R, B, *X) lies in the set: bool (R, B), the norm in the region's precision."""
        distance = torch.linalg.vector_norm(flat_rows(x - self.center), ord=self.norm, dim=-1)
        return self.box.contains(x) & (distance <= self.radius)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, B, *X): uniform points of the ball, clipped; the first of every four is on the ball's surface.

        For norm 1 these surface points are corners of the ball, for norm 2 they have a random direction.
        """
        shape = (count, self.batch, self.center[0].numel())
        uniform = random(shape, generator, self.center).clamp(1e-12, 1 - 1e-12)
        if self.norm == 2:
            direction = torch.special.ndtri(uniform)
        else:  # Laplace-distributed coordinates point in uniform directions of the 1-norm
            direction = torch.where(uniform < 0.5, (2 * uniform).log(), -(2 - 2 * uniform).log())
            corners = direction[::EXTREME_SHARE]
            largest = corners.abs().amax(-1, keepdim=True)
            direction[::EXTREME_SHARE] = torch.where(corners.abs() == largest, corners, 0)
        length = torch.linalg.vector_norm(direction, ord=self.norm, dim=-1, keepdim=True)
        share = random((*shape[:2], 1), generator, self.center) ** (1 / shape[2])
        share[::EXTREME_SHARE] = 1
        move = direction / length * share * self.radius.unsqueeze(-1)
        clipped = self.box.project(self.center + move.reshape(count, *self.center.shape))
        return self._pull(clipped - self.center)

    def enclosing_box(self) -> Box:
        """The smallest box around the set, up to outward rounding."""
        return self._around

    @cached_property
    def _around(self) -> Box:
        radius = self.radius.reshape(-1, *[1] * (self.center.dim() - 1))
        lower = torch.maximum(self.box.lower, outward(self.center - radius, -torch.inf))
        return Box(lower, torch.minimum(self.box.upper, outward(self.center + radius, torch.inf)))

    def witness(self, x: np.ndarray) -> np.ndarray | None:
        """As `Box.witness`, and with the norm of the move at most the radius (a hair inside).

        The candidate is projected, rounded to float32 within the box, and pulled towards the centre until the
        norm holds. None if even the rounded centre is too far away, or the candidate has a NaN.
        """
        check_as_read(self.center)
        candidate = torch.as_tensor(np.asarray(x, dtype=np.float64), device=self.center.device)
        if bool(candidate.isnan().any()):
            return None
        candidate = candidate.reshape(self.center.shape)
        center, limits = as_numpy(self.center), self._witness_box()
        radius = float((self.radius if self.inner_radius is None else self.inner_radius)[0])
        move = as_numpy(candidate.clamp(self.box.lower, self.box.upper)) - center
        if _norm(move, self.norm) > radius * (1 + _NEARLY):  # what is hardly outside needs no projection but the pull
            move = as_numpy(self.project(candidate.unsqueeze(0))[0]) - center
        move, shrink = move * min(1.0, radius / max(_norm(move, self.norm), _TINY)), 2.0**-52
        while shrink < 16:
            point = limits.witness(center + max(0.0, 1 - shrink) * move)
            if point is None or _norm(point - center, self.norm) <= radius * (1 - _NORM_ALLOWANCE):
                return point
            shrink = max(8 * shrink, _HALF_ROUNDING)
        return None

    def _witness_box(self) -> Box:
        around, box = self.enclosing_box(), self.box
        inner_lower = box.lower if box.inner_lower is None else box.inner_lower
        inner_upper = box.upper if box.inner_upper is None else box.inner_upper
        low, high = torch.maximum(inner_lower, around.lower), torch.minimum(inner_upper, around.upper)
        return Box(low, high)

    def to(self, dtype: torch.dtype, device: torch.device | str) -> LpBall:
        """The set in another precision, rounded outwards: the radius grows by as much as the centre moves."""
        center = self.center.to(dtype)
        moved = flat(center.to(self.center.dtype) - self.center)
        radius = self.radius
        if dtype.itemsize < self.center.dtype.itemsize:
            distance = torch.linalg.vector_norm(moved, ord=self.norm, dim=-1)
            radius = torch.where(distance > 0, (radius + distance) * (1 + _NORM_ALLOWANCE), radius)
        box = self.box.to(dtype, device)
        inner = None if dtype != torch.float64 or self.inner_radius is None else self.inner_radius.to(device)
        return LpBall(center.to(device), narrow(radius, dtype, device, torch.inf), box, self.norm, inner)

    def select(self, index: Tensor) -> LpBall:
        inner = None if self.inner_radius is None else self.inner_radius[index]
        return LpBall(self.center[index], self.radius[index], self.box.select(index), self.norm, inner)

    def reshape(self, shape: Sequence[int]) -> LpBall:
        center = self.center.reshape(self.batch, *shape)
        return LpBall(center, self.radius, self.box.reshape(shape), self.norm, self.inner_radius)


def stack(regions: Sequence[Region]) -> Region:
    """Several regions of one kind and shape as one batch.

    Raises:
        InputError: they are of different kinds, norms or shapes.
    """
    kinds = {(type(r), getattr(r, "norm", None), _tensor_of(r).shape[1:]) for r in regions}
    if len(kinds) != 1:
        raise InputError("query", "its regions differ in kind, norm or shape", "verify them one at a time")
    if len(regions) == 1:
        return regions[0]
    balls = [region for region in regions if isinstance(region, LpBall)]
    if not balls:
        return _stack_boxes([region for region in regions if isinstance(region, Box)])
    inner = None
    if any(ball.inner_radius is not None for ball in balls):
        inner = torch.cat([ball.radius if ball.inner_radius is None else ball.inner_radius for ball in balls])
    center, radius = torch.cat([ball.center for ball in balls]), torch.cat([ball.radius for ball in balls])
    return LpBall(center, radius, _stack_boxes([ball.box for ball in balls]), balls[0].norm, inner)


def _tensor_of(region: Region) -> Tensor:
    """A field (B, *X) of a region."""
    return region.center if isinstance(region, LpBall) else region.enclosing_box().lower


def _stack_boxes(boxes: Sequence[Box]) -> Box:
    lower, upper = torch.cat([box.lower for box in boxes]), torch.cat([box.upper for box in boxes])
    if all(box.inner_lower is None and box.inner_upper is None for box in boxes):
        return Box(lower, upper)
    inner_lower = torch.cat([box.lower if box.inner_lower is None else box.inner_lower for box in boxes])
    inner_upper = torch.cat([box.upper if box.inner_upper is None else box.inner_upper for box in boxes])
    return Box(lower, upper, inner_lower, inner_upper)


def _norm(move: np.ndarray, norm: int) -> float:
    """The norm with the rounding error of float64 arithmetic alone (numpy sums pairwise)."""
    return float(np.linalg.norm(move.reshape(-1), ord=norm))
