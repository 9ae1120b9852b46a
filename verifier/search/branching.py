"""Where to split: candidates by what their relaxation costs, judged by the bounds that splitting them gives.

Scores as BaBSR (Bunel et al. 2020, arXiv 1909.06588); filtered smart branching (De Palma et al. 2021, arXiv 2104.06718).
"""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.graph.ir import Node
from verifier.operators.table import OPERATORS
from verifier.relaxations.envelope import Line
from verifier.search.subproblem import Batch, Frame, Piece, View
from verifier.specs.box import flat


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


def scores(frame: Frame, view: View, watch: dict[str, Tensor], batch: Batch, points: Tensor) -> Tensor:
    """What each open entry's relaxation costs the bound, (N, K); -inf where it cannot be split."""
    parts = []
    for piece in frame.pieces:
        node = piece.activations[0]
        coefficients = watch[node.name].flatten(2)[:, :, piece.index]
        parts.append(_cost(node, frame, view, piece, coefficients, batch, points[:, piece.columns]))
    return torch.cat(parts, 1).masked_fill(points.isnan(), -torch.inf)


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


def choose(frame: Frame, batch: Batch, score: Tensor, points: Tensor, candidates: int) -> Tensor:
    """The column (N,) among the best few by score whose two children have the best bounds without any ascent."""
    best = score.topk(min(candidates, score.shape[1]), dim=1)
    if best.indices.shape[1] == 1:
        return best.indices[:, 0]
    gains = []
    for column in best.indices.unbind(1):
        children = halves(batch, column, points)
        _, rows = frame.bound(frame.view(children))
        low, high = (rows.amax(1) - batch["bound"].repeat(2)).chunk(2)
        enough = -batch["bound"]  # more than closing a child gains nothing
        low, high = (torch.minimum(gain, enough).clamp(min=0) for gain in (low, high))
        gains.append(torch.minimum(low, high) + 0.1 * torch.maximum(low, high))
    gain = torch.stack(gains, 1).masked_fill(best.values.isinf(), -torch.inf)
    return best.indices.gather(1, gain.argmax(1, keepdim=True))[:, 0]


def _cost(node: Node, frame: Frame, view: View, piece: Piece, A: Tensor, batch: Batch, point: Tensor) -> Tensor:
    """|A| times the distance of the line in use from the activation, the largest of the rows.

    The distance at the split point; or at both ends, whichever is smaller, since no line is tight at both.
    """
    envelope, weights = view.relaxation.envelopes[node.name], view.dual.weights[node.name]
    lower, upper = envelope.lower.line(weights[0]), envelope.upper.line(weights[1])
    places = (point.nan_to_num(), batch["low"][:, piece.columns], batch["high"][:, piece.columns])
    gaps = []
    for x in places:
        dense = frame.spread_piece(x, piece)
        value = flat(OPERATORS[node.op].forward(node, dense))[:, piece.index].unsqueeze(1)
        above, below = _height(upper, piece.index, x) - value, value - _height(lower, piece.index, x)
        gaps.append(A.clamp(max=0).neg() * above + A.clamp(min=0) * below)
    return torch.maximum(gaps[0], torch.minimum(gaps[1], gaps[2])).amax(1)


def _height(line: Line, index: Tensor, x: Tensor) -> Tensor:
    """A line's value at open entries x (N, k): (N, S, k)."""
    slope = line[0].flatten(2)[:, :, index] * x.unsqueeze(1)
    return slope if line[1] is None else slope + line[1].flatten(2)[:, :, index]
