"""Tighter boxes of late pre-activations inside a search.

Subproblems inherit the boxes of the root. What their splits say of early layers narrows the late ones, which are few
and dense. And of a subproblem only those inputs matter whose outputs lie in the unsafe polytope: its rows are assumed
not to be positive (INVPROP: Kotha et al. 2023, arXiv 2302.01404). A box that becomes empty proves that there are none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verifier.bounding.ascent import AscentOptions, ancestors, ascend
from verifier.bounding.dual import DualPoint, Objective, lower_bound
from verifier.bounding.intermediate import Steps, rows_per_chunk, unit_rows, wanted_rows
from verifier.operators import evaluate
from verifier.operators.table import OPERATORS
from verifier.search.root import known_point
from verifier.search.subproblem import EMPTY_BEYOND, Batch, Frame, Piece, View, in_precision, select
from verifier.specs.box import flat
from verifier.specs.rounding import narrow

#: multipliers of the assumed rows that are tried first, as shares of an entry's width; by the distance of the rows
#: from their bound
SHARES = (0.0, 0.05, 0.15, 0.45)

#: weights of one side of an activation's lines for the entries of a piece and their negatives, (B, 2k, *X)
Side = Tensor | None


@dataclass(frozen=True)
class Late:
    """The open entries of one late pre-activation, with good line weights for each of them.

    Args:
        frame, exact: what the subproblems share, in both precisions.
        piece: the entries, k of them.
        weights: for each activation below, of its lower and its upper lines.
        centre: (B, P) values of every polytope's first row in the middle of the region.
    """

    frame: Frame
    exact: Frame
    piece: Piece
    weights: Mapping[str, tuple[Side, Side]]
    centre: Tensor

    @classmethod
    def of(cls, frame: Frame, exact: Frame, steps: Mapping[str, Steps]) -> Late | None:
        """For the last pre-activation; None where nothing of it is open, or it is the first.

        Args:
            steps: how the boxes of the root were found, whose dual points are taken where they are dense.
        """
        piece = frame.pieces[-1]
        graph, dtype = frame.problem.graph, frame.problem.rows.objective.C.dtype
        objective = unit_rows(graph, piece.source, piece.index.unsqueeze(0), dtype)
        below = ancestors(graph, objective.node)
        earlier = [p for p in frame.pieces[:-1] if any(node.name in below for node in p.activations)]
        weights = known_point(replace(frame, pieces=tuple(earlier)), piece, steps.get(piece.source, ())).weights
        if not len(piece.index) or not weights:
            return None
        box = frame.problem.region.enclosing_box()
        y = evaluate(graph, (box.lower + box.upper) / 2).flatten(1)
        rows = frame.problem.rows.objective
        values = torch.matmul(rows.C.flatten(2), y.unsqueeze(2)).squeeze(2)
        values = values if rows.offset is None else values + rows.offset
        return cls(frame, exact, piece, weights, values.gather(1, frame.rows[:, :, 0]))

    def tighten(self, batch: Batch, options: AscentOptions, chunk_bytes: int) -> Tensor:
        """Narrow the entries of subproblems, in place.

        Returns:
            (N,) which of them hold no point whose output lies in their polytope, as the dual function says in float64.
        """
        columns, graph = self.piece.columns, self.frame.problem.graph
        dtype, device = batch["bound"].dtype, batch["bound"].device
        wide = in_precision(select(batch, torch.arange(len(batch["bound"]), device=device)), torch.float64)
        empty = torch.zeros(len(batch["bound"]), dtype=torch.bool, device=device)
        box = self.frame.boxes[self.piece.source].select(torch.zeros(1, dtype=torch.int64, device=device))
        entries = rows_per_chunk(graph, graph.output, box, chunk_bytes)
        for part in torch.arange(len(empty), device=device).split(max(1, entries // len(self.piece.index))):
            some = select(batch, part)
            view = self._assuming(self.frame.view(some), some)
            at = self._entries(some)
            dual = self._climbed(view, some, at, options)
            exact = self._assuming(self.exact.view(select(wide, part)), some)
            objective = self._rows(self.exact, at, torch.float64)
            bound = lower_bound(self.exact.problem.graph, exact.region, exact.relaxation, objective, _in_float64(dual))
            below, above = bound.nan_to_num(-torch.inf, -torch.inf, -torch.inf).chunk(2, dim=1)
            low, high = wide["low"][part, columns], wide["high"][part, columns]
            low = low.scatter(1, at, torch.maximum(low.gather(1, at), below))
            high = high.scatter(1, at, torch.minimum(high.gather(1, at), -above))
            root = self.frame.boxes[self.piece.source]
            size = flat(torch.maximum(root.lower.abs(), root.upper.abs()))[:, self.piece.index]
            size = size if len(size) == 1 else size[some["owner"]]
            empty[part] = (low - high > EMPTY_BEYOND * size).any(1)
            batch["low"][part, columns] = narrow(torch.minimum(low, high), dtype, device, -torch.inf)
            batch["high"][part, columns] = narrow(torch.maximum(low, high), dtype, device, torch.inf)
        return empty

    def _entries(self, batch: Batch) -> Tensor:
        """Which of the piece's entries are open in some subproblem, (N, R)."""
        boxes = self.frame.box(self.piece, batch)
        masks = [OPERATORS[node.op].splits(node, boxes) for node in self.piece.activations]  # type: ignore[misc]
        return wanted_rows(flat(torch.stack(masks).any(0))[:, self.piece.index])

    def _rows(self, frame: Frame, at: Tensor, dtype: torch.dtype) -> Objective:
        objective = unit_rows(frame.problem.graph, self.piece.source, self.piece.index[at], dtype)
        return objective

    def _assuming(self, view: View, batch: Batch) -> View:
        """The subproblems with the rows of their polytopes as an assumption, in units of the entries' mean width."""
        rows = view.objective
        assert rows.offset is not None
        width = (batch["high"] - batch["low"])[:, self.piece.columns].mean(1)
        far = self.centre[batch["owner"], batch["target"]] - batch["bound"]
        unit = (width / far.clamp(min=torch.finfo(far.dtype).eps)).to(rows.C.dtype).nan_to_num(1.0, 1.0, 1.0)
        C = rows.C * unit.reshape(-1, *(1,) * (rows.C.dim() - 1))
        assumed = Objective(rows.node, C, rows.offset * unit.unsqueeze(1))
        return replace(view, relaxation=replace(view.relaxation, assumed=assumed))

    def _climbed(self, view: View, batch: Batch, at: Tensor, options: AscentOptions) -> DualPoint:
        """A good dual point for the entries and their negatives, (N, 2R, *X)."""
        graph, objective = self.frame.problem.graph, self._rows(self.frame, at, batch["bound"].dtype)
        width = (batch["high"] - batch["low"])[:, self.piece.columns]
        share = (width / width.mean(1, keepdim=True)).gather(1, at).repeat(1, 2)
        best, chosen = None, torch.zeros_like(share)
        weights = self._weights(view, batch, at)
        for shares in SHARES:
            dual = self._point(view, weights, share * shares)
            with torch.no_grad():
                bound = lower_bound(graph, view.region, view.relaxation, objective, dual)
            better = torch.ones_like(bound, dtype=torch.bool) if best is None else bound > best
            best = bound if best is None else torch.maximum(best, bound)
            chosen = torch.where(better, share * shares, chosen)
        start = self._point(view, weights, chosen)
        return ascend(graph, view.region, view.relaxation, objective, options, start=start)[1]

    def _weights(self, view: View, batch: Batch, at: Tensor) -> dict[str, tuple[Side, Side]]:
        """Line weights (N, 2R, *X): below the entries their own, above them those of the subproblem."""
        count, owner = 2 * at.shape[1], batch["owner"].unsqueeze(1)
        columns = torch.cat([at, at + len(self.piece.index)], 1)
        weights: dict[str, tuple[Side, Side]] = {}
        for name, pair in view.dual.weights.items():
            if name in self.weights:
                own = tuple(None if w is None else w[owner, columns] for w in self.weights[name])
            else:
                own = tuple(None if w is None else w[:, :1].repeat(1, count, *(1,) * (w.dim() - 2)) for w in pair)
            weights[name] = own  # type: ignore[assignment]
        return weights

    def _point(self, view: View, weights: dict[str, tuple[Side, Side]], shares: Tensor) -> DualPoint:
        """Multipliers (N, 2R) of the assumed rows, and with them those of the splits that go with these rows."""
        assumed, rows = view.relaxation.assumed, view.objective
        assert assumed is not None
        unit = assumed.C.flatten(1).abs().amax(1) / rows.C.flatten(1).abs().amax(1)
        multipliers = {
            name: value[:, :1] * (shares * unit.unsqueeze(1)).reshape(*shares.shape, *(1,) * (value.dim() - 2))
            for name, value in view.dual.multipliers.items()
        }
        on_rows = torch.zeros(*shares.shape, rows.C.shape[1], dtype=shares.dtype, device=shares.device)
        on_rows[:, :, 0] = shares
        return DualPoint(weights, multipliers, assumed=on_rows)


def _in_float64(dual: DualPoint) -> DualPoint:
    weights = {n: tuple(None if w is None else w.double() for w in pair) for n, pair in dual.weights.items()}
    multipliers = {n: m.double() for n, m in dual.multipliers.items()}
    return DualPoint(weights, multipliers, assumed=None if dual.assumed is None else dual.assumed.double())  # type: ignore[arg-type]
