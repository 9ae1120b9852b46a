"""Certified radii of a batch of samples, by bracketing.

What is returned is a radius at which the margin *was* computed to be positive. How far the root may lie beyond it is
estimated from how margins by intervals behave: they fall steadily, and hardly slower further out than near the centre
(measured on networks in training, like ``m(0) - c * r**p`` with p between 0.95 and 1.2). So beyond a certified radius
they stay below the line from the margin at 0 through the one there. Where a margin does not (CROWN's, with adaptive
slopes), the radius is certified still, if not always the largest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

#: (indices (N,) of samples, radii (N,)) -> least margin (N,) of each
MarginAt = Callable[[Tensor, Tensor], Tensor]

#: how far below the expected root to look, in units of the tolerance: a look that is certified mostly is the last then
BELOW = 0.4
#: rounds by guesses alone; from then on every other one halves the bracket, so that it ends
FREE_ROUNDS = 6
#: parts of a batch are filled up to a multiple of this: torch prepares a convolution anew for every size that it has
#: not seen, which takes longer than a small convolution itself
GRAIN = 8


@dataclass
class _Brackets:
    """The search of N samples: all fields (N,).

    Args:
        low, high: certified radius, and the least that was not certified (or the cap, `refuted` False).
        at_zero, at_low, at_high: margins at radius 0 and at the ends.
    """

    low: Tensor
    high: Tensor
    at_zero: Tensor
    at_low: Tensor
    at_high: Tensor
    refuted: Tensor

    def select(self, index: Tensor) -> _Brackets:
        return _Brackets(*(field[index] for field in vars(self).values()))

    def update(self, at: Tensor, margin: Tensor) -> None:
        """What the margins at some radii say."""
        positive = margin > 0
        self.low, self.at_low = torch.where(positive, at, self.low), torch.where(positive, margin, self.at_low)
        self.high, self.at_high = torch.where(positive, self.high, at), torch.where(positive, self.at_high, margin)
        self.refuted = self.refuted | ~positive

    def line(self) -> Tensor:
        """Root of the line through the margins at 0 and at `low`; infinite where nothing is certified yet."""
        return self.low * self.at_zero / (self.at_zero - self.at_low).clamp(min=0)

    def guess(self) -> Tensor:
        """Where the margin is zero, if it is linear between the ends, or up to the cap."""
        between = self.low + (self.high - self.low) * self.at_low / (self.at_low - self.at_high)
        return torch.where(self.refuted, between, self.line().nan_to_num(nan=torch.inf))

    def resolved(self, tolerance: Tensor) -> Tensor:
        """Whether `low` is as near to the root as is asked for; a cap within reach has to be tried itself."""
        line = self.line().nan_to_num(nan=torch.inf)
        near = torch.minimum(line, self.high) - self.low <= tolerance * (1 + 1e-6)
        return torch.where(self.refuted | (line < self.high), near, self.low >= self.high)


def filled(index: Tensor) -> Tensor:
    """Indices, at least one, and the last of them again and again up to a whole number of grains."""
    return torch.cat([index, index[-1:].expand(-len(index) % GRAIN)])


@torch.no_grad()
def certified_radii(
    margin_at: MarginAt,
    at_zero: Tensor,
    cap: Tensor,
    bisections: int,
    previous: Tensor | None = None,
    at_cap: Tensor | None = None,
) -> Tensor:
    """The largest radius (B,) with a positive margin, to a tolerance of ``cap / 2**bisections``; 0 if misclassified.

    Every round asks for the margins of those samples only that are not resolved. It looks first at the cap, or a
    little below the old radius; then a little below where a line through what is known has its root.

    Args:
        margin_at: the margin of some samples, each at its own radius.
        at_zero: (B,) margins at radius 0.
        cap: (B,) the largest radius that is asked for; a radius of exactly this is returned where it is certified.
        bisections: how fine the tolerance is.
        previous: (B,) radii of the same samples an epoch ago.
        at_cap: (B,) margins at the cap, where they are known and not positive; other numbers say nothing.
    """
    radius, step = torch.zeros_like(cap), cap * 2.0**-bisections
    known = torch.zeros_like(cap) if at_cap is None else at_cap
    index = ((at_zero > 0) & (cap > 0)).nonzero().squeeze(1)
    start = _Brackets(radius, cap, at_zero, at_zero, known, torch.zeros_like(cap, dtype=torch.bool) | (known < 0))
    state = start.select(index)
    for turn in range(FREE_ROUNDS + 2 * bisections + 2):
        if index.numel() == 0:
            break
        at = _next(state, step[index], None if previous is None else previous[index], turn)
        state.update(at, margin_at(index, at))
        radius[index] = state.low
        left = (~state.resolved(step[index])).nonzero().squeeze(1)
        index, state = index[left], state.select(left)
    return radius


def _next(state: _Brackets, step: Tensor, previous: Tensor | None, turn: int) -> Tensor:
    """Where to look in this round."""
    guess = state.guess()
    if turn == 0 and previous is not None:
        guess = torch.where(state.refuted | (previous <= 0), guess, previous)
    if turn >= FREE_ROUNDS and turn % 2 == 0:
        return torch.where(state.refuted, (state.low + state.high) / 2, state.high)
    # inside of the bracket by a part of what may be left of it
    inside = torch.minimum(torch.maximum(guess - BELOW * step, state.low + step / 4), state.high - step / 4)
    return torch.where(~state.refuted & (guess + step >= state.high), state.high, inside)
