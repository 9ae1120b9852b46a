"""Tighter boxes for single subproblems: what their splits, and the property itself, say of every pre-activation.

A subproblem matters only where it holds a counterexample. So besides its splits, those of later layers included, it may
be assumed that no row of its polytope is positive (INVPROP, Kotha et al. 2023, arXiv 2302.01404). Both enter the dual
function as constraints with multipliers, while the ends of a pre-activation are its objective. Where many splits have
decided the last layers, this decides the first ones, which no further split of a later layer does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import log2, prod
from time import monotonic

import torch
from torch import Tensor

from verifier.bounding.ascent import ascend
from verifier.bounding.cases import pick_rows
from verifier.bounding.dual import DualPoint, Objective, Relaxation, Split, lower_bound
from verifier.bounding.intermediate import unit_rows, wanted_rows
from verifier.bounding.interval import step
from verifier.bounding.ladder import cast_point
from verifier.graph.ir import Node
from verifier.operators.table import OPERATORS
from verifier.search.boxes import slack
from verifier.search.result import NarrowingOptions
from verifier.search.subproblem import EMPTY_BEYOND, Batch, Frame, Piece, View, in_precision, joined, parts_of, select
from verifier.specs.box import flat, magnitude
from verifier.specs.rounding import narrow

#: multipliers of the property with which an ascent may begin
BEGINNINGS = (0.1, 0.3, 1.0, 3.0)

#: share of an interval by which it has to shrink
LEAST_GAIN = 1e-2


@dataclass(frozen=True)
class Narrowing:
    """Bounds the pre-activations of subproblems.

    Args:
        frame, exact: of the search in working precision and in float64, over networks whose last node has the values
            of all rows.
    """

    frame: Frame
    exact: Frame
    options: NarrowingOptions

    @classmethod
    def of(cls, frame: Frame, exact: Frame, options: NarrowingOptions) -> Narrowing | None:
        """None where every property of the batch has rows of its own, or too many entries are open."""
        entries = sum(len(piece.index) for piece in frame.pieces)
        if len(frame.problem.rows.objective.C) > 1 or entries > options.entries:
            return None
        return cls(_with_rows(frame), _with_rows(exact), options)

    def due(self, batch: Batch) -> Tensor:
        """(N,) subproblems whose last narrowing lies so many splits back that another one pays."""
        entries = sum(len(piece.index) for piece in self.frame.pieces)
        levels = self.options.levels or max(1, round(log2(entries + 1)))
        return batch["depth"] - batch["narrowed"].clamp(min=0) >= levels

    def narrowed(self, batch: Batch, until: float | None) -> tuple[Batch, Tensor]:
        """The subproblems over tighter boxes, as far as there is time for it, and (N,) which hold no counterexample."""
        widest = max(prod(shape) for shape in self.frame.problem.graph.shapes.values())
        most = 2 * max(len(piece.index) for piece in self.frame.pieces)
        size = max(1, self.options.chunk_bytes // (widest * most * batch["bound"].element_size()))
        parts, empty = list(parts_of(batch, size)), torch.zeros_like(batch["depth"], dtype=torch.bool)
        for part, out in zip(parts, empty.split(size), strict=True):
            if until is not None and monotonic() >= until:
                break
            for piece in self.frame.pieces:
                left = (~out).nonzero()[:, 0]
                if len(left) == 0:
                    break
                some = select(part, left)
                out[left] = self._narrow(piece, some, until)
                for end in ("low", "high"):
                    part[end][left] = some[end]
            part["narrowed"] = part["depth"].clone()
        return joined(parts), empty

    def _narrow(self, piece: Piece, batch: Batch, until: float | None) -> Tensor:
        """Cut down the open entries of one pre-activation in place; (N,) which subproblems turn out empty."""
        box = self.frame.box(piece, batch)
        masks = [OPERATORS[node.op].splits(node, box) for node in piece.activations]  # type: ignore[misc]
        rows = wanted_rows(torch.stack(masks).any(0))
        if not rows.numel():
            return torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        low, high = flat(box.lower).clone(), flat(box.upper).clone()
        known = torch.cat([low.gather(1, rows), -high.gather(1, rows)], 1)
        below, above = self._ends(piece, batch, rows, known, until).chunk(2, dim=1)
        low.scatter_(1, rows, below)
        high.scatter_(1, rows, -above)
        size = flat(magnitude(self.frame.boxes[piece.source]))
        size = size if len(size) == 1 else size[batch["owner"]]
        empty = (low - high > EMPTY_BEYOND * size).any(1)
        batch["low"][:, piece.columns] = torch.minimum(low, high)[:, piece.index]
        batch["high"][:, piece.columns] = torch.maximum(low, high)[:, piece.index]
        return empty

    def _ends(self, piece: Piece, batch: Batch, rows: Tensor, known: Tensor, until: float | None) -> Tensor:
        """Bounds (N, 2R) of entries (N, R) and of their negatives, no less than those that are known: found in working
        precision, and proved in float64 where they gain."""
        view, relaxation, objective = self._posed(self.frame, piece, batch, rows)
        graph = self.frame.problem.graph
        start = self._start(view, relaxation, objective)
        found, dual = ascend(
            graph, view.region, relaxation, objective, self.options.ascent, deadline=until, start=start
        )
        chosen = wanted_rows(_gaining(found, known))
        if not chosen.numel():
            return known
        both = torch.cat([chosen, chosen + rows.shape[1]], 1)
        dual = cast_point(pick_rows(dual, both), torch.float64, relaxation.cuts)
        wide = in_precision(batch, torch.float64)
        view, relaxation, objective = self._posed(self.exact, piece, wide, rows.gather(1, chosen))
        graph = self.exact.problem.graph
        bound = lower_bound(graph, view.region, relaxation, objective, dual)
        bound = (bound - slack(graph, relaxation, objective, dual)).nan_to_num(-torch.inf, -torch.inf, -torch.inf)
        bound = narrow(bound, known.dtype, known.device, -torch.inf)
        return known.scatter(1, both, torch.maximum(bound, known.gather(1, both)))

    def _posed(self, frame: Frame, piece: Piece, batch: Batch, rows: Tensor) -> tuple[View, Relaxation, Objective]:
        """The subproblems under their splits and the property, with entries and their negatives as rows."""
        view, graph = frame.view(batch), frame.problem.graph
        owner, target = batch["owner"], batch["target"]
        sign = batch["bound"].new_zeros(len(owner), *graph.shapes[graph.output])
        sign.scatter_(1, frame.rows[owner, target], -1.0)  # a polytope with fewer rows repeats one
        splits = {**view.relaxation.splits, graph.output: Split(sign)}
        objective = unit_rows(graph, piece.source, rows, batch["bound"].dtype)
        return view, replace(view.relaxation, splits=splits), objective

    @torch.no_grad()
    def _start(self, view: View, relaxation: Relaxation, objective: Objective) -> DualPoint:
        """Of some multiples of the subproblem's own dual point the best for each row (N, S)."""
        graph, best = self.frame.problem.graph, None
        for factor in BEGINNINGS:
            point = self._multiple(view.dual, relaxation, factor, objective.C.shape[1])
            bound = lower_bound(graph, view.region, relaxation, objective, point)
            best = (bound, point) if best is None else _better(best, (bound, point))
        assert best is not None
        return best[1]

    def _multiple(self, dual: DualPoint, relaxation: Relaxation, factor: float, rows: int) -> DualPoint:
        """The subproblem's dual point for its first row, so many times, as the point of every row."""

        def each(value: Tensor) -> Tensor:
            return value[:, :1].expand(-1, rows, *value.shape[2:])

        output = self.frame.problem.graph.output
        sign = relaxation.splits[output].sign
        first = torch.zeros_like(sign).scatter_(1, sign.argmin(1, keepdim=True), factor).unsqueeze(1)
        weights = {n: tuple(None if w is None else each(w).clone() for w in pair) for n, pair in dual.weights.items()}
        multipliers = {name: factor * each(value) for name, value in dual.multipliers.items()}
        return DualPoint(weights, {**multipliers, output: each(first).clone()})  # type: ignore[arg-type]


def _gaining(found: Tensor, known: Tensor) -> Tensor:
    """(N, R) entries whose bounds (N, 2R) are worth a proof; where one has nothing between its ends, that alone."""
    gain, width = (found - known).clamp(min=0), -known.unflatten(1, (2, -1)).sum(1)
    worth = gain.unflatten(1, (2, -1)).sum(1) > LEAST_GAIN * width
    crossed = torch.maximum(found, known).unflatten(1, (2, -1)).sum(1)
    best = torch.zeros_like(worth).scatter(1, crossed.argmax(1, keepdim=True), True)
    return torch.where((crossed > 0).any(1, keepdim=True), best, worth)


def _better(one: tuple[Tensor, DualPoint], other: tuple[Tensor, DualPoint]) -> tuple[Tensor, DualPoint]:
    """Of two bounds (N, S) with their dual points the greater ones."""
    wins = other[0] > one[0]

    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(wins.reshape(*wins.shape, *(1,) * (a.dim() - 2)), b, a)

    def pair(name: str, side: int) -> Tensor | None:
        a, b = one[1].weights[name][side], other[1].weights[name][side]
        return None if a is None or b is None else pick(a, b)

    weights = {name: (pair(name, 0), pair(name, 1)) for name in one[1].weights}
    multipliers: Mapping[str, Tensor] = {n: pick(m, other[1].multipliers[n]) for n, m in one[1].multipliers.items()}
    return torch.where(wins, other[0], one[0]), DualPoint(weights, multipliers)


def _with_rows(frame: Frame) -> Frame:
    """A frame over its network with the values of all rows (S,) as the last node."""
    graph, rows = frame.problem.graph, frame.problem.rows.objective
    assert rows.offset is not None
    C, entries = rows.C[0].flatten(1), f"{graph.output}/entries"
    extra = (
        Node(entries, "reshape", (graph.output,), {"shape": (C.shape[1],)}),
        Node(f"{graph.output}/rows", "linear", (entries,), {}, {"weight": C, "bias": rows.offset[0]}),
    )
    boxes = dict(frame.boxes)
    for node in extra:
        boxes[node.name] = step(node, boxes, graph.input)
    shapes = {**graph.shapes, entries: (C.shape[1],), extra[1].name: (len(C),)}
    graph = replace(graph, nodes=(*graph.nodes, *extra), output=extra[1].name, shapes=shapes)
    return replace(frame, problem=replace(frame.problem, graph=graph), boxes=boxes)
