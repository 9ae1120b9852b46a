"""Where to split: candidates by what their relaxation costs, judged by the bounds that splitting them gives.

Scores as BaBSR (Bunel et al. 2020, arXiv 1909.06588); filtered smart branching (De Palma et al. 2021, arXiv
2104.06718).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.operators.table import OPERATORS
from verifier.relaxations.envelope import Line
from verifier.search.subproblem import Batch, Frame, Piece, View
from verifier.specs.box import flat, flat_rows

#: what a gain of only one child counts against a gain of both
ONE_SIDED = 0.1


def split_points(frame: Frame, batch: Batch) -> Tensor:
    """Where each open entry would be split, (N, K); NaN where it cannot be."""
    parts = [
        _points_of(piece, batch["low"][:, piece.columns], batch["high"][:, piece.columns]) for piece in frame.pieces
    ]
    return torch.cat(parts, 1)


def _points_of(piece: Piece, low: Tensor, high: Tensor) -> Tensor:
    node = piece.activations[0]
    middle = (low + high) / 2
    if node.op == "relu":
        point = torch.zeros_like(low)
    elif node.op == "clip":
        kinks = [torch.full_like(low, node.attributes[key]) for key in ("low", "high")]
        inside = [(low < kink) & (kink < high) for kink in kinks]
        point = torch.where(inside[0] & ~(inside[1] & (kinks[1] - middle < middle - kinks[0])), *kinks)
    else:
        point = middle
    return torch.where((low < point) & (point < high), point, torch.nan)


def scores(frame: Frame, view: View, watch: dict[str, Tensor], batch: Batch, values: Mapping[str, Tensor]) -> Tensor:
    """What each open entry's relaxation costs the bound at a point of the region, (N, K).

    Coefficient times distance of the line in use from the activation there: over all activations these add up to the
    difference between the objective at the point and the linear bound.

    Args:
        watch: coefficients on the outputs of activations, (N, S, *X).
        values: of the pre-activations at the point, (N, *X).
    """
    return torch.cat([_cost(frame, view, piece, watch, values) for piece in frame.pieces], 1)


def _cost(frame: Frame, view: View, piece: Piece, watch: dict[str, Tensor], values: Mapping[str, Tensor]) -> Tensor:
    node = piece.activations[0]
    A = flat_rows(watch[node.name])[:, :, piece.index]
    envelope, weights = view.relaxation.envelopes[node.name], view.dual.weights[node.name]
    lower, upper = envelope.lower.line(weights[0]), envelope.upper.line(weights[1])
    dense = values[piece.source]
    x = flat(dense)[:, piece.index]
    value = flat(OPERATORS[node.op].forward(node, dense))[:, piece.index].unsqueeze(1)
    above, below = _height(upper, piece.index, x) - value, value - _height(lower, piece.index, x)
    return (A.clamp(max=0).neg() * above + A.clamp(min=0) * below).amax(1)


def at_kinks(frame: Frame, points: Tensor) -> dict[str, Tensor]:
    """The split points as values of the pre-activations, (N, *X)."""
    return {p.source: frame.spread_piece(points[:, p.columns].nan_to_num(), p) for p in frame.pieces}


@dataclass(frozen=True)
class Splits:
    """What splitting any open entry would mean: all (N, K) or (N, S, K).

    Args:
        points: where to split; NaN where it cannot be.
        below, above: multipliers with which the lower and the upper half begin.
    """

    points: Tensor
    below: Tensor
    above: Tensor

    def select(self, index: Tensor) -> Splits:
        return Splits(self.points[index], self.below[index], self.above[index])


def splits(frame: Frame, view: View, watch: dict[str, Tensor], batch: Batch) -> Splits:
    """Split points, and multipliers that keep the parent's bound.

    Where a ReLU's coefficient A is positive, the parent uses ``A * slope * x``. A half knows the exact slope; with the
    multiplier ``A * (difference of the slopes)`` of its constraint it has the parent's coefficient back, at no cost.
    """
    below, above = [], []
    for piece in frame.pieces:
        node = piece.activations[0]
        A = flat_rows(watch[node.name])[:, :, piece.index].clamp(min=0)
        if node.op == "relu":
            line = view.relaxation.envelopes[node.name].lower.line(view.dual.weights[node.name][0])[0]
            slope = flat_rows(line)[:, :, piece.index]
            leak = node.constants["slope"].expand(frame.problem.graph.shapes[node.name]).reshape(-1)[piece.index]
            below.append(A * (slope - leak).clamp(min=0))
            above.append(A * (1 - slope).clamp(min=0))
        else:
            below.append(torch.zeros_like(A))
            above.append(torch.zeros_like(A))
    return Splits(split_points(frame, batch), torch.cat(below, 2), torch.cat(above, 2))


def halves(batch: Batch, column: Tensor, at: Splits) -> Batch:
    """Both sides of each subproblem split at one column (N,): the 2N children, lower sides first."""
    count, place = len(column), column.unsqueeze(1)
    children = {name: value.repeat(2, *(1,) * (value.dim() - 1)) for name, value in batch.items()}
    point = at.points.gather(1, place)
    children["high"][:count].scatter_(1, place, point)
    children["low"][count:].scatter_(1, place, point)
    both = place.repeat(2, 1)
    sign = torch.ones_like(children["sign"][:, :1])
    sign[:count] = -1
    children["sign"].scatter_(1, both, sign)
    children["point"].scatter_(1, both, point.repeat(2, 1))
    rows = place.unsqueeze(1).expand(-1, batch["multiplier"].shape[1], 1)
    begin = torch.cat([at.below.gather(2, rows), at.above.gather(2, rows)])
    children["multiplier"].scatter_(2, rows.repeat(2, 1, 1), begin)
    children["depth"] = children["depth"] + 1
    return children


def choose(frame: Frame, batch: Batch, scored: tuple[Tensor, ...], at: Splits, candidates: int) -> Tensor:
    """The column (N,) among the best few by each score whose two children have the best bounds without any ascent.

    Args:
        scored: scores (N, K); the first one decides between candidates that gain nothing at once.
    """
    closed = at.points.isnan()
    ranked = [s.masked_fill(closed, -torch.inf) for s in scored]
    share = min(candidates // len(ranked), closed.shape[1])
    columns = torch.cat([s.topk(share, dim=1).indices for s in ranked], 1)
    gains = []
    for column in columns.unbind(1):
        _, rows = frame.bound(frame.view(halves(batch, column, at)))
        low, high = (rows.amax(1) - batch["bound"].repeat(2)).chunk(2)
        enough = -batch["bound"]  # more than closing a child gains nothing
        low, high = (torch.minimum(gain, enough).clamp(min=0) for gain in (low, high))
        gains.append(torch.minimum(low, high) + ONE_SIDED * torch.maximum(low, high))
    gain = torch.stack(gains, 1) + ONE_SIDED * ranked[0].gather(1, columns)
    gain = gain.masked_fill(
        closed.gather(1, columns), -torch.inf
    )  # where fewer are open than candidates were asked for
    return columns.gather(1, gain.argmax(1, keepdim=True))[:, 0]


def _height(line: Line, index: Tensor, x: Tensor) -> Tensor:
    """A line's value at open entries x (N, k): (N, S, k)."""
    slope = flat_rows(line[0])[:, :, index] * x.unsqueeze(1)
    return slope if line[1] is None else slope + flat_rows(line[1])[:, :, index]
