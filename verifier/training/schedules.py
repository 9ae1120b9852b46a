"""Schedules as functions of the step: what is resumed needs to know nothing but where it stands.

Steps count from 0; a schedule says what holds *during* a step.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

Schedule = Callable[[int], float]

#: the smoothed ramp: power of its beginning, and the share of the ramp that this takes
_BETA, _MIDDLE = 4.0, 0.25


def smoothed_ramp(final: float, begin: int, length: int) -> Schedule:
    """Zero up to `begin`, then a power of four that goes over smoothly into a line, then `final`.

    With n steps of ramp and M = n / 4 it is ``a s^4`` for s < M and ``a (M^4 + 4 M^3 (s - M))`` after, where ``a`` is
    such that it ends in `final` (the smoothed schedule of auto_LiRPA's training, Xu et al. 2020, arXiv 2002.12920).

    Args:
        final: the value from step ``begin + length`` on.
        begin: step at which it leaves zero.
        length: number of steps of the ramp; 0 jumps.
    """
    middle = _MIDDLE * length
    slope = _BETA * middle ** (_BETA - 1)

    def value(step: int) -> float:
        s = step - begin
        if s >= length:
            return final
        if s <= 0:
            return 0.0
        scale = final / (middle**_BETA + slope * (length - middle))
        return scale * (s**_BETA if s < middle else middle**_BETA + slope * (s - middle))

    return value


def one_cycle(peak: float, steps: int, rise: float = 0.3, start: float = 25.0, end: float = 100.0) -> Schedule:
    """Three straight lines: from ``peak / start`` to `peak` in a share `rise` of the steps, back in another, then down
    to ``peak / (start * end)`` (Smith and Topin 2018, arXiv 1708.07120). The momentum stays as it is."""
    top = max(rise * steps - 1, 1e-9)
    points = ((0.0, peak / start), (top, peak), (2 * top, peak / start), (steps - 1.0, peak / start / end))

    def value(step: int) -> float:
        for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
            if step <= x1 and x1 > x0:
                return y0 + (y1 - y0) * (step - x0) / (x1 - x0)
        return points[-1][1]

    return value


def decays(first: float, milestones: Sequence[int], factor: float) -> Schedule:
    """`first`, multiplied by `factor` at every milestone (a step)."""
    ordered = sorted(milestones)
    return lambda step: first * factor ** bisect_right(ordered, step)
