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

#: point right of zero at which an activation has a derivative, for derivatives up to the one at zero
AtSlope = Callable[[Tensor], Tensor]

#: steps of the search for a tangent, which squares its error in each, and the share by which it goes too far: rounding
#: of a chord must not leave it on the wrong side
STEPS, BEYOND = 3, 1e-5


def s_shaped(box: Box, function: Function, at_slope: AtSlope) -> Envelope:
    """Envelope over a box of a rising function that is convex below 0 and concave above, and odd but for a constant.

    Args:
        box: bounds of the input, (B, *X).
        function: value and derivative.
        at_slope: the inverse of the derivative above 0.
    """
    sign = box.lower.new_tensor([1.0, -1.0]).reshape(2, *[1] * box.lower.dim())

    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        value, derivative = function(sign * x)
        return sign * value, derivative

    # -f(-x) has the same shape, and negation loses no digit: where it lies below s * x + c, f lies above s * x - c
    lower, upper = torch.stack([box.lower, -box.upper]), torch.stack([box.upper, -box.lower])
    start, fixed, slope, intercept, default = (part.unbind() for part in _upper(lower, upper, both, at_slope))
    return Envelope(
        Tangents(function, -start[1], box.lower, fixed[1], slope[1], -intercept[1], default[1]),
        Tangents(function, start[0], box.upper, fixed[0], slope[0], intercept[0], default[0]),
    )


def _upper(
    lower: Tensor, upper: Tensor, function: Function, at_slope: AtSlope
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Start, fixed, slope, intercept and default of `Tangents` above a function; they stop at the upper end."""
    f_lower, _ = function(lower)
    f_upper, derivative = function(upper)
    width = upper - lower
    point = width <= 1e-6 * (1 + lower.abs().maximum(upper.abs()))  # too narrow for a quotient of differences
    slope = torch.where(point, torch.zeros_like(width), (f_upper - f_lower) / torch.where(point, 1.0, width))
    # the function rises: over a very narrow interval its largest value is a sound constant
    intercept = torch.where(point, f_upper, torch.maximum(f_lower - slope * lower, f_upper - slope * upper))
    start = torch.where(lower >= 0, lower, _tangent_through(lower, f_lower, upper, function, at_slope))
    fixed = point | (upper <= 0) | ((lower < 0) & (f_upper + derivative * (lower - upper) < f_lower))
    start = torch.where(fixed, upper, start)
    reach = upper - start
    touch = torch.maximum(start, (lower + upper) / 2)  # smallest area: as near to the middle as is sound
    default = torch.where(reach > 0, (touch - start) / torch.where(reach > 0, reach, 1.0), torch.zeros_like(reach))
    return start, fixed, slope, intercept, default.clamp(0, 1)


@torch.no_grad()  # in training the point counts as given: inverse derivatives have infinite slopes at zero
def _tangent_through(anchor: Tensor, f_anchor: Tensor, upper: Tensor, function: Function, at_slope: AtSlope) -> Tensor:
    """A point of [0, upper] such that tangents there, and anywhere right of it, lie above (anchor, f(anchor)).

    Meaningful where anchor < 0 < upper and the tangent at `upper` does; elsewhere the value is not used. Of all chords
    from the anchor the tangent is the steepest. So the point whose derivative is the slope of any chord lies right of
    where it touches, and nearer to it than the chord's end, whose distance it squares. The first chord ends where the
    function, being odd, is as steep as at the anchor.
    """
    first = torch.minimum(upper, -anchor).clamp(min=0)
    safe = trial = first
    value, _ = function(trial)
    for _ in range(STEPS):
        chord = (value - f_anchor) / (trial - anchor)
        trial = torch.minimum((1 + BEYOND) * at_slope(chord).clamp(min=0), first)
        value, derivative = function(trial)
        above = value + derivative * (anchor - trial) >= f_anchor
        safe = torch.where(above, trial, safe)
    return safe
