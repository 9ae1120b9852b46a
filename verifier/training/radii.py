"""Certified radii of a batch of samples, by bisection.

The margin by intervals is monotone in the radius, so the bracket that bisection ends with holds the root. What is
returned is the bracket's lower end, where the margin *was* computed to be positive: for margins that are not monotone
(CROWN with adaptive slopes) it is a certified radius still, if not always the largest.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: (indices (N,) of samples, radii (N,)) -> least margin (N,) of each
MarginAt = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def certified_radii(
    margin_at: MarginAt, correct: Tensor, cap: Tensor, bisections: int, previous: Tensor | None = None
) -> Tensor:
    """The largest radius (B,) with a positive margin, to a tolerance of ``cap / 2**bisections``; 0 if misclassified.

    Every round asks for the margins of those samples only whose bracket is still wider than the tolerance.

    Args:
        margin_at: the margin of some samples, each at its own radius.
        correct: (B,) bool, whether the margin is positive at radius 0.
        cap: (B,) the largest radius that is asked for; a radius of exactly this is returned where it is certified.
        bisections: halvings of [0, cap], after one look at the cap.
        previous: (B,) radii of the same samples an epoch ago: the first two rounds look on either side of these.
    """
    low, high = torch.zeros_like(cap), cap.clone()
    tolerance = cap * 2.0**-bisections
    refuted = torch.zeros_like(correct)  # whether the margin at `high` is known not to be positive
    open_ = correct & (cap > 0)
    for turn in range(bisections + (1 if previous is None else 3)):
        index = open_.nonzero().squeeze(1)
        if index.numel() == 0:
            break
        l, h, step = low[index], high[index], tolerance[index]
        at = _next(l, h, step, refuted[index], None if previous is None else previous[index], turn)
        positive = margin_at(index, at) > 0
        low[index], high[index] = torch.where(positive, at, l), torch.where(positive, h, at)
        refuted[index] |= ~positive
        open_[index] = (low[index] < high[index]) & (~refuted[index] | (high[index] - low[index] > step * (1 + 1e-6)))
    return low


def _next(low: Tensor, high: Tensor, step: Tensor, refuted: Tensor, previous: Tensor | None, turn: int) -> Tensor:
    """Where to look next: first at the cap, or at the old radius and then beside it; later in the middle."""
    middle = torch.where(refuted, (low + high) / 2, high)
    if previous is None or turn > 1:
        return middle
    if turn == 0:  # a little above the old radius; at the cap where that is about what it was
        near = previous + step / 2
        return torch.where((previous <= 0) | (near + step >= high), high, near)
    # the old radius was beaten, or it was too much: a step of the tolerance decides about most samples
    beside = torch.where(refuted, (high - step).clamp(min=0), low + step)
    return torch.where((beside > low) & (beside < high), beside, middle)
