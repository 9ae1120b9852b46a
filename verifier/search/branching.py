"""Where to split: candidates by what their relaxation costs, judged by the bounds that splitting them gives.

Scores as BaBSR (Bunel et al. 2020, arXiv 1909.06588); filtered smart branching (De Palma et al. 2021, arXiv 2104.06718).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from verifier.operators.table import OPERATORS
from verifier.relaxations.envelope import Line
from verifier.search.subproblem import Batch, Frame, Piece, View
from verifier.specs.box import flat


#: what a gain of only one child counts against a gain of both
ONE_SIDED = 0.1


def split_points(frame: Frame, batch: Batch) -> Tensor:
    """Where each open entry would be split, (N, K); NaN where it cannot be."""
    parts = [_points_of(piece, batch["low"][:, piece.columns], batch["high"][:, piece.columns]) for piece in frame.pieces]
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
    A = watch[node.name].flatten(2)[:, :, piece.index]
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


def halves(batch: Batch, column: Tensor, points: Tensor) -> Batch:
    """Both sides of each subproblem split at one column (N,): the 2N children, lower sides first."""
    count = len(column)
    children = {name: value.repeat(2, *(1,) * (value.dim() - 1)) for name, value in batch.items()}
    place = column.unsqueeze(1)
    at = points.gather(1, place)
    children["high"][:count].scatter_(1, place, at)
    children["low"][count:].scatter_(1, place, at)
    both = place.repeat(2, 1)
    sign = torch.ones_like(children["sign"][:, :1])
    sign[:count] = -1
    children["sign"].scatter_(1, both, sign)
    children["point"].scatter_(1, both, at.repeat(2, 1))
    multiplier = children["multiplier"]
    multiplier.scatter_(2, both.unsqueeze(1).expand(-1, multiplier.shape[1], 1), 0.0)
    children["depth"] = children["depth"] + 1
    return children


def choose(frame: Frame, batch: Batch, scored: tuple[Tensor, ...], points: Tensor, candidates: int) -> Tensor:
    """The column (N,) among the best few by each score whose two children have the best bounds without any ascent.

    Args:
        scored: scores (N, K); the first one decides between candidates that gain nothing at once.
    """
    closed = points.isnan()
    ranked = [s.masked_fill(closed, -torch.inf) for s in scored]
    share = min(candidates // len(ranked), points.shape[1])
    columns = torch.cat([s.topk(share, dim=1).indices for s in ranked], 1)
    gains = []
    for column in columns.unbind(1):
        _, rows = frame.bound(frame.view(halves(batch, column, points)))
        low, high = (rows.amax(1) - batch["bound"].repeat(2)).chunk(2)
        enough = -batch["bound"]  # more than closing a child gains nothing
        low, high = (torch.minimum(gain, enough).clamp(min=0) for gain in (low, high))
        gains.append(torch.minimum(low, high) + ONE_SIDED * torch.maximum(low, high))
    gain = torch.stack(gains, 1) + ONE_SIDED * ranked[0].gather(1, columns)
    return columns.gather(1, gain.argmax(1, keepdim=True))[:, 0]


def _height(line: Line, index: Tensor, x: Tensor) -> Tensor:
    """A line's value at open entries x (N, k): (N, S, k)."""
    slope = line[0].flatten(2)[:, :, index] * x.unsqueeze(1)
    return slope if line[1] is None else slope + line[1].flatten(2)[:, :, index]
