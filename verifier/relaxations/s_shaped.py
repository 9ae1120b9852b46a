"""Envelopes of s-shaped activations: convex on the left of zero, concave on the right.

Tangents and chords as in CROWN (Zhang et al. 2018, arXiv 1811.00866, section 3.3), here as families: every tangent
between the one through the far end of the interval and the one at the near end is sound.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from verifier.relaxations.envelope import Envelope, Tangents
from verifier.specs.region import Box

#: value and derivative of an activation at each entry of a tensor
Function = Callable[[Tensor], tuple[Tensor, Tensor]]

#: halvings of the search for a tangent; the end that is kept is sound after any number of them
BISECTIONS = 18


def s_shaped(box: Box, function: Function) -> Envelope:
    """Envelope over a box of a rising function that is convex below 0 and concave above.

    Args:
        box: bounds of the input, (B, *X).
        function: value and derivative.
    """

    def mirrored(x: Tensor) -> tuple[Tensor, Tensor]:
        value, derivative = function(-x)
        return -value, derivative

    upper = _upper(box.lower, box.upper, function)
    # -f(-x) has the same shape, and negation loses no digit: where it lies below s * x + c, f lies above s * x - c
    reflected = _upper(-box.upper, -box.lower, mirrored)
    lower = Tangents(
        function,
        -reflected.start,
        -reflected.stop,
        reflected.fixed,
        reflected.slope,
        -reflected.intercept,
        reflected.default,
    )
    return Envelope(lower, upper)


def _upper(lower: Tensor, upper: Tensor, function: Function) -> Tangents:
    f_lower, d_lower = function(lower)
    f_upper, _ = function(upper)
    width = upper - lower
    point = width <= 1e-6 * (1 + lower.abs().maximum(upper.abs()))  # too narrow for a quotient of differences
    slope = torch.where(point, torch.zeros_like(width), (f_upper - f_lower) / torch.where(point, 1.0, width))
    # the function rises: over a very narrow interval its largest value is a sound constant
    intercept = torch.where(point, f_upper, torch.maximum(f_lower - slope * lower, f_upper - slope * upper))
    start = torch.where(lower >= 0, lower, _tangent_through(lower, f_lower, upper, function))
    value, derivative = function(upper)
    fixed = point | (upper <= 0) | ((lower < 0) & (value + derivative * (lower - upper) < f_lower))
    start = torch.where(fixed, upper, start)
    reach = upper - start
    touch = torch.maximum(start, (lower + upper) / 2)  # smallest area: as near to the middle as is sound
    default = torch.where(reach > 0, (touch - start) / torch.where(reach > 0, reach, 1.0), torch.zeros_like(reach))
    return Tangents(function, start, upper, fixed, slope, intercept, default.clamp(0, 1))


def _tangent_through(anchor: Tensor, f_anchor: Tensor, upper: Tensor, function: Function) -> Tensor:
    """A point of [0, upper] such that tangents there, and anywhere right of it, lie above (anchor, f(anchor)).

    Meaningful where anchor < 0 < upper and the tangent at `upper` does; elsewhere the value is not used.
    """
    unsafe, safe = torch.zeros_like(upper), upper.clamp(min=0)
    for _ in range(BISECTIONS):
        trial = (unsafe + safe) / 2
        value, derivative = function(trial)
        above = value + derivative * (anchor - trial) >= f_anchor
        safe, unsafe = torch.where(above, trial, safe), torch.where(above, unsafe, trial)
    return safe
