"""Intermediate bounds by linear programs (as RefinePoly of Singh et al. 2019), for the most useful neurons first.

A program proposes a dual point for either side of a neuron, and the dual function says which bound that gives; points
and rows are kept as the box's steps, so the evidence can be evaluated again without a solver.
Axes: B batch, R neurons of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from time import monotonic

import numpy as np
import torch
from torch import Tensor

from verifier.bounding.ascent import ancestors
from verifier.bounding.dual import DualPoint, Objective, Relaxation, linear_bound
from verifier.bounding.intermediate import Steps, Tighten, by_dual, intersect_rows, unit_bounds
from verifier.bounding.ladder import Bounds, LadderOptions, Problem, crown
from verifier.bounding.lp.duals import Duals, MakeSolver, ask, dual_point, stack
from verifier.bounding.lp.highs import workers
from verifier.bounding.lp.method import optimise, solver_for
from verifier.bounding.lp.network import Affine, entry_rows, one_element, relaxed_network, stacked
from verifier.bounding.lp.size import require_size
from verifier.graph.ir import Graph
from verifier.operators.table import OPERATORS
from verifier.specs.box import flat
from verifier.specs.region import Box, Region
from verifier.workers import Workers


@dataclass(frozen=True)
class RefineOptions:
    """How neurons are refined.

    Args:
        share: of the time that is left, for all layers together; each of them gets an equal part of it.
        seconds: the same where there is no deadline.
        workers: programs that are solved side by side, each in a thread and with a model of its own; None for as many
            as torch has threads.
        chunk_bytes: memory that the dual points of one step take.
    """

    share: float = 0.6
    seconds: float = 60.0
    workers: int | None = None
    chunk_bytes: int = 32 << 20


def refined_lp(
    problem: Problem,
    options: LadderOptions,
    deadline: float | None = None,
    refine: RefineOptions | None = None,
    make: MakeSolver = solver_for,
) -> Bounds:
    """The triangle program over boxes that are refined by such programs.

    Raises:
        InputError: the network is too large.
    """
    require_size(problem.graph)
    relaxation = refined(problem, options, deadline, refine or RefineOptions(), make)
    return optimise(problem, relaxation, options.final, deadline, make, options.tell)


def refined(
    problem: Problem,
    options: LadderOptions,
    deadline: float | None,
    refine: RefineOptions,
    make: MakeSolver = solver_for,
) -> Relaxation:
    """The network relaxed over alpha-CROWN's boxes, refined where that matters to the rows of the problem."""
    graph, region, now = problem.graph, problem.region, monotonic()
    until = now + (refine.seconds if deadline is None else refine.share * (deadline - now))
    useful = influence(graph, crown(problem, options, deadline).relaxation, problem.rows.objective)
    first = by_dual(graph, region, options.intermediate, deadline)
    return options.relax(problem, by_lp(graph, region, first, useful, until, refine, make, options.tell))


def influence(graph: Graph, relaxation: Relaxation, objective: Objective) -> dict[str, Tensor]:
    """How much an objective can lose per unit of slack of each activation's envelope, by the activation's input.

    The greatest coefficient (B, *X) that CROWN's push leaves on it, the first factor of BaBSR's score (Bunel et al.
    2020, arXiv 1909.06588).
    """
    found: dict[str, Tensor] = {}

    def watch(node, A: Tensor) -> None:
        if OPERATORS[node.op].envelope is not None:
            size, source = A.abs().amax(1), node.inputs[0]
            found[source] = torch.maximum(found[source], size) if source in found else size

    with torch.no_grad():
        linear_bound(graph, relaxation.envelopes, objective, watch=watch)
    return found


def by_lp(
    graph: Graph,
    region: Region,
    first: Tighten,
    useful: Mapping[str, Tensor],
    until: float,
    options: RefineOptions,
    make: MakeSolver = solver_for,
    tell: Callable[[str], None] | None = None,
) -> Tighten:
    """Tighten by another strategy, and then neuron by neuron by linear programs while there is time.

    Args:
        useful: weights (B, *X) of the neurons' slack for each node; nodes without are left alone.
        until: `time.monotonic` value at which the last layer has to be done.
        tell: told before each layer which one it is.
    """
    order = [node.name for node in graph.nodes if node.name in useful]

    def tighten(name: str, relaxation: Relaxation, wanted: Callable[[Box], Tensor]) -> tuple[Box, Steps]:
        box, steps = first(name, relaxation, wanted)
        if name not in useful or ancestors(graph, name).isdisjoint(relaxation.envelopes):
            return box, steps
        if tell is not None:
            tell(f"refining neurons, layer {order.index(name) + 1} of {len(order)}")
        end = monotonic() + (until - monotonic()) / (len(order) - order.index(name))
        now = replace(relaxation, boxes={**relaxation.boxes, name: box})
        found = _solve(
            graph, region, now, name, _ranked(graph, name, now, wanted(box), useful[name]), end, options, make
        )
        for part in _parts(found, options.chunk_bytes):
            box = intersect_rows(box, part[0], unit_bounds(graph, region, now, name, *part))
            steps = (*steps, part)
        return box, steps

    return tighten


#: rows (B, R) of a node, and the dual points of these and of their negatives
Part = tuple[Tensor, DualPoint]


def _ranked(graph: Graph, name: str, relaxation: Relaxation, wanted: Tensor, useful: Tensor) -> list[np.ndarray]:
    """For each batch element the wanted entries (flat indices), those first whose envelopes' slack weighs most."""
    box = relaxation.boxes[name]
    middle, slack = (box.lower + box.upper).unsqueeze(1) / 2, torch.zeros_like(box.lower)
    for node in graph.nodes:
        if name in node.inputs and (rule := OPERATORS[node.op].envelope) is not None:
            envelope = rule(node, box)
            for family, sign in ((envelope.upper, 1), (envelope.lower, -1)):
                slope, intercept = family.line(None)
                slack = slack + sign * (slope * middle + (0 if intercept is None else intercept))[:, 0]
    score = flat((slack * useful).masked_fill(~wanted, -torch.inf))
    order, counts = score.argsort(dim=1, descending=True), flat(wanted).sum(1).tolist()
    return [order[b, :count].cpu().numpy() for b, count in enumerate(counts)]


def _solve(
    graph: Graph,
    region: Region,
    relaxation: Relaxation,
    name: str,
    ranked: list[np.ndarray],
    end: float,
    options: RefineOptions,
    make: MakeSolver,
) -> Part:
    """Dual points for as many neurons as the time allows; elements with fewer than others are filled up."""
    rows: list[list[int]] = []
    answers: list[list[tuple[Duals | None, Duals | None]]] = []
    count = options.workers or workers()
    ones = [one_element(graph, relaxation, b) for b in range(len(ranked))]
    for b, entries in enumerate(ranked):
        until = monotonic() + (end - monotonic()) / (len(ranked) - b)
        part = region.select(torch.tensor([b]))
        found = _side_by_side(graph, part, ones[b], name, entries, until, count, make)
        rows.append([int(entries[k]) for k in found])
        answers.append(list(found.values()))
    most = max(len(part) for part in rows)
    points = []
    for b, one in enumerate(ones):
        spare = most - len(rows[b])
        rows[b] += spare * [0]
        answers[b] += spare * [(None, None)]
        points.append(dual_point(one, [low for low, _ in answers[b]] + [high for _, high in answers[b]]))
    return torch.tensor(rows, dtype=torch.int64, device=relaxation.boxes[name].lower.device), stack(points)


def _side_by_side(
    graph: Graph,
    region: Region,
    relaxation: Relaxation,
    name: str,
    entries: np.ndarray,
    until: float,
    count: int,
    make: MakeSolver,
) -> dict[int, tuple[Duals | None, Duals | None]]:
    """What solvers say of the least and the greatest value of entries, by place among the entries, in that order."""
    if len(entries) == 0 or monotonic() >= until:
        return {}
    network = relaxed_network(graph, relaxation, name)
    rows = entry_rows(graph, name, entries)
    signed = {key: stacked([matrix, -matrix]) for key, matrix in rows.matrices.items()}
    both = Affine(signed, np.concatenate([rows.constant, -rows.constant]))

    def work(first: int) -> dict[int, tuple[Duals | None, Duals | None]]:
        solver, found = make(network, region, both), {}
        for k in range(first, len(entries), count):
            if monotonic() >= until:
                break
            found[k] = ask(solver, k, until), ask(solver, len(entries) + k, until)
        return found

    parts = Workers(count).map(work, range(count))
    return dict(sorted((k, pair) for part in parts for k, pair in part.items()))


def _parts(part: Part, chunk_bytes: int) -> list[Part]:
    """The same in steps that fit a memory."""
    rows, dual = part
    count = rows.shape[1]
    whole = sum(w.numel() * w.element_size() for pair in dual.weights.values() for w in pair if w is not None)
    size = max(1, chunk_bytes * count // max(1, whole))

    def cut(weight: Tensor | None, start: int) -> Tensor | None:
        """Both sides of some of the rows."""
        if weight is None:
            return None
        stop = min(start + size, count)
        return torch.cat([weight[:, start:stop], weight[:, count + start : count + stop]], 1)

    return [
        (
            rows[:, start : start + size],
            DualPoint({name: (cut(low, start), cut(high, start)) for name, (low, high) in dual.weights.items()}),
        )
        for start in range(0, count, size)
    ]
