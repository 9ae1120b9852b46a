"""One-multiplier problems over the intersection of a norm ball with a box.

All tensors share the last axis n; leading axes broadcast. ``weight`` and ``room`` are non-negative; ``room`` is
how far each coordinate can move in the wanted direction before it meets the box.
"""

from __future__ import annotations

import torch
from torch import Tensor

_NEWTON_STEPS = 60  # the active set only shrinks; a handful is typical
_FIRST_SORTED = 64  # how many of the largest entries are looked at before the number is multiplied by 8


def l2_scale(weight: Tensor, room: Tensor, radius: Tensor) -> Tensor:
    """The t with ``|min(t * weight, room)|_2 = radius``, or a huge one where the norm never gets there.

    In ``s = t^2`` the squared norm is concave, increasing and piecewise linear, so Newton's method from the left
    of the root ascends monotonically and is exact after finitely many steps.

    Args:
        weight: (..., n), scaled by the caller to a largest entry of about one.
        room: (..., n)
        radius: (...)

    Returns:
        (...), finite and non-negative.
    """
    squares, limits = weight.square(), room.square()
    goal = radius.square()
    huge = torch.finfo(weight.dtype).max ** 0.5
    slope = squares.sum(-1)
    s = _quotient(goal, slope, huge)
    for _ in range(_NEWTON_STEPS):
        reached = squares * s.unsqueeze(-1)
        before, slope = slope, torch.where(reached < limits, squares, 0).sum(-1)
        if torch.equal(before, slope):  # the same coordinates are free as before: s is the root
            break
        gap = goal - torch.minimum(reached, limits).sum(-1)
        s = torch.where(gap > 0, (s + _quotient(gap, slope, huge)).clamp(max=huge), s)
    return s.sqrt()


def _quotient(a: Tensor, b: Tensor, otherwise: float) -> Tensor:
    """``a / b`` clipped to ``otherwise``, which also stands in where b is zero."""
    return torch.where(b > 0, a / torch.where(b > 0, b, 1), otherwise).clamp(max=otherwise)


def l1_fill(weight: Tensor, room: Tensor, radius: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Spend ``radius`` on the coordinates of largest weight first, at most ``room`` on each.

    Returns:
        The k largest weights (..., k) (differentiable), what is spent on each (..., k), and the price (...): the
        weight of the coordinate on which the budget runs out, zero where it never does.
    """
    *leading, n = torch.broadcast_shapes(weight.shape, room.shape)
    count = min(n, _FIRST_SORTED)
    while True:
        largest, index = weight.topk(count, dim=-1)
        largest, index = largest.expand(*leading, count), index.expand(*leading, count)
        available = room.expand(*leading, n).gather(-1, index)
        used = available.cumsum(-1)
        if count == n or bool((used[..., -1] >= radius).all()):
            break
        count = min(n, count * 8)
    budget = radius.unsqueeze(-1)
    spent = torch.minimum((budget - (used - available)).clamp(min=0), available)
    exhausted = used >= budget
    first = exhausted.to(torch.int8).argmax(-1, keepdim=True)  # the first maximum
    price = torch.where(exhausted.any(-1), largest.detach().gather(-1, first).squeeze(-1), 0)
    return largest, spent, price


def l1_shrink(size: Tensor, room: Tensor, radius: Tensor) -> Tensor:
    """``clamp(size - t, 0, room)`` for the smallest t >= 0 whose sum is at most ``radius``, by bisection."""
    low = torch.zeros_like(size[..., 0])
    high = size.amax(-1)
    fits = torch.minimum(size, room).sum(-1) <= radius
    high = torch.where(fits, 0, high)
    for _ in range(torch.finfo(size.dtype).bits):  # by then the two ends are neighbours
        middle = (low + high) / 2
        too_long = torch.minimum((size - middle.unsqueeze(-1)).clamp(min=0), room).sum(-1) > radius
        low, high = torch.where(too_long, middle, low), torch.where(too_long, high, middle)
    return torch.minimum((size - high.unsqueeze(-1)).clamp(min=0), room)
