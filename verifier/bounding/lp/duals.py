"""What solvers say, as dual points: the only way from a linear program back into the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from verifier.bounding.dual import DualPoint, Relaxation
from verifier.bounding.lp.lines import weights_of
from verifier.bounding.lp.network import Affine, RelaxedNetwork
from verifier.relaxations.envelope import Family
from verifier.specs.region import Region


@dataclass(frozen=True)
class Duals:
    """What a solver says of one minimum; nothing of it is trusted.

    Args:
        lower, upper: for each activation, dual values (K, n) of its lines, non-negative if the solver is right.
        point: the network's input at the solver's optimum, flat.
        value: the solver's optimum.
        splits: for each input of an activation, reduced costs (n,): dual values of cuts of its range, positive of a
            lower end, negative of an upper one.
        targets: dual values of the target rows, where there are some.
        inputs, outputs: at the optimum, the inputs (n,) of activations by their names and the activations' outputs
            (n,); zero for entries that are no variable.
        cuts: for each activation with cuts, their dual values (G, F), non-negative if the solver is right.
    """

    lower: Mapping[str, np.ndarray]
    upper: Mapping[str, np.ndarray]
    point: np.ndarray
    value: float
    splits: Mapping[str, np.ndarray]
    targets: np.ndarray
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
    cuts: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Empty(Duals):
    """A solver's claim that nothing meets the cuts, with the combination of rows that it offers as the reason."""


class Solver(Protocol):
    """Minimises the rows of one objective over one relaxed network."""

    def minimise(self, row: int, deadline: float | None) -> Duals | None:
        """What the solver says of a row's minimum; None where it has no answer in time, or says that it failed."""
        ...


#: (network, region, rows) -> a solver for these rows
MakeSolver = Callable[[RelaxedNetwork, Region, Affine], Solver]


def ask(solver: Solver, row: int, deadline: float | None) -> Duals | None:
    """A solver's answer; a solver that breaks down has none.

    Everything that a solver can raise is caught: its answer only ever improves a bound that stands without it.
    """
    try:
        return solver.minimise(row, deadline)
    except Exception:  # of a third party's code; whatever it is, there is no answer
        return None


def dual_point(relaxation: Relaxation, found: Sequence[Duals | None]) -> DualPoint:
    """Weights (1, S, *X) and multipliers of cuts for S rows from what a solver said of each; CROWN's, and none, for
    rows without an answer.

    Args:
        relaxation: of one batch element.
        found: one entry a row.
    """
    weights = {}
    for name, envelope in relaxation.envelopes.items():
        lower = _weights(envelope.lower, [None if one is None else one.lower.get(name) for one in found])
        upper = _weights(envelope.upper, [None if one is None else one.upper.get(name) for one in found])
        weights[name] = (lower, upper)
    cuts = {}
    for name, cut in relaxation.cuts.items():
        if any(one is not None and name in one.cuts for one in found):
            like = cut.zero(1)[0, 0]
            given = [like if one is None else torch.as_tensor(one.cuts[name]).to(like) for one in found]
            cuts[name] = torch.stack(given).nan_to_num(0.0, 0.0, 0.0).clamp(min=cut.least).unsqueeze(0)
    return DualPoint(weights, cut_multipliers=cuts)


def _weights(family: Family, found: Sequence[np.ndarray | None]) -> Tensor | None:
    """Weights (1, S, *X) of one side from dual values (K, n) of each row."""
    if family.default is None:
        return None
    like = next((one for one in found if one is not None), None)
    if like is None:  # not below the objective, or no row has an answer
        return family.default.unsqueeze(1).expand(1, len(found), *family.default.shape[1:])
    return weights_of(family, np.stack([np.zeros_like(like) if one is None else one for one in found]))


def join(relaxation: Relaxation, mask: Tensor, one: DualPoint, other: DualPoint) -> DualPoint:
    """`one` for the rows of a mask (B, S), `other` for the rest."""

    def chosen(family: Family, pair: tuple[Tensor | None, Tensor | None]) -> Tensor | None:
        if family.default is None:
            return None
        first, second = (family.default.unsqueeze(1) if w is None else w for w in pair)
        return torch.where(mask.reshape(*mask.shape, *(1,) * (first.dim() - 2)), first, second)

    weights = {}
    for name, envelope in relaxation.envelopes.items():
        first, second = (point.weights.get(name, (None, None)) for point in (one, other))
        weights[name] = tuple(
            chosen(family, (first[side], second[side])) for side, family in enumerate((envelope.lower, envelope.upper))
        )
    cuts = {}
    for name in {*one.cut_multipliers, *other.cut_multipliers}:
        none = relaxation.cuts[name].zero(mask.shape[1])
        first, second = (point.cut_multipliers.get(name, none) for point in (one, other))
        cuts[name] = torch.where(mask.reshape(*mask.shape, *(1,) * (none.dim() - 2)), first, second)
    return DualPoint(weights, cut_multipliers=cuts)


def stack(points: Sequence[DualPoint]) -> DualPoint:
    """Dual points of single batch elements side by side."""

    def together(parts: list[Tensor | None]) -> Tensor | None:
        present = [part for part in parts if part is not None]
        return torch.cat(present) if present else None

    weights = {
        name: (together([p.weights[name][0] for p in points]), together([p.weights[name][1] for p in points]))
        for name in points[0].weights
    }
    cuts: dict[str, Tensor] = {}
    for name in {name for point in points for name in point.cut_multipliers}:
        like = next(p.cut_multipliers[name] for p in points if name in p.cut_multipliers)
        cuts[name] = torch.cat([p.cut_multipliers.get(name, torch.zeros_like(like)) for p in points])
    return DualPoint(weights, cut_multipliers=cuts)
