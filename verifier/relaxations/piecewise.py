"""Envelopes of piecewise linear activations: ReLU and its kin, and clip.

The single-neuron convex hull of ReLU is the "triangle" of Ehlers 2017 (arXiv 1705.01320); CROWN's adaptive
lower line (Zhang et al. 2018, arXiv 1811.00866) takes the side of it with the smaller area.
"""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.relaxations.envelope import Chord, Envelope, Mixture
from verifier.specs.region import Box


def two_piece(box: Box, slope: Tensor) -> Envelope:
    """Envelope of ``max(x, 0) + slope * min(x, 0)`` over a box.

    Args:
        box: bounds of the input, (B, *X).
        slope: broadcastable to (B, *X). Up to 1 the function is convex (ReLU, LeakyReLU, absolute value), above
            1 it is concave (PReLU), and the roles of chord and kink swap.
    """
    if not bool(slope.any()):
        return _plain(box)
    lower, upper = box.lower, box.upper
    unstable = (lower < 0) & (upper > 0)
    width = torch.where(unstable, upper - lower, torch.ones_like(lower))
    stable_slope = torch.where(upper <= 0, slope, torch.ones_like(lower))
    chord_slope = torch.where(unstable, (upper - slope * lower) / width, stable_slope)
    # u - chord_slope * u, written without the difference of two nearly equal numbers where |l| is much less than u
    chord_intercept = torch.where(unstable, -lower * upper * (1 - slope) / width, torch.zeros_like(lower))
    chord = Chord(chord_slope, chord_intercept)
    left = torch.where(unstable, slope, stable_slope)
    kink = Mixture(left, stable_slope, default=(upper + lower > 0).to(lower.dtype))
    if bool((slope <= 1).all()):
        return Envelope(lower=kink, upper=chord)
    if bool((slope >= 1).all()):
        return Envelope(lower=chord, upper=kink)
    return _mixed_curvature(chord, kink, slope <= 1)


def _plain(box: Box) -> Envelope:
    """The same for slope 0, with few passes: clipped bounds make the chord of a stable neuron the neuron itself."""
    lower, upper = box.lower.clamp(max=0), box.upper.clamp(min=0)
    width = upper - lower
    width = width + (width == 0).to(width.dtype)
    on = (box.upper > 0).to(width.dtype)
    default = (box.upper + box.lower > 0).to(width.dtype)
    kink = Mixture((box.lower >= 0).to(width.dtype) * on, on, default)
    return Envelope(lower=kink, upper=Chord(upper / width, -lower * upper / width))


def _mixed_curvature(chord: Chord, kink: Mixture, convex: Tensor) -> Envelope:
    """PReLU whose channels lie on both sides of 1: each side is a mixture, degenerate where it is the chord."""
    zero = torch.zeros_like(kink.slope_0)
    intercept = zero if chord.intercept is None else chord.intercept

    def side(use_kink: Tensor) -> Mixture:
        offset = torch.where(use_kink, zero, intercept)
        return Mixture(
            torch.where(use_kink, kink.slope_0, chord.slope),
            torch.where(use_kink, kink.slope_1, chord.slope),
            kink.default,
            offset,
            offset,
        )

    convex = convex.expand_as(zero)
    return Envelope(lower=side(convex), upper=side(~convex))


def clip(box: Box, low: float, high: float) -> Envelope:
    """Envelope of ``min(max(x, low), high)`` over a box: the two edges of its hull on either side."""
    lower, upper = box.lower, box.upper
    f_lower, f_upper = lower.clamp(low, high), upper.clamp(low, high)
    middle = (lower + upper) / 2

    def edges(x_0: Tensor, f_0: Tensor, x_1: Tensor, f_1: Tensor, flat: Tensor, level: float, sign: int) -> Mixture:
        """The slanted edge through two points and, where `flat`, the horizontal one at `level`.

        Where all of the interval is saturated the points coincide or change places, and both edges are horizontal.
        """
        width = x_1 - x_0
        slope = torch.where(width > 0, (f_1 - f_0) / torch.where(width > 0, width, torch.ones_like(width)), 0.0)
        intercept = torch.where(slope == 1, torch.zeros_like(slope), f_0 - slope * x_0)
        flat_slope = torch.where(flat, torch.zeros_like(slope), slope)
        flat_intercept = torch.where(flat, torch.full_like(slope, level), intercept)
        gain = sign * ((flat_slope - slope) * middle + flat_intercept - intercept)
        return Mixture(slope, flat_slope, (gain > 0).to(slope.dtype), intercept, flat_intercept)

    # the slanted edge of the upper hull ends where the function saturates; beyond it the flat edge is all there is
    top = edges(lower, f_lower, upper.clamp(max=high), f_upper, upper > high, high, -1)
    bottom = edges(lower.clamp(min=low), f_lower, upper, f_upper, lower < low, low, +1)
    return Envelope(lower=bottom, upper=top)
