"""Bounds of the inputs of all activations, layer by layer.

Interval bounds first; then the dual function, but only for the neurons whose envelope depends on it (unstable ReLUs),
in chunks of rows that fit a memory budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from time import monotonic

import torch
from torch import Tensor

from verifier.bounding.ascent import AscentOptions, ancestors, ascend, climb
from verifier.bounding.cases import case_bounds
from verifier.bounding.dual import (
    AnyPoint,
    CasePoint,
    DualPoint,
    Objective,
    Relaxation,
    Slopes,
    WindowPoint,
    fixed_point,
    lower_bound,
)
from verifier.bounding.first_layer import first_layer
from verifier.bounding.interval import outward, step
from verifier.bounding.window_shapes import largest_window
from verifier.bounding.windows import WindowRows
from verifier.graph.ir import Graph, Node
from verifier.operators.table import OPERATORS
from verifier.relaxations.cuts import JointBound
from verifier.relaxations.envelope import Envelope
from verifier.specs.box import flat, overlap
from verifier.specs.region import Box, Region
from verifier.workers import Workers, chunks_of

#: operators that mix entries: one of them on the way from a box keeps its interval exact, two do not
MIXING = {"linear", "conv", "conv_transpose", "sum"}

#: bounds of rows and of their negatives, and the dual point behind them
Bounded = tuple[Tensor, DualPoint | WindowPoint]
#: what tightened a node's box: rows (B, R) whose values and negatives were bounded, and the dual point (2R rows)
Steps = tuple[tuple[Tensor, AnyPoint], ...]
#: (node name, relaxation so far, bool (B, *X) of the entries that matter) -> tighter box and the steps that prove it
Tighten = Callable[[str, Relaxation, Callable[[Box], Tensor]], tuple[Box, Steps]]
#: (activation, relaxation of all that comes before it) -> cuts on its neurons, or None
Join = Callable[[Node, Relaxation], JointBound | None]
#: (node, boxes and envelopes so far, its own envelope among them) -> its box
Push = Callable[[Node, Mapping[str, Box], Mapping[str, Envelope]], Box]


@dataclass(frozen=True)
class IntermediateOptions:
    """How intermediate boxes are tightened.

    Args:
        slopes: CROWN's rule for the line weights, see `fixed_point`.
        ascent: options of an ascent for the rows that the fixed point leaves open, or None.
        chunk_bytes: memory that the coefficients of one chunk of rows take in the widest layer; a few megabytes
            stay in the processor's cache, which measures fastest on a CPU.
    """

    slopes: Slopes = "adaptive"
    ascent: AscentOptions | None = None
    chunk_bytes: int = 16 << 20


def share_until(graph: Graph, relaxation: Relaxation, deadline: float | None, kept: float) -> float | None:
    """When the next box has had its share of the time: each one after it has as much.

    Args:
        kept: time for the property's rows, as a share of what a box has.
    """
    if deadline is None:
        return None
    activations = [node for node in graph.nodes[1:] if OPERATORS[node.op].envelope is not None]
    done = {node.inputs[0] for node in activations if node.name in relaxation.envelopes}
    ahead = len({node.inputs[0] for node in activations} - done) + kept
    return monotonic() + (deadline - monotonic()) / ahead


def interval_only(name: str, relaxation: Relaxation, wanted: Callable[[Box], Tensor]) -> tuple[Box, Steps]:
    """Leave intervals as they are (the IBP in CROWN-IBP)."""
    return relaxation.boxes[name], ()


def by_dual(
    graph: Graph,
    region: Region,
    options: IntermediateOptions,
    deadline: float | None = None,
    known: Relaxation | None = None,
) -> Tighten:
    """Tighten by the dual function: once at CROWN's point, then by ascent where asked.

    Args:
        deadline: `time.monotonic` value after which nothing more is tightened (what stands stays sound).
        known: boxes of the same network and region that were tightened before; they take the place of CROWN's point.
    """
    exact = _exact_intervals(graph) if isinstance(region, Box) else set()

    def late() -> bool:
        return deadline is not None and monotonic() > deadline

    def bounded(now: Relaxation, name: str, ascent: AscentOptions | None, rows: Tensor) -> Bounded | None:
        return None if late() else both_sides(graph, region, now, name, rows, options.slopes, ascent, deadline)

    def tighten(name: str, relaxation: Relaxation, wanted: Callable[[Box], Tensor]) -> tuple[Box, Steps]:
        box, steps = relaxation.boxes[name], ()
        ways = (None,) if options.ascent is None else (None, options.ascent)
        if known is not None and name in known.steps:
            box, steps, ways = overlap(box, known.boxes[name]), known.steps[name], ways[1:]
        for ascent in ways:
            if name in exact or late():
                break
            now = replace(relaxation, boxes={**relaxation.boxes, name: box})
            workers, size = Workers.on(box.lower.device), _rows_per_chunk(graph, region, name, box, options)
            chunks = chunks_of(wanted_rows(wanted(box)), size, workers.count)
            for rows, found in zip(chunks, workers.map(partial(bounded, now, name, ascent), chunks), strict=True):
                if found is not None:
                    box, steps = intersect_rows(box, rows, found[0]), (*steps, (rows, found[1]))
        return box, steps

    return tighten


def by_steps(graph: Graph, region: Region, steps: Mapping[str, Steps]) -> Tighten:
    """Tighten by dual points that are already known, as evidence is re-evaluated."""

    def tighten(name: str, relaxation: Relaxation, wanted: Callable[[Box], Tensor]) -> tuple[Box, Steps]:
        box = relaxation.boxes[name]
        for rows, dual in steps.get(name, ()):
            box = intersect_rows(box, rows, unit_bounds(graph, region, relaxation, name, rows, dual))
        return box, steps.get(name, ())

    return tighten


def standing(relaxation: Relaxation) -> Tighten:
    """Take the boxes that another relaxation of the same network over the same region has, with what proves them."""

    def tighten(name: str, now: Relaxation, wanted: Callable[[Box], Tensor]) -> tuple[Box, Steps]:
        return relaxation.boxes[name], relaxation.steps.get(name, ())

    return tighten


def outward_in(graph: Graph) -> Push:
    """Intervals that are rounded outward (see `verifier.bounding.interval.outward`)."""
    return lambda node, boxes, relaxed: outward(node, boxes, graph.input)


def relax_network(
    graph: Graph, region: Region, tighten: Tighten, join: Join | None = None, push: Push | None = None
) -> Relaxation:
    """Boxes of all nodes and envelopes of all activations of a placed graph over a region, in topological order.

    Intervals first, or what `push` finds; `tighten` improves the box of each activation's input before its envelope is
    taken, and `join` then adds cuts.
    """
    boxes: dict[str, Box] = {graph.input: region.enclosing_box()}
    relaxed: dict[str, Envelope] = {}
    steps: dict[str, Steps] = {}
    cuts: dict[str, JointBound] = {}
    for node in graph.nodes[1:]:
        operator = OPERATORS[node.op]
        if operator.envelope is not None:
            source = node.inputs[0]
            if source not in steps:
                wanted = partial(entries_split, graph, source)
                boxes[source], steps[source] = tighten(source, Relaxation(boxes, relaxed, cuts=cuts), wanted)
            relaxed[node.name] = operator.envelope(node, boxes[source])
            cut = None if join is None else join(node, Relaxation(boxes, relaxed, steps, cuts=cuts))
            cuts |= {} if cut is None else {node.name: cut}
        boxes[node.name] = step(node, boxes, graph.input) if push is None else push(node, boxes, relaxed)
    return Relaxation(boxes, relaxed, steps, cuts=cuts)


def entries_split(graph: Graph, source: str, box: Box) -> Tensor:
    """Entries (B, *X) of a node's box that matter to at least one of the activations that take it."""
    readers = [node for node in graph.nodes if source in node.inputs]
    masks = [splits(node, box) for node in readers if (splits := OPERATORS[node.op].splits) is not None]
    return torch.stack(masks).any(0)


def _exact_intervals(graph: Graph) -> set[str]:
    """Nodes whose interval over a box cannot be improved: one chain of affine operators, one of which mixes entries."""
    mixed = {graph.input: 0}
    for node in graph.nodes[1:]:
        chain = len(node.inputs) == 1 and OPERATORS[node.op].adjoint is not None
        mixed[node.name] = mixed[node.inputs[0]] + (node.op in MIXING) if chain else 2
    return {name for name, count in mixed.items() if count <= 1}


def wanted_rows(wanted: Tensor) -> Tensor:
    """Flat indices (B, R) of the wanted entries (B, *X); elements that want fewer are filled up with others."""
    mask = flat(wanted)
    most = int(mask.sum(1).max())
    return mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]


def both_sides(
    graph: Graph,
    region: Region,
    relaxation: Relaxation,
    name: str,
    rows: Tensor,
    slopes: Slopes,
    ascent: AscentOptions | None,
    deadline: float | None,
) -> Bounded:
    """Lower bounds (B, 2R) of the entries `rows` (B, R) of a node and of their negatives."""
    if ascent is None:
        dual = fixed_point(relaxation.envelopes, slopes)
        return unit_bounds(graph, region, relaxation, name, rows, dual), dual
    if isinstance(region, Box) and largest_window(graph, region, name) is not None:
        entries = WindowRows(graph, region, relaxation, name, rows)
        bounds, point = climb(entries.bounds, entries.start(), ascent, deadline=deadline)
        return entries.as_rows(bounds), WindowPoint(point)
    objective = unit_rows(graph, name, rows, relaxation.boxes[name].lower.dtype)
    return ascend(graph, region, relaxation, objective, ascent, deadline=deadline)


def unit_bounds(
    graph: Graph, region: Region, relaxation: Relaxation, name: str, rows: Tensor, dual: AnyPoint
) -> Tensor:
    """Lower bounds (B, 2R) of the entries `rows` (B, R) of a node and of their negatives at a dual point.

    At CROWN's own point rows of convolutions go through windows where these are small; the values are the same.
    """
    if isinstance(dual, CasePoint):
        objective = unit_rows(graph, name, rows, relaxation.boxes[name].lower.dtype)
        return case_bounds(graph, region, relaxation, objective, dual)
    if isinstance(dual, WindowPoint) or not dual.weights:
        if isinstance(region, Box) and largest_window(graph, region, name) is not None:
            entries = WindowRows(graph, region, relaxation, name, rows)
            return entries.as_rows(entries.bounds(dual.point if isinstance(dual, WindowPoint) else dual))
    assert isinstance(dual, DualPoint)
    objective = unit_rows(graph, name, rows, relaxation.boxes[name].lower.dtype)
    return lower_bound(graph, region, relaxation, objective, dual)


def intersect_rows(box: Box, rows: Tensor, bound: Tensor) -> Box:
    """A box (B, *X) cut down by bounds (B, 2R) of some entries and of their negatives.

    Rounding can push the two sides of a nearly constant entry past each other; then both ends are swapped back.
    A bound that overflowed says nothing.
    """
    below, above = bound.nan_to_num(-torch.inf, -torch.inf, -torch.inf).chunk(2, dim=1)
    lower, upper = flat(box.lower), flat(box.upper)
    lower = lower.scatter(1, rows, torch.maximum(below, lower.gather(1, rows)))
    upper = upper.scatter(1, rows, torch.minimum(-above, upper.gather(1, rows)))
    low, high = torch.minimum(lower, upper), torch.maximum(lower, upper)
    return Box(low.reshape(box.lower.shape), high.reshape(box.upper.shape))


def unit_rows(graph: Graph, name: str, rows: Tensor, dtype: torch.dtype) -> Objective:
    """The entries `rows` (B, R) of a node, and after them their negatives, as an objective of 2R rows.

    Entries of a fully connected layer are rows of its weight, so the objective is put on the layer's input.
    """
    shape = graph.shapes[name]
    node = next(node for node in graph.nodes if node.name == name)
    if node.op == "linear" and prod(shape) == shape[-1]:
        C, bias = node.constants["weight"][rows], node.constants.get("bias")
        offset = None if bias is None else torch.cat([bias[rows], -bias[rows]], 1)
        C = torch.cat([C, -C], 1).reshape(len(rows), -1, *graph.shapes[node.inputs[0]])
        return Objective(node.inputs[0], C, offset)
    size = prod(shape)
    batch, count = rows.shape
    C = torch.zeros(batch, 2 * count, size, dtype=dtype, device=rows.device)
    C[:, :count].scatter_(2, rows.unsqueeze(2), 1.0)
    C[:, count:].scatter_(2, rows.unsqueeze(2), -1.0)
    return Objective(name, C.reshape(batch, 2 * count, *shape))


def rows_per_chunk(graph: Graph, name: str, box: Box, chunk_bytes: int, more: int = 0, from_box: bool = False) -> int:
    """How many entries of a node can be bounded at a time, both sides of each, in the dense way.

    Args:
        more: numbers that a row takes besides its coefficients.
        from_box: the input set is a box, so that coefficients in front of the first layer are never there at once.
    """
    before = {source for node in first_layer(graph) for source in node.inputs} if from_box else set()
    widest = max(prod(graph.shapes[node]) for node in ancestors(graph, name) - before)
    return max(1, chunk_bytes // (2 * box.batch * box.lower.element_size() * (widest + more)))


def _rows_per_chunk(graph: Graph, region: Region, name: str, box: Box, options: IntermediateOptions) -> int:
    """The same where windows can take the place of whole maps."""
    window = largest_window(graph, region, name) if options.slopes == "adaptive" else None
    if window is None:
        return rows_per_chunk(graph, name, box, options.chunk_bytes, from_box=isinstance(region, Box))
    return max(1, options.chunk_bytes // (2 * box.batch * box.lower.element_size() * window))
