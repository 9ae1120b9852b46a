"""Subproblems of activation splitting: the network over the whole region, with some pre-activations confined.

Only entries that the root leaves open can be split, so a subproblem is stored as what it says of those: one row of
numbers for each field of a `Batch`. `Frame` turns a batch of rows into what the dual function takes.
Axes: N subproblems, S rows, K open entries of all pre-activations together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch
from torch import Tensor

from verifier.bounding.dual import DualPoint, LinearBound, Objective, Relaxation, Split, linear_bound
from verifier.bounding.ladder import Problem
from verifier.bounding.rounding import bound_with_scale, roundings
from verifier.graph.ir import Node
from verifier.operators.table import OPERATORS
from verifier.relaxations.cuts import Cuts
from verifier.search.boxes import sources
from verifier.specs.box import flat, flat_rows
from verifier.specs.region import Box, Region

#: ends of an interval that cross by more than this share of the root's largest value leave nothing between them; far
#: above the rounding errors of float64
EMPTY_BEYOND = 1e-6

#: depth of a narrowing that was not
NEVER = -(1 << 20)

#: a subproblem's fields: ends ``low`` and ``high`` of the open pre-activations, ``sign`` and ``point`` of their last
#: split (N, K); ``multiplier``, weights ``weight_low`` and ``weight_high`` of the lines (N, S, K); ``cut`` (N, S, M),
#: multipliers of all cuts; ``bound``, ``depth``, that at which it was ``narrowed`` last, property ``owner``, polytope
#: ``target`` (N,)
Batch = dict[str, Tensor]


def select(batch: Batch, index: Tensor) -> Batch:
    """The subproblems at int64 indices."""
    return {name: value[index] for name, value in batch.items()}


def parts_of(batch: Batch, size: int) -> Iterator[Batch]:
    """Batches of at most so many subproblems."""
    for numbers in torch.arange(len(batch["bound"]), device=batch["bound"].device).split(size):
        yield select(batch, numbers)


def joined(batches: Sequence[Batch]) -> Batch:
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def margins(batch: Batch, bounds: Tensor) -> Tensor:
    """What bounds (N,) of subproblems say of margins. Narrowed boxes assume that there is a counterexample, so a
    positive bound over them says that there is none, and no more."""
    return torch.where(batch["narrowed"] > NEVER, bounds.clamp(max=0), bounds)


def in_precision(batch: Batch, dtype: torch.dtype) -> Batch:
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in batch.items()}


@dataclass(frozen=True)
class Piece:
    """The open entries of one pre-activation.

    Args:
        source: node that is split.
        activations: nodes that apply an activation to it.
        index: (k,) flat indices of its open entries.
        columns: where these lie among the K.
    """

    source: str
    activations: tuple[Node, ...]
    index: Tensor
    columns: slice


@dataclass(frozen=True)
class View:
    """A batch of subproblems as arguments of the dual function.

    Args:
        scales: as of `Frame`, of each subproblem.
    """

    region: Region
    relaxation: Relaxation
    objective: Objective
    dual: DualPoint
    scales: Mapping[str, Tensor] = field(default_factory=dict)


def pieces(problem: Problem, boxes: Mapping[str, Box]) -> tuple[Piece, ...]:
    """The open entries of all pre-activations, those of any property of the batch."""
    found: list[Piece] = []
    start = 0
    for source in sources(problem.graph):
        users = tuple(n for n in problem.graph.nodes if n.inputs == (source,) and OPERATORS[n.op].splits is not None)
        masks = [OPERATORS[n.op].splits(n, boxes[source]) for n in users]  # type: ignore[misc]
        index = flat(torch.stack(masks).any(0)).any(0).nonzero()[:, 0]
        found.append(Piece(source, users, index, slice(start, start + len(index))))
        start += len(index)
    return tuple(found)


@dataclass(frozen=True)
class Frame:
    """What all subproblems of a problem share.

    Args:
        problem: regions (batch B) and rows.
        boxes: of all nodes at the root, (B, *X).
        pieces: see `Piece`.
        rows, valid: (B, P, S) which of the problem's rows are those of each polytope, and whether there is such a row.
        cuts: of activations; they hold in every subproblem.
        scales: (B, *X) what rounding errors of some nodes are measured by, in place of what lies behind them (see
            `bound_with_scale`).
    """

    problem: Problem
    boxes: Mapping[str, Box]
    pieces: tuple[Piece, ...]
    rows: Tensor
    valid: Tensor
    cuts: Mapping[str, Cuts] = field(default_factory=dict)
    scales: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, problem: Problem, boxes: Mapping[str, Box], cuts: Mapping[str, Cuts] = MappingProxyType({})) -> Frame:
        numbers = torch.arange(max(problem.rows.polytopes), device=problem.rows.owner.device)
        member = problem.rows.owner.unsqueeze(1) == numbers.reshape(1, -1, 1)
        count = torch.tensor(problem.rows.polytopes, device=numbers.device)
        if bool(((numbers < count.unsqueeze(1)) & ~member.any(2)).any()):  # it would have no subproblem to close
            raise ValueError("a polytope without rows holds every output")
        most = int(member.sum(2).max())
        chosen = member.int().argsort(dim=2, descending=True, stable=True)[:, :, :most]
        valid = member.gather(2, chosen)
        chosen = torch.where(valid, chosen, chosen[:, :, :1])  # a polytope with fewer rows repeats its first
        return cls(problem, boxes, pieces(problem, boxes), chosen, valid, cuts)

    def in_precision(self, problem: Problem, cuts: Mapping[str, Cuts] = MappingProxyType({})) -> Frame:
        """The same frame for the problem in another precision that holds the boxes of this one.

        Args:
            cuts: the frame's in that precision.
        """
        dtype = problem.rows.objective.C.dtype
        boxes = {name: Box(box.lower.to(dtype), box.upper.to(dtype)) for name, box in self.boxes.items()}
        nodes = {node.name: node for node in problem.graph.nodes}  # whose slopes are in that precision as well
        placed = tuple(replace(p, activations=tuple(nodes[n.name] for n in p.activations)) for p in self.pieces)
        return replace(self, problem=problem, boxes=boxes, pieces=placed, cuts=cuts)

    def roots(self, dual: DualPoint) -> Batch:
        """One subproblem for each (property, polytope), with the root's weights where it has some for every row."""
        owner, target = self.valid.any(2).nonzero().unbind(1)
        low, high = (self._gather({n: getattr(b, e) for n, b in self.boxes.items()})[owner] for e in ("lower", "upper"))
        count, like = len(owner), self.problem.rows.objective.C
        weights = [self._root_weights(dual, side)[owner, target] for side in (0, 1)]
        return {
            "low": low,
            "high": high,
            "sign": torch.zeros_like(low, dtype=torch.int8),
            "point": torch.zeros_like(low),
            "multiplier": torch.zeros_like(weights[0]),
            "cut": self._root_cuts(dual)[owner, target],
            "weight_low": weights[0],
            "weight_high": weights[1],
            "bound": like.new_full((count,), -torch.inf),
            "depth": torch.zeros(count, dtype=torch.int32, device=like.device),
            "narrowed": torch.full((count,), NEVER, dtype=torch.int32, device=like.device),
            "owner": owner,
            "target": target,
        }

    def _root_weights(self, dual: DualPoint, side: int) -> Tensor:
        """Line weights of one side for the rows of every polytope: (B, P, S, K)."""
        batch, P, S = self.rows.shape
        parts = []
        for piece in self.pieces:
            node = piece.activations[0]
            envelope = OPERATORS[node.op].envelope(node, self.boxes[piece.source])  # type: ignore[misc]
            default = (envelope.lower, envelope.upper)[side].default
            weight = dual.weights.get(node.name, (None, None))[side]
            if weight is None:
                weight = (torch.zeros_like(self.boxes[piece.source].lower) if default is None else default).unsqueeze(1)
            flat_weight = flat_rows(weight)[:, :, piece.index]
            flat_weight = flat_weight.expand(batch, self.problem.rows.owner.shape[1], -1)
            parts.append(flat_weight[torch.arange(batch).reshape(-1, 1, 1), self.rows])
        return torch.cat(parts, 3)

    def _root_cuts(self, dual: DualPoint) -> Tensor:
        """Multipliers of all cuts for the rows of every polytope: (B, P, S, M)."""
        batch, count = self.problem.rows.owner.shape
        each = torch.arange(batch, device=self.rows.device).reshape(-1, 1, 1)
        parts = [self.problem.rows.objective.C.new_zeros(batch, count, 0)]
        for name, cut in self.cuts.items():
            given = dual.cut_multipliers.get(name)
            parts.append((cut.zero(count) if given is None else given).flatten(2).expand(batch, count, -1))
        return torch.cat(parts, 2)[each, self.rows]

    def _cut_multipliers(self, batch: Batch) -> dict[str, Tensor]:
        """Multipliers of the cuts of each activation, (N, S, G, F)."""
        sizes = [cut.p.shape[-2:] for cut in self.cuts.values()]
        parts = batch["cut"].split([size.numel() for size in sizes], dim=2) if sizes else ()
        return {name: part.unflatten(2, size) for name, part, size in zip(self.cuts, parts, sizes, strict=True)}

    def view(self, batch: Batch) -> View:
        """The subproblems as arguments of the dual function."""
        owner = batch["owner"]
        rows, all_rows = self.rows[owner, batch["target"]], self.problem.rows.objective
        region = self.problem.region
        region = region if region.batch == 1 else region.select(owner)
        assert all_rows.offset is not None
        each = owner.unsqueeze(1)
        objective = Objective(all_rows.node, all_rows.C[each, rows], all_rows.offset[each, rows])
        envelopes, splits, weights, multipliers = {}, {}, {}, {}
        for piece in self.pieces:
            box, shape = self.box(piece, batch), self.problem.graph.shapes[piece.source]
            for node in piece.activations:
                envelope = OPERATORS[node.op].envelope(node, box)  # type: ignore[misc]
                envelopes[node.name] = envelope
                pair = (
                    None if family.default is None else self._spread(batch[key], piece, shape)
                    for family, key in ((envelope.lower, "weight_low"), (envelope.upper, "weight_high"))
                )
                weights[node.name] = tuple(pair)
            sign = batch["sign"][:, piece.columns]
            if bool(sign.any()):
                point = batch["point"][:, piece.columns]
                dense = self.spread_piece(sign.to(point.dtype), piece)
                at = self.spread_piece(point, piece) if bool(point.any()) else None
                splits[piece.source] = Split(dense, at)
                multipliers[piece.source] = self._spread(batch["multiplier"], piece, shape)
        boxes, cuts, scales = self.boxes, self.cuts, self.scales
        if self.problem.region.batch > 1:
            boxes = {name: box.select(owner) for name, box in boxes.items()}
            cuts = {name: cut.select(owner) for name, cut in cuts.items()}
            scales = {name: scale[owner] for name, scale in scales.items()}
        relaxation = Relaxation(boxes, envelopes, splits=splits, cuts=cuts)
        dual = DualPoint(weights, multipliers, self._cut_multipliers(batch))
        return View(region, relaxation, objective, dual, scales)

    def absorb(self, batch: Batch, dual: DualPoint) -> None:
        """Write a dual point back into the fields of its subproblems."""
        for name, place in self._cut_multipliers(batch).items():  # views of the field
            if name in dual.cut_multipliers:
                place.copy_(dual.cut_multipliers[name])
        for piece in self.pieces:
            for node in piece.activations:
                for key, weight in zip(("weight_low", "weight_high"), dual.weights.get(node.name, ()), strict=False):
                    if weight is not None:
                        batch[key][:, :, piece.columns] = flat_rows(weight)[:, :, piece.index]
            if piece.source in dual.multipliers:
                batch["multiplier"][:, :, piece.columns] = flat_rows(dual.multipliers[piece.source])[:, :, piece.index]

    def evaluate_within(self, batch: Batch, points: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Values of all nodes (N, *X) where every pre-activation is moved into its subproblem's interval on the way.

        Returns:
            The values, and for each pre-activation where it had to be moved, bool (N, *X).
        """
        boxes = {piece.source: self.box(piece, batch) for piece in self.pieces}
        values: dict[str, Tensor] = {}
        moved: dict[str, Tensor] = {}
        for node in self.problem.graph.nodes:
            inputs = [values[name] for name in node.inputs] or [points]
            value = points if node.op == "input" else OPERATORS[node.op].forward(node, *inputs)
            if node.name in boxes:  # of an activation's input, which can be the network's own
                inside = torch.minimum(torch.maximum(value, boxes[node.name].lower), boxes[node.name].upper)
                value, moved[node.name] = inside, inside != value
            values[node.name] = value
        return values, moved

    def bound(self, view: View, watch: dict[str, Tensor] | None = None) -> tuple[LinearBound, Tensor]:
        """Linear bounds at the view's own dual point, and their values (N, S)."""
        relaxation = view.relaxation
        graph = self.problem.graph
        note = None if watch is None else lambda node, A: watch.__setitem__(node.name, A)
        splits, cuts = relaxation.splits, relaxation.cuts
        linear = linear_bound(graph, relaxation.envelopes, view.objective, view.dual, splits, note, cuts)
        return linear, linear.constant + view.region.minimum(linear.A[graph.input])

    def certain(self, view: View) -> Tensor:
        """What the bounds at the view's own dual point come to beyond rounding errors, (N, S); in float64."""
        graph = self.problem.graph
        linear, scale = bound_with_scale(graph, view.relaxation, view.objective, view.dual, view.scales)
        return linear.constant + view.region.minimum(linear.A[graph.input]) - roundings(scale)

    def _gather(self, values: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([flat(values[piece.source])[:, piece.index] for piece in self.pieces], 1)

    def box(self, piece: Piece, batch: Batch) -> Box:
        """The boxes (N, *X) of a pre-activation in each subproblem."""
        root = self.boxes[piece.source]
        ends = []
        for end, key in (("lower", "low"), ("upper", "high")):
            value = flat(getattr(root, end))
            value = value.repeat(len(batch[key]), 1) if len(value) == 1 else value[batch["owner"]]
            value[:, piece.index] = batch[key][:, piece.columns]
            ends.append(value.reshape(-1, *root.lower.shape[1:]))
        return Box(*ends)

    def spread_piece(self, values: Tensor, piece: Piece) -> Tensor:
        """Numbers of a piece's entries (N, k) in their places, zero elsewhere: (N, *X)."""
        shape = self.problem.graph.shapes[piece.source]
        dense = values.new_zeros(len(values), torch.Size(shape).numel())
        dense[:, piece.index] = values
        return dense.reshape(-1, *shape)

    def _spread(self, values: Tensor, piece: Piece, shape: tuple[int, ...]) -> Tensor:
        """Numbers of open entries (N, ..., K) in their places, zero elsewhere: (N, ..., *X)."""
        dense = values.new_zeros(*values.shape[:-1], torch.Size(shape).numel())
        dense[..., piece.index] = values[..., piece.columns]
        return dense.reshape(*values.shape[:-1], *shape)
