"""The program of a subproblem of branch and bound: the root's, with other lines and with ranges that are cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from verifier.bounding.dual import DualPoint, Objective, Relaxation, Split
from verifier.bounding.lp.duals import Duals, Empty, dual_point
from verifier.bounding.lp.highs import WarmModel
from verifier.bounding.lp.lines import Lines, lines_of
from verifier.bounding.lp.network import Layer
from verifier.bounding.lp.program import Program


class SplitSolver(Protocol):
    """Minimises the greatest of a program's target rows over subproblems."""

    def bound(self, relaxation: Relaxation, deadline: float | None) -> Duals | None: ...


class SplitModel:
    """Minimises the greatest of some rows over one subproblem after the other, each from the basis of the last.

    Args:
        program: of the root, with target rows; neurons that are one line there stay so in every subproblem.
    """

    def __init__(self, program: Program):
        self.program, self._model = program, WarmModel(program)
        self._highs = self._model.highs
        cost = np.zeros(len(program.lower))
        cost[-1] = 1.0
        self._model.charge(cost)
        self._entries = {source.name: source.entries for source in program.network.sources}
        self._cuts = {name: _no_cuts(len(entries)) for name, entries in self._entries.items()}
        self._root = {layer.node: _rows(layer.lower, layer.upper, layer.free) for layer in program.network.layers}
        self._rows = dict(self._root)

    def bound(self, relaxation: Relaxation, deadline: float | None) -> Duals | None:
        """What HiGHS says of a subproblem (batch size 1): duals, `Empty`, or None where it has no answer."""
        for layer in self.program.network.layers:
            envelope = relaxation.envelopes[layer.node]
            new = _rows(lines_of(envelope.lower), lines_of(envelope.upper), layer.free)
            self._change_rows(layer, _decided(new, self._root[layer.node]))
        for name in self._entries:
            self._change_cuts(name, relaxation.splits.get(name))
        found = self._solve(deadline)
        if found is None:
            self._highs.clearSolver()  # a basis that led nowhere is forgotten; and interior points know no rays
            found = self._solve(deadline)
        return found

    def _solve(self, deadline: float | None) -> Duals | None:
        found = self._model.solve(deadline)
        return self._reason() if found is None and self._model.infeasible() else found

    def _change_rows(self, layer: Layer, new: Rows) -> None:
        old, count = self._rows[layer.node], len(layer.free)
        columns = self.program.inputs[layer.source][np.searchsorted(self._entries[layer.source], layer.free)]
        first = self.program.lines[layer.node, 0]  # the blocks of both sides follow each other
        for k, j in np.argwhere(old.slopes != new.slopes).tolist():
            self._highs.changeCoeff(first + k * count + j, int(columns[j]), -float(new.slopes[k, j]))
        for k, j in np.argwhere((old.lower != new.lower) | (old.upper != new.upper)).tolist():
            self._highs.changeRowBounds(first + k * count + j, float(new.lower[k, j]), float(new.upper[k, j]))
        self._rows[layer.node] = new

    def _change_cuts(self, name: str, split: Split | None) -> None:
        entries = self._entries[name]
        new = _no_cuts(len(entries))
        if split is not None:
            sign = split.sign.reshape(-1).double().cpu().numpy()[entries]
            point = np.zeros(len(entries))
            if split.point is not None:
                point = split.point.reshape(-1).double().cpu().numpy()[entries]
            new = (np.where(sign > 0, point, -np.inf), np.where(sign < 0, point, np.inf))
        old = self._cuts[name]
        for j in np.flatnonzero((old[0] != new[0]) | (old[1] != new[1])).tolist():
            self._highs.changeColBounds(int(self.program.inputs[name][j]), float(new[0][j]), float(new[1][j]))
        self._cuts[name] = new

    def _reason(self) -> Empty | None:
        """Farkas' multipliers: rows whose combination no point within the cuts can meet."""
        _, known, ray = self._highs.getDualRay()
        if not known:
            return None
        ray = np.asarray(ray, dtype=float)
        matrix = self._highs.getLp().a_matrix_
        start, index, value = (np.asarray(part) for part in (matrix.start_, matrix.index_, matrix.value_))
        reduced = -np.add.reduceat(np.append(value * ray[index], 0.0), np.minimum(start[:-1], len(value)))
        reduced[np.diff(start) == 0] = 0.0
        found = self.program.duals(np.zeros(len(reduced)), ray, reduced, np.inf)
        return Empty(**vars(found))


@dataclass(frozen=True)
class Rows:
    """The rows ``lower <= output - slopes * input <= upper`` of an activation's free neurons, all (K, free)."""

    slopes: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def _rows(lower: Lines, upper: Lines, free: np.ndarray) -> Rows:
    """Rows of both sides' lines, the lower ones first."""
    lower, upper = lower.select(free), upper.select(free)
    above = np.concatenate([lower.intercepts, np.full_like(upper.intercepts, -np.inf)])
    below = np.concatenate([np.full_like(lower.intercepts, np.inf), upper.intercepts])
    return Rows(np.concatenate([lower.slopes, upper.slopes]), above, below)


def _decided(new: Rows, root: Rows) -> Rows:
    """The same where neurons that are one line now, and one of the root's, become an equation of the root's row.

    Then no coefficient changes, only limits, so the last basis stays dual feasible and few pivots are needed.
    """
    limit, old = _intercepts(new), _intercepts(root)
    single = (np.ptp(new.slopes, axis=0) == 0) & (np.ptp(limit, axis=0) == 0)
    match = single & (root.slopes == new.slopes) & (old == limit)
    known = match.any(0)
    chosen = match & (match.cumsum(0) == 1)
    slopes = np.where(known, root.slopes, new.slopes)
    lower = np.where(known, np.where(chosen, limit, -np.inf), new.lower)
    return Rows(slopes, lower, np.where(known, np.where(chosen, limit, np.inf), new.upper))


def _intercepts(rows: Rows) -> np.ndarray:
    return np.where(np.isfinite(rows.lower), rows.lower, rows.upper)


def _no_cuts(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full(count, -np.inf), np.full(count, np.inf)


def combination(objective: Objective, found: Duals) -> Objective:
    """The rows of an objective (1, S) as the one row that a solver's multipliers combine; zero for `Empty`.

    The minimum of a convex combination is not above that of the greatest of the rows. A zero row that is proved
    positive shows that there is no point at all.
    """
    share = np.where(np.isfinite(found.targets), np.maximum(found.targets, 0.0), 0.0)
    if isinstance(found, Empty):
        share = np.zeros_like(share)
    else:
        share = share / share.sum() if share.sum() > 0 else np.full(len(share), 1 / len(share))
    weight = torch.as_tensor(share).to(objective.C)
    C = (objective.C * weight.reshape(1, -1, *(1,) * (objective.C.dim() - 2))).sum(1, keepdim=True)
    offset = None if objective.offset is None else (objective.offset * weight).sum(1, keepdim=True)
    return Objective(objective.node, C, offset)


def split_point(relaxation: Relaxation, found: Duals) -> DualPoint:
    """The dual point (one row) that a solver proposes for a subproblem: weights, and multipliers of its splits."""
    multipliers = {}
    for name, split in relaxation.splits.items():
        if name in found.splits:
            price = torch.as_tensor(found.splits[name]).to(split.sign).reshape(1, 1, *split.sign.shape[1:])
            price = torch.where(price.isfinite(), price, torch.zeros_like(price))
            multipliers[name] = (price * split.sign.unsqueeze(1)).clamp(min=0)
    return DualPoint(dual_point(relaxation, [found]).weights, multipliers)
