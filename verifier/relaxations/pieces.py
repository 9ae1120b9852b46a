"""Piecewise linear functions below and above a smooth activation, for hulls of several neurons.

On each piece an s-shaped function is convex or concave, so a chord lies on one side of it and a tangent on the other
(as PRIMA splits sigmoid and tanh: Mueller et al. 2022, POPL, section 6). Where pieces meet, the lower end counts below
and the higher one above: that makes both functions continuous, and what lies between them at the corners of a
polytope's parts spans all that lies between them over the polytope.

Axes: J knots of a neuron.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.relaxations.s_shaped import Function
from verifier.specs.box import Box, magnitude

#: halvings of the search for the point of a piece whose tangent is parallel to the chord; any point is sound
BISECTIONS = 30
#: values are moved away from the function by these shares of themselves (or of one) and of the input's largest value,
#: by far more than float64 rounds
WIDENING, WIDENING_BY_INPUT = 1e-9, 1e-12


@dataclass(frozen=True)
class Pieces:
    """Two continuous functions, linear between knots.

    Args:
        knots: (J, *X), in order; the first and the last are the ends of the neuron's interval.
        lower, upper: (J, *X) values at the knots.
    """

    knots: Tensor
    lower: Tensor
    upper: Tensor

    @property
    def inner(self) -> tuple[Tensor, ...]:
        """The knots between the ends."""
        return tuple(self.knots[1:-1])

    def at(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values below and above at points x (*X, V), one row of points for each neuron."""
        inner = self.knots[1:-1].unsqueeze(-1)
        piece = (x.unsqueeze(0) > inner).sum(0)
        start, stop = (_pick(self.knots, piece + step) for step in (0, 1))
        width = stop - start
        share = torch.where(width > 0, (x - start) / torch.where(width > 0, width, 1.0), 0.0).clamp(0, 1)
        low, high = (
            (1 - share) * _pick(values, piece) + share * _pick(values, piece + 1) for values in (self.lower, self.upper)
        )
        return low, high


def s_shaped_pieces(box: Box, function: Function) -> Pieces:
    """Four pieces of a rising function that is convex below 0 and concave above, over a box (*X)."""
    lower, upper = box.lower, box.upper
    zero = torch.zeros_like(lower)
    middle = torch.where((lower < 0) & (upper > 0), zero, _parallel(lower, upper, function))
    knots = [lower, _parallel(lower, middle, function), middle, _parallel(middle, upper, function), upper]
    sides = [_ends(start, stop, function) for start, stop in zip(knots, knots[1:], strict=False)]
    low = [sides[0][0][0], *(torch.minimum(a[0][1], b[0][0]) for a, b in zip(sides, sides[1:], strict=False))]
    high = [sides[0][1][0], *(torch.maximum(a[1][1], b[1][0]) for a, b in zip(sides, sides[1:], strict=False))]
    below, above = torch.stack([*low, sides[-1][0][1]]), torch.stack([*high, sides[-1][1][1]])
    by_input = WIDENING_BY_INPUT * magnitude(box)
    below, above = (
        below - WIDENING * (1 + below.abs()) - by_input,
        above + WIDENING * (1 + above.abs()) + by_input,
    )
    return Pieces(torch.stack(knots), below, above)


def _ends(start: Tensor, stop: Tensor, function: Function) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Values at both ends of a piece of the line below it and of the line above it."""
    chord = function(start)[0], function(stop)[0]
    touch = _parallel(start, stop, function)
    value, slope = function(touch)
    tangent = value + slope * (start - touch), value + slope * (stop - touch)
    concave = start + stop >= 0  # no piece has 0 inside
    below = [torch.where(concave, c, t) for c, t in zip(chord, tangent, strict=True)]
    above = [torch.where(concave, t, c) for c, t in zip(chord, tangent, strict=True)]
    return (below[0], below[1]), (above[0], above[1])


def _parallel(start: Tensor, stop: Tensor, function: Function) -> Tensor:
    """About the point whose tangent is parallel to the chord, of an interval on one side of 0; always a point of it."""
    rise, width = function(stop)[0] - function(start)[0], stop - start
    left, right = start, stop
    for _ in range(BISECTIONS):
        middle = left + (right - left) / 2
        steep = function(middle)[1] * width >= rise
        beyond = steep == (start + stop >= 0)  # the slope falls on the right of 0 and rises on the left
        left, right = torch.where(beyond, middle, left), torch.where(beyond, right, middle)
    return left


def _pick(values: Tensor, index: Tensor) -> Tensor:
    """Values (J, *X) at the knots with numbers (*X, V)."""
    return values.movedim(0, -1).gather(-1, index)
