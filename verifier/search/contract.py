"""Linear lower bounds over a box, put to use: cut off the part of the box where they already exclude the unsafe set."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: passes of the contraction: each one uses the boxes that the other rows left
_PASSES = 3


@dataclass(frozen=True)
class Planes:
    """Linear lower bounds of rows over boxes: ``A x + constant <= row`` on the box.

    Args:
        A: (N, S, n).
        constant: (N, S).
        slack: (N, S) what a bound has to exceed to count (rounding).
        member: (N, P, S) the rows of every polytope.
    """

    A: Tensor
    constant: Tensor
    slack: Tensor
    member: Tensor


def contract(lower: Tensor, upper: Tensor, planes: Planes, open_: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (N, n) that still hold every point of the old ones which can lie in an open polytope.

    A point can only be in a polytope if all its rows are <= 0 there; so ``A x + constant <= slack`` must hold, which
    bounds every coordinate once the others take their best values (as in Clip-and-Verify, Zhou et al. 2025).

    Args:
        lower, upper: (N, n).
        open_: (N, P) polytopes that are not excluded yet.

    Returns:
        New lower and upper ends, (N, n), the hull over the polytopes, and the polytopes still open, (N, P).
    """
    ends = [_of_polytope(lower, upper, planes, p) for p in range(open_.shape[1])]
    missed = torch.stack([e[2] for e in ends], 1)
    open_ = open_ & ~missed
    low = torch.stack([e[0] for e in ends], 1).masked_fill(~open_.unsqueeze(2), torch.inf).amin(1)
    high = torch.stack([e[1] for e in ends], 1).masked_fill(~open_.unsqueeze(2), -torch.inf).amax(1)
    some = open_.any(1, keepdim=True)
    return torch.where(some, low, lower), torch.where(some, high, upper), open_


def _of_polytope(lower: Tensor, upper: Tensor, planes: Planes, p: int) -> tuple[Tensor, Tensor, Tensor]:
    """The box that the rows of polytope p leave, and (N,) whether they leave nothing."""
    rows = planes.member[:, p]
    used = rows.any(0).nonzero()[:, 0]
    A, constant, slack = planes.A[:, used], planes.constant[:, used], planes.slack[:, used]
    absent, positive, size = ~rows[:, used], A > 0, A.abs()
    usable = size > torch.finfo(A.dtype).tiny / torch.finfo(A.dtype).eps  # else the quotient may overflow
    missed = torch.zeros(len(lower), dtype=torch.bool, device=lower.device)
    for _ in range(_PASSES if len(used) > 1 else min(1, len(used))):
        least = (torch.where(positive, lower.unsqueeze(1), upper.unsqueeze(1)) * A).sum(2) + constant
        room = (slack - least).masked_fill(absent, torch.inf)
        reach = torch.where(usable, room.clamp(min=0).unsqueeze(2) / size, torch.inf)
        high = torch.where(positive, lower.unsqueeze(1) + reach, torch.inf).amin(1)
        low = torch.where(positive, -torch.inf, upper.unsqueeze(1) - reach).amax(1)
        lower, upper = torch.maximum(lower, low), torch.minimum(upper, high)
        # the slack exceeds every rounding error of the ends, so ends that cross leave no point between them
        missed = missed | (room < 0).any(1) | (lower > upper).any(1)
        lower, upper = torch.minimum(lower, upper), torch.maximum(lower, upper)
    return lower, upper, missed
