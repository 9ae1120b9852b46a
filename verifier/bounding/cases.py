"""Case distinctions: bounds of a node's entries by the signs of a few neurons before them.

A neuron on one side of its kink is linear, and the least bound of both sides is a bound. For its row a tree of cases is
the exact hull of all neurons that it splits, over everything that is known of the network, where cuts know pairs or
triples over their octahedra. Singh et al. 2019 (NeurIPS) and Mueller et al. 2022 (POPL) refine the first layers by
mixed-integer programs; here every leaf is a dual point. Splits enter as in beta-CROWN (Wang et al. 2021, arXiv
2103.06624), scores are BaBSR's (Bunel et al. 2020, arXiv 1909.06588).

Axes: B batch, S rows, N all rows (B * S), L leaves of all trees, n neurons of an activation, K of all activations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from time import monotonic

import torch
from torch import Tensor

from verifier.bounding.ascent import AscentOptions, ancestors, ascend
from verifier.bounding.dual import (
    CasePoint,
    DualPoint,
    Objective,
    Relaxation,
    Split,
    envelopes_over,
    linear_bound,
    lower_bound,
)
from verifier.bounding.growth import Growth, Pays, least_of, worse_half
from verifier.bounding.rounding import rounding_scale
from verifier.graph.ir import Graph, Node
from verifier.operators.table import OPERATORS
from verifier.relaxations.envelope import Line
from verifier.specs.box import flat, flat_rows
from verifier.specs.region import Box, Region
from verifier.workers import Workers, chunks_of

#: memory that the coefficients of one chunk of leaves take in the widest layer
_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True)
class CaseOptions:
    """How trees grow.

    Args:
        rounds: in each one the worse half of every row's leaves is split; at most so many.
        passes: over all layers, each as `Worth` has it; one comes where the one before leaves the property open.
        ascent: of every new leaf, from its parent's dual point.
        chunk_bytes: memory that the coefficients of one chunk of leaves take.
        budget: numbers that the dual points of all leaves on the box of one node may be; a round that would need more
            is left out.
        leaves: of a tree on a row of the property: it grows while it promises to prove the row with so many; 0 for no
            such trees.
    """

    rounds: int = 40
    passes: tuple[float, ...] = (1e6, 6e6, 3e7)
    ascent: AscentOptions = field(
        default_factory=lambda: AscentOptions(iterations=4, step=0.2, decay=0.7, multiplier_step=0.07)
    )
    chunk_bytes: int = _CHUNK_BYTES
    budget: int = 1 << 25
    leaves: int = 2000


#: splits of trees round by round, as `CasePoint` has them
Rounds = tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True)
class _Leaves:
    """Leaves of trees: their rows (L,), counted through the batch; what each says of the K neurons, int8 (L, K): 1 or
    -1 for the side of the kink, 0 for either; bounds (L,); and dual points (L, 1, *X)."""

    owner: Tensor
    sign: Tensor
    bound: Tensor
    dual: DualPoint

    def select(self, index: Tensor) -> _Leaves:
        return _Leaves(self.owner[index], self.sign[index], self.bound[index], _each(self.dual, lambda t: t[index]))

    def grown(self, slots: Tensor, parts: list[_Leaves]) -> _Leaves:
        """The first halves of all parts in the places of the leaves that were split, the others after all leaves."""

        def put(old: Tensor, *new: Tensor) -> Tensor:
            first, second = zip(*(part.chunk(2) for part in new), strict=True)
            return torch.cat([old.index_copy(0, slots, torch.cat(first)), *second])

        owner, sign = put(self.owner, *(p.owner for p in parts)), put(self.sign, *(p.sign for p in parts))
        bound, dual = put(self.bound, *(p.bound for p in parts)), _zip(put, self.dual, *(p.dual for p in parts))
        return _Leaves(owner, sign, bound, dual)


def distinguish(
    graph: Graph,
    region: Region,
    relaxation: Relaxation,
    objective: Objective,
    known: tuple[Tensor, DualPoint],
    options: CaseOptions,
    deadline: float | None = None,
    pays: Pays | None = None,
) -> tuple[Tensor, CasePoint]:
    """Bounds (B, S) of an objective's rows by trees of cases, and the trees.

    Args:
        known: bounds (B, S) of the rows and dual points to begin with: the roots. A row above zero stays one, and so
            does one whose tree gains nothing.
        deadline: `time.monotonic` value after which no tree grows any further.
        pays: which trees grow on; None lets all of them grow.
    """
    bound, dual = known
    frame = _Frame.of(graph, region, relaxation, objective)
    roots, rounds = frame.roots(bound, dual), []
    leaves = roots
    size = max(1, options.chunk_bytes // (frame.width() * bound.element_size()))
    workers = Workers.on(bound.device)
    growth = Growth.of(roots.bound)
    for _ in range(options.rounds if frame.nodes else 0):
        growing = growth.bound <= 0
        growing = growing if pays is None else growing & pays(growth)
        chosen = worse_half(leaves.bound, leaves.owner, growing[leaves.owner] & (leaves.bound <= 0))
        late = deadline is not None and monotonic() > deadline
        if late or not len(chosen):
            break
        if numbers(leaves.dual) // len(leaves.bound) * (len(leaves.bound) + len(chosen)) > options.budget:
            break
        grow = partial(_split, frame, leaves, options.ascent, deadline)
        parts = [part for part in workers.map(grow, chunks_of(chosen, size, workers.count)) if part is not None]
        if not parts:
            break
        slots = torch.cat([slots for slots, _, _ in parts])
        rounds.append((slots, torch.cat([column for _, column, _ in parts])))
        leaves = leaves.grown(slots, [children for _, _, children in parts])
        growth = growth.after(leaves.bound, leaves.owner)
    gained = growth.bound > roots.bound
    least = torch.where(gained, growth.bound, roots.bound)
    return least.reshape(bound.shape), _grown_back(roots, leaves, tuple(rounds), gained)


def _grown_back(roots: _Leaves, leaves: _Leaves, rounds: Rounds, gained: Tensor) -> CasePoint:
    """The trees (N,) that gained something; of all others the roots alone.

    A tree can end below its root: its leaves have lines of their own and multipliers that begin at zero. The bound is
    then the root's, and the record has to give it.
    """
    count = len(roots.owner)
    stays = gained[leaves.owner]
    stays[:count] = True
    place = stays.cumsum(0) - 1  # leaves keep their order, in which they were made
    splits = []
    for slots, column in rounds:
        kept = gained[leaves.owner[slots]]
        if bool(kept.any()):
            splits.append((place[slots[kept]], column[kept]))

    def put(grown: Tensor, root: Tensor) -> Tensor:
        first = torch.where(gained.reshape(-1, *[1] * (root.dim() - 1)), grown[:count], root)
        return torch.cat([first, grown[count:][stays[count:]]])

    return CasePoint(tuple(splits), _zip(put, leaves.dual, roots.dual))


def _split(
    frame: _Frame, leaves: _Leaves, ascent: AscentOptions, deadline: float | None, slots: Tensor
) -> tuple[Tensor, Tensor, _Leaves] | None:
    """Of the leaves at indices (P,) those that can be split, their neurons, and both halves of each; None for none."""
    if deadline is not None and monotonic() > deadline:
        return None
    parents = leaves.select(slots)
    column, worth = frame.choose(parents)
    slots, column, parents = slots[worth], column[worth], parents.select(worth)
    return (slots, column, frame.climbed(frame.halves(parents, column), ascent)) if len(slots) else None


def can_be_split(node: Node) -> bool:
    """Whether cases are distinguished at the neurons of a node: activations with one kink, at zero."""
    kinks = OPERATORS[node.op].kinks if node.op in OPERATORS else None
    return kinks is not None and kinks(node) == (0.0,)


def numbers(dual: DualPoint) -> int:
    """How many numbers the weights and multipliers of a dual point are."""
    weights = sum(w.numel() for pair in dual.weights.values() for w in pair if w is not None)
    return weights + sum(m.numel() for m in dual.multipliers.values())


def pick_rows(dual: DualPoint, index: Tensor) -> DualPoint:
    """The dual point of some rows (B, R) of those that it has."""
    element = torch.arange(len(index), device=index.device).unsqueeze(1)
    return _each(dual, lambda t: t[element, index])


def case_bounds(graph: Graph, region: Region, relaxation: Relaxation, objective: Objective, trees: CasePoint) -> Tensor:
    """Bounds (B, S) of an objective's rows by trees that are known: the least of their leaves' bounds.

    That the leaves cover everything lies in the record: it says which leaf was split at which neuron, in order.
    """

    def bound(region: Region, now: Relaxation, rows: Objective, dual: DualPoint) -> Tensor:
        return lower_bound(graph, region, now, rows, dual)

    return _least(_Frame.of(graph, region, relaxation, objective), trees, bound)


def case_scale(graph: Graph, region: Region, relaxation: Relaxation, objective: Objective, trees: CasePoint) -> Tensor:
    """The greatest scale (B, S) of the rounding errors of the leaves' bounds (see `rounding_scale`)."""

    def minus_scale(_: Region, now: Relaxation, rows: Objective, dual: DualPoint) -> Tensor:
        return -rounding_scale(graph, now, rows, dual)

    return -_least(_Frame.of(graph, region, relaxation, objective), trees, minus_scale)


def _least(frame: _Frame, trees: CasePoint, value: Callable[..., Tensor]) -> Tensor:
    """The least value (B, S) of the leaves of each tree.

    Args:
        value: (L, 1) of leaves, of what `lower_bound` takes.
    """
    rows = frame.objective.C.new_zeros(frame.rows)
    leaves = frame.roots(rows, DualPoint())
    owner, sign = leaves.owner, leaves.sign
    for slots, column in trees.splits:
        below = sign[slots].scatter(1, column.unsqueeze(1), -1)
        sign = torch.cat([sign.index_put((slots, column), sign.new_ones(())), below])
        owner = torch.cat([owner, owner[slots]])
    leaves = _Leaves(owner, sign, rows.new_zeros(len(owner)), trees.point)

    def work(part: Tensor) -> Tensor:
        some = leaves.select(part)
        region, relaxation, objective = frame.view(some)
        return value(region, relaxation, objective, _within(some.dual, relaxation))[:, 0]

    workers = Workers.on(rows.device)
    size = max(1, _CHUNK_BYTES // (frame.width() * rows.element_size()))
    parts = chunks_of(torch.arange(len(owner), device=owner.device), size, workers.count)
    return least_of(torch.cat(workers.map(work, parts)), owner, rows.numel()).reshape(rows.shape)


@dataclass(frozen=True)
class _Frame:
    """What all leaves share.

    Args:
        rows: how many there are, (B, S).
        objective: all N rows as a batch of one row each.
        element: (N,) the batch element of each row.
        nodes: activations that can be split, and where the neurons of each begin among the K.
    """

    graph: Graph
    region: Region
    relaxation: Relaxation
    rows: tuple[int, int]
    objective: Objective
    element: Tensor
    nodes: tuple[tuple[Node, int], ...]

    @classmethod
    def of(cls, graph: Graph, region: Region, relaxation: Relaxation, objective: Objective) -> _Frame:
        batch, rows = region.enclosing_box().batch, objective.C.shape[1]
        C = objective.C.expand(batch, *objective.C.shape[1:]).flatten(0, 1).unsqueeze(1)
        offset = None if objective.offset is None else objective.offset.expand(batch, rows).reshape(-1, 1)
        below, nodes, start = ancestors(graph, objective.node), [], 0
        for node in graph.nodes:
            if node.name in below and can_be_split(node):
                nodes.append((node, start))
                start += prod(graph.shapes[node.name])
        element = torch.arange(batch, device=C.device).repeat_interleave(rows)
        flattened = Objective(objective.node, C, offset)
        return cls(graph, region, relaxation, (batch, rows), flattened, element, tuple(nodes))

    def width(self) -> int:
        """Numbers that a leaf takes in the widest layer."""
        return max(prod(self.graph.shapes[name]) for name in ancestors(self.graph, self.objective.node))

    def roots(self, bound: Tensor, dual: DualPoint) -> _Leaves:
        """One leaf for each row; weights that rows share, (B, 1, *X), become each one's own."""
        count = bound.numel()

        def each_row(weight: Tensor) -> Tensor:
            return weight.expand(*self.rows, *weight.shape[2:]).flatten(0, 1).unsqueeze(1)

        weights = _each(DualPoint(dual.weights), each_row).weights
        multipliers = {
            node.inputs[0]: bound.new_zeros(count, 1, *self.graph.shapes[node.inputs[0]]) for node, _ in self.nodes
        }
        size = sum(prod(self.graph.shapes[node.name]) for node, _ in self.nodes)
        sign = torch.zeros(count, size, dtype=torch.int8, device=bound.device)
        owner = torch.arange(count, device=bound.device)
        return _Leaves(owner, sign, bound.flatten(), DualPoint(weights, multipliers))

    def view(self, leaves: _Leaves) -> tuple[Region, Relaxation, Objective]:
        """The leaves' cases as a batch."""
        region, boxes, element = self.region, self.relaxation.boxes, self.element[leaves.owner]
        if region.enclosing_box().batch > 1:
            region = region.select(element)
            boxes = {name: box if box.batch == 1 else box.select(element) for name, box in boxes.items()}
        envelopes, splits = envelopes_over(self.graph, self.relaxation, boxes), {}
        for node, start in self.nodes:
            sign, source = self._sign(leaves, node, start), node.inputs[0]
            if bool(sign.any()):
                envelopes[node.name] = OPERATORS[node.op].envelope(node, _confined(boxes[source], sign))  # type: ignore[misc]
                splits[source] = Split(sign.to(boxes[source].lower))
        offset = None if self.objective.offset is None else self.objective.offset[leaves.owner]
        objective = Objective(self.objective.node, self.objective.C[leaves.owner], offset)
        return region, Relaxation(boxes, envelopes, splits=splits), objective

    def _sign(self, leaves: _Leaves, node: Node, start: int) -> Tensor:
        shape = self.graph.shapes[node.name]
        return leaves.sign[:, start : start + prod(shape)].reshape(-1, *shape)

    def climbed(self, leaves: _Leaves, options: AscentOptions) -> _Leaves:
        """The leaves after some steps of ascent."""
        region, relaxation, objective = self.view(leaves)
        start = _within(leaves.dual, relaxation)
        bound, dual = ascend(self.graph, region, relaxation, objective, options, start=start)
        multipliers = {**leaves.dual.multipliers, **dual.multipliers}
        return replace(leaves, bound=bound[:, 0], dual=replace(dual, multipliers=multipliers))

    @torch.no_grad()
    def choose(self, leaves: _Leaves) -> tuple[Tensor, Tensor]:
        """For each leaf the neuron (L,) whose line costs most, and the indices of the leaves that have one.

        BaBSR's score: the coefficient times what its line is off by at the kink, which a split takes away. Lines that
        the push did not reach, behind an activation without an envelope, cost nothing.
        """
        region, relaxation, objective = self.view(leaves)
        found: dict[str, Tensor] = {}

        def watch(node: Node, A: Tensor) -> None:
            found[node.name] = flat_rows(A)[:, 0]

        dual = _within(leaves.dual, relaxation)
        linear_bound(self.graph, relaxation.envelopes, objective, dual, relaxation.splits, watch)
        scores = []
        for node, start in self.nodes:
            sign, envelope = flat(self._sign(leaves, node, start)), relaxation.envelopes.get(node.name)
            A = None if envelope is None else found.get(node.name)
            if envelope is None or A is None:
                scores.append(self.objective.C.new_zeros(sign.shape))
                continue
            low, high = dual.weights.get(node.name, (None, None))
            below, above = _at_kink(envelope.lower.line(low)), _at_kink(envelope.upper.line(high))
            scores.append((A.clamp(min=0) * below + A.clamp(max=0).neg() * above) * (sign == 0))
        score, column = torch.cat(scores, 1).max(1)
        return column, (score > 0).nonzero()[:, 0]

    @torch.no_grad()
    def halves(self, leaves: _Leaves, column: Tensor) -> _Leaves:
        """Both cases of each leaf at one neuron (L,): first those that it is not negative."""
        sign, place = leaves.sign, column.unsqueeze(1)
        sign = torch.cat([sign.scatter(1, place, 1), sign.scatter(1, place, -1)])
        both = _each(leaves.dual, lambda t: torch.cat([t, t]))
        return _Leaves(leaves.owner.repeat(2), sign, leaves.bound.repeat(2), both)


def _at_kink(line: Line) -> Tensor:
    """How far a line (L, 1, *X) is off at a kink at zero, where the activation is zero, too: (L, n)."""
    slope, intercept = line
    return flat(torch.zeros_like(slope[:, 0]) if intercept is None else intercept[:, 0].abs())


def _confined(box: Box, sign: Tensor) -> Box:
    """A box (B, *X) cut down to the side of zero that signs (L, *X) name; a case that cannot be is any interval."""
    lower = torch.where(sign > 0, box.lower.clamp(min=0), box.lower)
    upper = torch.where(sign < 0, box.upper.clamp(max=0), box.upper)
    return Box(lower, torch.maximum(lower, upper))


def _within(dual: DualPoint, relaxation: Relaxation) -> DualPoint:
    """A dual point without multipliers of what is not split."""
    return replace(dual, multipliers={n: m for n, m in dual.multipliers.items() if n in relaxation.splits})


def _each(dual: DualPoint, change: Callable[[Tensor], Tensor]) -> DualPoint:
    return _zip(change, dual)


def _zip(join: Callable[..., Tensor], one: DualPoint, *others: DualPoint) -> DualPoint:
    """Dual points of the same shape, tensor by tensor."""

    def pair(name: str, side: int) -> Tensor | None:
        found = [dual.weights[name][side] for dual in (one, *others)]
        return None if any(w is None for w in found) else join(*found)

    return DualPoint(
        {name: (pair(name, 0), pair(name, 1)) for name in one.weights},
        {name: join(m, *(dual.multipliers[name] for dual in others)) for name, m in one.multipliers.items()},
    )
