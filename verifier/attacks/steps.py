"""How an attack moves in an input set, for every kind of region.

A region tells where a linear function is smallest; that is enough to find its centre and its steepest steps.
Axes: R restarts, P properties (the region's batch), ``*X`` the input.
"""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.specs.region import Box, LpBall, Region


def extreme(region: Region, direction: Tensor) -> Tensor:
    """The points of the region that minimise ``<direction, x>``; (R, P, *X) both.

    They are the derivative of the minimum with respect to the linear function (the envelope theorem), so what a region
    offers to the bounds serves here as well.
    """
    with torch.enable_grad():
        A = direction.detach().transpose(0, 1).contiguous().requires_grad_()
        (points,) = torch.autograd.grad(region.minimum(A).sum(), A)
    return points.transpose(0, 1)


def centre(region: Region) -> Tensor:
    """(1, P, *X): the minimiser of the zero function, which is the centre of every region."""
    return region.project(extreme(region, torch.zeros_like(region.enclosing_box().lower).unsqueeze(0)))


def steepest(region: Region, gradient: Tensor) -> Tensor:
    """The step of steepest descent in the region's own geometry, (R, P, *X): half its extent along ``-gradient``.

    That is ``-radius * sign(gradient)`` in a box, ``-radius * gradient / |gradient|_2`` in a Euclidean ball, and a
    move of the few coordinates with the largest gradients in an L1 ball. Where the gradient is zero, so is the step.
    """
    if isinstance(region, Box):  # the same without a derivative of the minimum, several times as fast
        return gradient.sign().mul_(region.half).neg_()
    if isinstance(region, LpBall) and region.norm == 2:  # a share of the gradient itself, whatever the limits
        length = torch.linalg.vector_norm(gradient.flatten(2), dim=-1).clamp(min=torch.finfo(gradient.dtype).tiny)
        return -gradient * (region.radius / length).reshape(*length.shape, *[1] * (gradient.dim() - 2))
    low, high = extreme(region, torch.cat([gradient, -gradient])).chunk(2)
    return torch.where(gradient == 0, 0, (low - high) / 2)


def inside(region: Region, x: Tensor) -> Tensor:
    """A point of the region near each x (A, *X), up to rounding; x itself where it lies inside.

    The nearest one in a box and in an L1 ball, and nearly that in a Euclidean ball.
    """
    if isinstance(region, Box):
        return x.clamp(region.lower, region.upper)
    if isinstance(region, LpBall) and region.norm == 2:
        return _inside_euclidean(region, x)
    return region.project(x.unsqueeze(0))[0]


def _inside_euclidean(ball: LpBall, x: Tensor) -> Tensor:
    """x clipped and shortened to the radius, twice.

    Once is exact where limits stop a coordinate at once or not at all, as at black pixels. Elsewhere a coordinate that
    was clipped has room left once the move is shorter; the second time gives it back.
    """
    center, box = ball.center, ball.box
    move = x.clamp(box.lower, box.upper).sub_(center)
    move = torch.lerp(center, x, _share(ball.radius, move)).clamp_(box.lower, box.upper).sub_(center)
    return torch.addcmul(center, move, _share(ball.radius, move))


def _share(radius: Tensor, move: Tensor) -> Tensor:
    """What part of moves (A, *X) lies within a radius (A,): (A, 1, ...)."""
    length = torch.linalg.vector_norm(move.flatten(1), dim=-1).clamp_(min=torch.finfo(move.dtype).tiny)
    return (radius / length).clamp_(max=1).reshape(-1, *[1] * (move.dim() - 1))


def normalised(gradient: Tensor) -> Tensor:
    """A gradient (R, P, *X) scaled to an L1 norm of one per restart and property; zeros and NaN become zeros."""
    gradient = torch.nan_to_num(gradient, posinf=0, neginf=0)
    norm = gradient.abs().flatten(2).sum(-1)
    smallest = torch.finfo(gradient.dtype).tiny
    return gradient / norm.clamp(min=smallest).reshape(*norm.shape, *[1] * (gradient.ndim - 2))
