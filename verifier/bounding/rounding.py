"""How large the numbers are that a bound was computed from: the scale of its rounding errors.

A computed sum of products is off by at most a multiple of the unit roundoff times the sum of the products' absolute
values, however small the sum itself (Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor

from verifier.bounding.dual import DualPoint, LinearBound, Objective, Relaxation, linear_bound
from verifier.bounding.relax import relax
from verifier.graph.ir import Graph, Node
from verifier.operators.table import OPERATORS
from verifier.relaxations.envelope import Line
from verifier.specs.box import Box, flat, flat_rows, magnitude

#: a bound counts when it exceeds this many units of rounding of the sum of the absolute values of its terms
ALLOWANCE_UNITS = 1024


def rounding_scale(graph: Graph, relaxation: Relaxation, objective: Objective, dual: DualPoint) -> Tensor:
    """Sum of the absolute values of all products behind `lower_bound` at a dual point, (B, S)."""
    return bound_with_scale(graph, relaxation, objective, dual)[1]


def bound_with_scale(
    graph: Graph,
    relaxation: Relaxation,
    objective: Objective,
    dual: DualPoint,
    known: Mapping[str, Tensor] = MappingProxyType({}),
    watch: Callable[[Node, Tensor], None] | None = None,
) -> tuple[LinearBound, Tensor]:
    """Linear bounds at a dual point, and the sum of the absolute values of all products behind them, (B, S).

    Every operator that was passed contributes what it added up, with its inputs as large as their boxes allow.
    The boxes of activations' inputs carry rounding errors of their own, of the size of what those inputs add up.
    It is an estimate of first order: errors of boxes that pass from layer to layer are not followed.

    Args:
        known: such sums (B, *X) of nodes, in place of what all affine operators contribute.
        watch: as of `linear_bound`.
    """
    blurred: dict[str, Tensor] = {}  # coefficients on inputs of activations through errors of their boxes
    terms: list[Tensor] = []

    def affine(node: Node, size: Tensor) -> None:
        if node.name in known:
            terms.append(_weighted(size, known[node.name]))
        elif not known:
            terms.append(_affine_terms(graph, relaxation, node, size))

    def note(node: Node, A: Tensor) -> None:
        size = A.abs()
        if watch is not None:
            watch(node, A)
        if OPERATORS[node.op].adjoint is None:
            source, size = node.inputs[0], size * _steepness(node)
            blurred[source] = blurred[source] + size if source in blurred else size
            terms.append(_line_terms(graph, relaxation, dual, node, A))
        else:
            affine(node, size + blurred.pop(node.name, 0))

    linear = linear_bound(graph, relaxation.envelopes, objective, dual, relaxation.splits, note, relaxation.cuts)
    for node in graph.nodes:
        if node.name in blurred and node.op != "input" and OPERATORS[node.op].adjoint is not None:
            affine(node, blurred[node.name])
    if not known:
        terms += [_inner(A.abs(), relaxation.boxes[name]) for name, A in linear.A.items()]
    # what splits add up, multipliers times values and times points, which lie in the boxes
    terms += [2 * _inner(size, relaxation.boxes[name]) for name, size in dual.multipliers.items()]
    for name, size in dual.cut_multipliers.items():
        if name in relaxation.envelopes:
            terms.append(_cut_terms(graph, relaxation, name, size))
    if objective.offset is not None:
        terms.append(objective.offset.abs())
    return linear, torch.stack(torch.broadcast_tensors(*terms)).sum(0)


def roundings(size: Tensor) -> Tensor:
    """What bounds may be off by whose terms have such absolute values in all: `ALLOWANCE_UNITS` roundings of these.

    It is an estimate of the rounding error, generous but not proved.
    """
    return ALLOWANCE_UNITS * torch.finfo(size.dtype).eps * size


def _steepness(node: Node) -> Tensor | float:
    """How much an activation can enlarge errors of its input: only a ReLU's slope can be above 1."""
    return node.constants["slope"].abs().clamp(min=1) if node.op == "relu" else 1.0


def _inner(A: Tensor, box: Box) -> Tensor:
    """``<A, |x|>`` (B, S) at its largest over a box."""
    return _weighted(A, magnitude(box))


def _weighted(A: Tensor, size: Tensor) -> Tensor:
    """``<A, size>`` (B, S) for coefficients (B, S, *X) and sizes (B, *X)."""
    return flat_rows(A * size.unsqueeze(1)).sum(2)


def _cut_terms(graph: Graph, relaxation: Relaxation, name: str, multipliers: Tensor) -> Tensor:
    """What the cuts of an activation add up, in absolute values (B, S)."""
    source = next(node for node in graph.nodes if node.name == name).inputs[0]
    z, x = (flat(magnitude(box)) for box in (relaxation.boxes[name], relaxation.boxes[source]))
    return relaxation.cuts[name].terms(multipliers, z, x)


def _affine_terms(graph: Graph, relaxation: Relaxation, node: Node, A: Tensor) -> Tensor:
    """What an affine operator adds up for non-negative coefficients A (B, S, *X), in absolute values."""
    absolute = {name: value.abs() if value.is_floating_point() else value for name, value in node.constants.items()}
    adjoint = OPERATORS[node.op].adjoint
    assert adjoint is not None
    shapes = tuple(graph.shapes[name] for name in node.inputs)
    parts, constant = adjoint(replace(node, constants=absolute), A, shapes)
    total = A.new_zeros(A.shape[:2]) if constant is None else constant.abs()
    for name, part in zip(node.inputs, parts, strict=True):
        if part is not None:
            total = total + _inner(part.abs(), relaxation.boxes[name])
    return total


def _line_terms(graph: Graph, relaxation: Relaxation, dual: DualPoint, node: Node, A: Tensor) -> Tensor:
    """What the lines of an activation add up for coefficients A, in absolute values."""
    if node.name not in relaxation.envelopes:
        return A.new_zeros(A.shape[:2])
    envelope, pair = relaxation.envelopes[node.name], dual.weights.get(node.name, (None, None))

    def sized(line: Line, sign: int) -> Line:
        return sign * line[0].abs(), None if line[1] is None else sign * line[1].abs()

    part, constant = relax(A, sized(envelope.lower.line(pair[0]), 1), sized(envelope.upper.line(pair[1]), -1))
    total = _inner(part, relaxation.boxes[node.inputs[0]])
    return total if constant is None else total + constant
