"""Tighter boxes at the root of a search: a small branch and bound for both ends of every open pre-activation.

All subproblems of the search inherit these boxes, so what is found once counts everywhere. Layer by layer, each end is
a row of an objective over the network below it, and its subproblems are split like those of the property. A tree has
the bound of its worst leaf, so the worse half of its leaves is split in every round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic

import torch
from torch import Tensor

from verifier.bounding.ascent import ascend, below
from verifier.bounding.dual import DualPoint, Objective
from verifier.bounding.growth import least_of, worse_half
from verifier.bounding.intermediate import unit_rows
from verifier.bounding.ladder import Problem
from verifier.bounding.rows import Rows
from verifier.operators.table import OPERATORS
from verifier.search.boxes import in_working
from verifier.search.branching import at_kinks, halves, scores, split_points, splits
from verifier.search.result import RootOptions
from verifier.search.subproblem import Batch, Frame, Piece, in_precision, joined, parts_of, pieces, select
from verifier.specs.box import flat, overlap
from verifier.specs.region import Box
from verifier.workers import Workers

#: numbers that a subproblem keeps of every open entry: ends, point, multiplier, two weights, and the sign
NUMBERS = 7
#: share of a layer's time that is kept for the proof in float64
PROOF_SHARE = 0.3


def refine(
    problem: Problem,
    exact: Problem,
    boxes: Mapping[str, Box],
    size: int,
    options: RootOptions,
    until: float,
    memory: int = 1 << 30,
) -> dict[str, Box]:
    """Boxes that lie in the given ones.

    Args:
        problem, exact: the same in working precision and in float64.
        boxes: of all nodes, in float64.
        size: subproblems that a batch takes.
        until: `time.monotonic` value at which to stop.
        memory: bytes that the subproblems of one layer may take.
    """
    boxes, layers = dict(boxes), pieces(exact, boxes)
    for number, piece in enumerate(layers):
        now = monotonic()
        end = now + (until - now) / (len(layers) - number)
        trees = Trees.of(problem, exact, boxes, piece)
        if trees is not None and now < until:
            boxes[piece.source] = overlap(boxes[piece.source], trees.grow(size, options, end, memory))
    return boxes


@dataclass(frozen=True)
class Trees:
    """A tree of subproblems for both ends of the open entries of one pre-activation.

    Args:
        piece: what is bounded; its R entries are rows, and after them their negatives.
        box: of the pre-activation, in float64.
        frame, exact: the network below it in both precisions, with its 2R rows.
        goal: a bound beyond which nothing is gained.
    """

    piece: Piece
    box: Box
    frame: Frame
    exact: Frame
    goal: float

    @classmethod
    def of(cls, problem: Problem, exact: Problem, boxes: Mapping[str, Box], piece: Piece) -> Trees | None:
        """None where nothing is open, or nothing below can be split."""
        dtype, device = problem.rows.objective.C.dtype, problem.rows.objective.C.device
        near = in_working(boxes, dtype, device)
        box = boxes[piece.source]
        if not len(piece.index) or box.batch != problem.region.batch:
            return None
        frame = Frame.of(_below(problem, piece, box.batch), near)
        if not frame.pieces:
            return None
        exact_frame = frame.in_precision(_below(exact, piece, box.batch))
        relus = all(node.op == "relu" for node in piece.activations)
        return cls(piece, box, frame, exact_frame, 0.0 if relus else torch.inf)

    def grow(self, size: int, options: RootOptions, until: float, memory: int) -> Box:
        """Split the worst leaves again and again, and bound them; what they prove."""
        index = self.piece.index
        entries = sum(len(piece.index) for piece in self.frame.pieces)
        row = NUMBERS * entries * self.frame.problem.rows.objective.C.element_size()  # bytes of a subproblem
        if 2 * self.box.batch * len(index) * row > memory:
            return self.box
        late = monotonic() + (1 - PROOF_SHARE) * (until - monotonic())
        leaves = self._bounded(self.frame.roots(DualPoint()), size, options, late)
        for _ in range(options.rounds):
            worst = self._worst(leaves)
            full = (len(leaves["bound"]) + int(worst.sum())) * row > memory
            if full or monotonic() >= late or not bool(worst.any()):
                break

            def grown(part: Batch) -> Batch:
                return part if monotonic() >= late else self._bounded(_split(self.frame, part), size, options, until)

            parts = list(parts_of(select(leaves, worst.nonzero()[:, 0]), size))
            rest = select(leaves, (~worst).nonzero()[:, 0])
            leaves = joined([rest, *self._workers.map(grown, parts)])
        return self._proved(leaves, size, until)

    @property
    def _workers(self) -> Workers:
        return Workers.on(self.box.lower.device)

    def _bounded(self, batch: Batch, size: int, options: RootOptions, until: float) -> Batch:
        """Climb on each; those for which there is no time keep the bound that they have."""
        graph = self.frame.problem.graph

        def climbed(part: Batch) -> Batch:
            if monotonic() < until:
                view = self.frame.view(part)
                rows, dual = ascend(
                    graph, view.region, view.relaxation, view.objective, options.ascent, start=view.dual
                )
                self.frame.absorb(part, dual)
                part["bound"] = torch.maximum(part["bound"], rows.amax(1))
            return part

        return joined(self._workers.map(climbed, list(parts_of(batch, size))))

    def _worst(self, leaves: Batch) -> Tensor:
        """(N,) the worse half of the leaves of every tree that is worth its time."""
        tree, bound = self._tree(leaves), leaves["bound"]
        open_ = self._open(self._cut(self._least(bound, tree).double())).repeat(1, 2).reshape(-1)
        worth = open_[tree] & (bound < self.goal) & ~split_points(self.frame, leaves).isnan().all(1)
        chosen = torch.zeros_like(worth)
        chosen[worse_half(bound, tree, worth)] = True
        return chosen

    @torch.no_grad()
    def _proved(self, leaves: Batch, size: int, until: float) -> Box:
        """The box that the leaves' dual points prove in float64, beyond its rounding errors; the old one where the
        time does not suffice for that."""
        bounds = []
        for part in parts_of(leaves, size):
            if monotonic() >= until:
                return self.box
            bounds.append(self.exact.certain(self.exact.view(in_precision(part, torch.float64)))[:, 0])
        least = torch.cat(bounds).nan_to_num(-torch.inf, torch.inf, -torch.inf)
        return self._cut(self._least(least, self._tree(leaves)))

    def _cut(self, least: Tensor) -> Box:
        """The box cut down by bounds (B, 2R) of the rows.

        A tree whose leaves are all empty would prove that there is no input at all; no end goes past the other for it.
        """
        index, (low, high) = self.piece.index, least.chunk(2, dim=1)
        lower, upper = flat(self.box.lower).clone(), flat(self.box.upper).clone()
        lower[:, index] = torch.minimum(torch.maximum(lower[:, index], low), upper[:, index])
        upper[:, index] = torch.maximum(torch.minimum(upper[:, index], -high), lower[:, index])
        shape = self.box.lower.shape
        return Box(lower.reshape(shape), upper.reshape(shape))

    def _open(self, box: Box) -> Tensor:
        """(B, R) entries whose activation is not one line over a box of the pre-activation."""
        masks = [OPERATORS[node.op].splits(node, box) for node in self.piece.activations]  # type: ignore[misc]
        return flat(torch.stack(masks).any(0))[:, self.piece.index]

    def _tree(self, leaves: Batch) -> Tensor:
        return leaves["owner"] * 2 * len(self.piece.index) + leaves["target"]

    def _least(self, bounds: Tensor, tree: Tensor) -> Tensor:
        """The least bound (B, 2R) of the leaves of every tree."""
        return least_of(bounds, tree, self.box.batch * 2 * len(self.piece.index)).reshape(self.box.batch, -1)


def _below(problem: Problem, piece: Piece, batch: int) -> Problem:
    """The network below a pre-activation, with its open entries and their negatives as polytopes of one row each."""
    graph, rows = problem.graph, piece.index.expand(batch, -1)
    objective = unit_rows(graph, piece.source, rows, problem.rows.objective.C.dtype)
    offset = objective.C.new_zeros(objective.C.shape[:2]) if objective.offset is None else objective.offset
    count = objective.C.shape[1]
    owner = torch.arange(count, device=offset.device).expand(batch, -1)
    objective = Objective(objective.node, objective.C, offset)
    return Problem(below(graph, objective.node), problem.region, Rows(objective, owner, (count,) * batch))


@torch.no_grad()
def _split(frame: Frame, parents: Batch) -> Batch:
    """Both halves of each subproblem, at the entry whose relaxation costs the bound most."""
    view, watch = frame.view(parents), {}
    frame.bound(view, watch)
    at = splits(frame, view, watch, parents)
    cost = scores(frame, view, watch, parents, at_kinks(frame, at.points))
    return halves(parents, cost.masked_fill(at.points.isnan(), -torch.inf).argmax(1), at)
