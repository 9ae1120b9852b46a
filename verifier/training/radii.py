"""Certified radii of a batch of samples, by bracketing.

The margin by intervals is monotone in the radius, so the bracket that the search ends with holds the root. What is
returned is the bracket's lower end, where the margin *was* computed to be positive: for margins that are not monotone
(CROWN with adaptive slopes) it is a certified radius still, if not always the largest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

#: (indices (N,) of samples, radii (N,)) -> least margin (N,) of each
MarginAt = Callable[[Tensor, Tensor], Tensor]

#: margins are taken to fall like ``m(0) - c * r**p``; p before two radii have been tried, and its limits
POWER, LEAST_POWER, LARGEST_POWER = 1.5, 1.0, 4.0
#: how far beyond the guess to look, in units of the tolerance: so that two looks make a bracket as wide as that
BEYOND = 0.4
#: rounds by guesses alone; from then on every other one halves the bracket, so that it ends
FREE_ROUNDS = 6


@dataclass
class _Brackets:
    """The search of N samples: all fields (N,).

    Args:
        low, high: certified radius, and the least that was not certified (or the cap, `refuted` False).
        at_zero, at_low, at_high: margins at radius 0 and at the ends.
        raised: whether the last look raised `low`.
    """

    low: Tensor
    high: Tensor
    at_zero: Tensor
    at_low: Tensor
    at_high: Tensor
    refuted: Tensor
    raised: Tensor

    def select(self, index: Tensor) -> _Brackets:
        return _Brackets(*(field[index] for field in vars(self).values()))

    def update(self, index: Tensor, at: Tensor, margin: Tensor) -> None:
        """What the margins of some samples at some radii say."""
        positive = margin > 0
        for ends, values, side in (
            (self.low, self.at_low, positive),
            (self.high, self.at_high, ~positive),
        ):
            ends[index] = torch.where(side, at, ends[index])
            values[index] = torch.where(side, margin, values[index])
        self.refuted[index] |= ~positive
        self.raised[index] = positive

    def guess(self) -> Tensor:
        """Where the margin is zero, if it falls by a power law."""
        smallest = torch.finfo(self.low.dtype).tiny
        fall_low, fall_high = ((self.at_zero - m).clamp(min=smallest) for m in (self.at_low, self.at_high))
        power = (fall_high / fall_low).log() / (self.high / self.low).log()
        both = self.refuted & (self.low > 0) & power.isfinite()
        power = torch.where(both, power, POWER).clamp(LEAST_POWER, LARGEST_POWER)
        end, fall = torch.where(self.refuted, self.high, self.low), torch.where(self.refuted, fall_high, fall_low)
        return end * (self.at_zero / fall) ** (1 / power)


@torch.no_grad()
def certified_radii(
    margin_at: MarginAt, at_zero: Tensor, cap: Tensor, bisections: int, previous: Tensor | None = None
) -> Tensor:
    """The largest radius (B,) with a positive margin, to a tolerance of ``cap / 2**bisections``; 0 if misclassified.

    Every round asks for the margins of those samples only whose bracket is still wider than the tolerance. It looks
    first at the cap, or a little above the old radius; then where a power law through what is known has its root,
    in turn on either side of it.

    Args:
        margin_at: the margin of some samples, each at its own radius.
        at_zero: (B,) margins at radius 0.
        cap: (B,) the largest radius that is asked for; a radius of exactly this is returned where it is certified.
        bisections: how fine the tolerance is.
        previous: (B,) radii of the same samples an epoch ago.
    """
    tolerance = cap * 2.0**-bisections
    nothing = torch.zeros_like(at_zero, dtype=torch.bool)
    state = _Brackets(torch.zeros_like(cap), cap.clone(), at_zero, at_zero.clone(), at_zero.clone(), nothing, ~nothing)
    unresolved = (at_zero > 0) & (cap > 0)
    for turn in range(FREE_ROUNDS + 2 * bisections + 2):
        index = unresolved.nonzero().squeeze(1)
        if index.numel() == 0:
            break
        before = state.select(index)
        at = _next(before, tolerance[index], None if previous is None else previous[index], turn)
        state.update(index, at, margin_at(index, at))
        now, limit = state.select(index), tolerance[index] * (1 + 1e-6)
        unresolved[index] = torch.where(now.refuted, now.high - now.low > limit, now.low < now.high)
    return state.low


def _next(state: _Brackets, step: Tensor, previous: Tensor | None, turn: int) -> Tensor:
    """Where to look in this round."""
    if turn == 0:
        if previous is None:
            return state.high
        near = previous + BEYOND * step
        return torch.where((previous <= 0) | (near + step >= state.high), state.high, near)
    if turn >= FREE_ROUNDS and turn % 2 == 0:
        return torch.where(state.refuted, (state.low + state.high) / 2, state.high)
    guess = state.guess()
    guess = torch.where(state.raised, guess + BEYOND * step, guess - BEYOND * step)
    # inside of the bracket by a part of what may be left of it; a cap that has not been tried is tried itself
    inside = torch.minimum(torch.maximum(guess, state.low + step / 4), state.high - step / 4)
    guess = torch.where(state.refuted, inside, guess.maximum(state.low + step / 4).minimum(state.high))
    untried = ~state.refuted & ((turn > 1) | (guess + step >= state.high))
    return torch.where(untried, state.high, guess)
