"""Families of lines as the few that a linear program holds, and the program's dual values as weights of a family."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from verifier.relaxations.envelope import Family, Tangents

#: tangents of a smooth activation that a linear program holds on either side
TANGENTS = 6
#: halvings of the search for a tangent of a given slope
BISECTIONS = 40


@dataclass(frozen=True)
class Lines:
    """K lines on one side of an activation's n neurons: ``slopes * x + intercepts``, both (K, n) float64."""

    slopes: np.ndarray
    intercepts: np.ndarray

    def select(self, index: np.ndarray) -> Lines:
        """The lines of some neurons."""
        return Lines(self.slopes[:, index], self.intercepts[:, index])


def grid(family: Family) -> tuple[float, ...]:
    """Weights of the lines that stand for a family: the ends of a mixture make all of it."""
    if family.default is None:
        return (0.0,)
    return tuple(np.linspace(0.0, 1.0, TANGENTS)) if isinstance(family, Tangents) else (0.0, 1.0)


def lines_of(family: Family) -> Lines:
    """The lines of a family of one batch element (fields (1, *X))."""
    weights = grid(family)
    weight = None
    if family.default is not None:
        like = family.default
        weight = torch.tensor(weights, dtype=like.dtype, device=like.device).reshape(1, -1, *(1,) * (like.dim() - 1))
    slope, intercept = family.line(weight)
    intercept = torch.zeros_like(slope) if intercept is None else intercept
    slope, intercept = torch.broadcast_tensors(slope, intercept)
    flat = [value.expand(1, len(weights), *value.shape[2:]).reshape(len(weights), -1) for value in (slope, intercept)]
    return Lines(*(value.detach().double().cpu().numpy() for value in flat))


def weights_of(family: Family, duals: np.ndarray) -> Tensor | None:
    """Weights (1, S, *X) of a family for dual values (S, K, n) of its lines; whatever these are, each is in [0, 1].

    A program that leans on several lines at a neuron leans on their mean. For a mixture this is a line of the family;
    of a smooth function's tangents the one of the same slope lies beyond the mean. Where the program leans on none
    (or says what is not a number) CROWN's weight is kept.
    """
    default = family.default
    if default is None:
        return None
    duals = np.where(np.isfinite(duals), np.maximum(duals, 0.0), 0.0)
    given = torch.as_tensor(duals, dtype=torch.float64)
    total = given.sum(1)
    share = given / torch.where(total > 0, total, 1.0).unsqueeze(1)
    weight = (share * torch.tensor(grid(family), dtype=torch.float64).reshape(1, -1, 1)).sum(1)
    weight = weight.reshape(1, len(duals), *default.shape[1:]).to(default)
    if isinstance(family, Tangents):
        slopes = torch.as_tensor(lines_of(family).slopes)
        weight = _of_slope(family, (share * slopes).sum(1).reshape(weight.shape).to(default))
    used = (total > 0).reshape(weight.shape).to(default.device)
    return torch.where(used, weight, default.unsqueeze(1)).clamp(0.0, 1.0)


def _of_slope(family: Tangents, slope: Tensor) -> Tensor:
    """Weights (1, S, *X) whose tangents have the given slopes, which change in one direction with the weight."""
    low, high = torch.zeros_like(slope), torch.ones_like(slope)
    rising = family.line(high)[0] >= family.line(low)[0]
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        beyond = (family.line(middle)[0] >= slope) == rising
        low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
    return (low + high) / 2
