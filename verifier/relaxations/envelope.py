"""Envelopes: families of lines that bound one activation over an interval.

A *family* is a set of lines indexed by a weight in [0, 1] per neuron, every one of which is a sound bound.
A method only chooses weights (the alpha of alpha-CROWN, Xu et al. 2021, arXiv 2011.13824); no choice can be
unsound. Families come in three kinds: one line (`Chord`), straight mixtures of two (`Mixture`, as for ReLU),
and tangents of a smooth function indexed by where they touch (`Tangents`, as for sigmoid).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

#: slope and intercept; an intercept of zero everywhere is None, which saves a pass over memory
Line = tuple[Tensor, Tensor | None]


class Family(Protocol):
    """Lines ``slope * x + intercept``, one for each weight.

    ``default`` is the weight that CROWN's adaptive rule takes, (B, *X), or None where the family holds one
    line only (then ``line`` ignores its argument).
    """

    @property
    def default(self) -> Tensor | None: ...

    @property
    def level(self) -> Tensor:
        """Where every line of the family is horizontal, bool (B, *X)."""
        ...

    def line(self, weight: Tensor | None) -> Line:
        """The line for weights (B, S, *X) or (B, 1, *X); None takes the default, shaped (B, 1, *X)."""
        ...


@dataclass(frozen=True)
class Chord:
    """A single line; slope and intercept (B, *X)."""

    slope: Tensor
    intercept: Tensor | None
    default: None = None

    @property
    def level(self) -> Tensor:
        return self.slope == 0

    def line(self, weight: Tensor | None) -> Line:
        return self.slope.unsqueeze(1), None if self.intercept is None else self.intercept.unsqueeze(1)


@dataclass(frozen=True)
class Mixture:
    """``(1 - weight) * line_0 + weight * line_1``; all fields (B, *X), intercepts None where both are zero."""

    slope_0: Tensor
    slope_1: Tensor
    default: Tensor
    intercept_0: Tensor | None = None
    intercept_1: Tensor | None = None

    @property
    def level(self) -> Tensor:
        return (self.slope_0 == 0) & (self.slope_1 == 0)

    def line(self, weight: Tensor | None) -> Line:
        weight = self.default.unsqueeze(1) if weight is None else weight
        slope_0 = self.slope_0.unsqueeze(1)
        slope = slope_0 + weight * (self.slope_1.unsqueeze(1) - slope_0)
        if self.intercept_0 is None or self.intercept_1 is None:
            return slope, None
        intercept_0 = self.intercept_0.unsqueeze(1)
        return slope, intercept_0 + weight * (self.intercept_1.unsqueeze(1) - intercept_0)


@dataclass(frozen=True)
class Tangents:
    """Tangents of a smooth function where it curves the right way, else one fixed line.

    Args:
        function: value and derivative at a point.
        start, stop: the touching points for weights 0 and 1, (B, *X).
        fixed: where True, the line (`slope`, `intercept`) is used whatever the weight.
        default: weight of the touching point that CROWN takes.
    """

    function: Callable[[Tensor], tuple[Tensor, Tensor]]
    start: Tensor
    stop: Tensor
    fixed: Tensor
    slope: Tensor
    intercept: Tensor
    default: Tensor

    @property
    def level(self) -> Tensor:
        return self.fixed & (self.slope == 0)

    def line(self, weight: Tensor | None) -> Line:
        weight = self.default.unsqueeze(1) if weight is None else weight
        start = self.start.unsqueeze(1)
        point = start + weight * (self.stop.unsqueeze(1) - start)
        value, derivative = self.function(point)
        fixed = self.fixed.unsqueeze(1)
        slope = torch.where(fixed, self.slope.unsqueeze(1), derivative)
        return slope, torch.where(fixed, self.intercept.unsqueeze(1), value - derivative * point)


@dataclass(frozen=True)
class Envelope:
    """Lower and upper families of one activation over its input's box."""

    lower: Family
    upper: Family
