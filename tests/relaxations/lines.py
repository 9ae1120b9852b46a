"""What a line says beside what a function does, point by point, and how much of a gap is rounding."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.operators.boxes import points
from verifier.graph.ir import Node
from verifier.operators import OPERATORS
from verifier.relaxations.envelope import Family
from verifier.specs.region import Box

#: a line's slope, intercept and value take a handful of operations; 1.5 roundings is the worst that was measured
UNITS = 4


def kinks(node: Node) -> tuple[float, ...]:
    return (node.attributes["low"], node.attributes["high"]) if node.op == "clip" else (0.0,)


def weights(shape: tuple[int, ...], rows: int, generator: torch.Generator, dtype: torch.dtype) -> list[Tensor | None]:
    """CROWN's own weights, the two ends, and `rows` random ones for every neuron (B, rows, *X)."""
    batch, *entries = shape
    drawn = torch.rand(batch, rows, *entries, generator=generator, dtype=torch.float64).to(dtype)
    ends = [torch.full((batch, 1, *entries), end, dtype=dtype) for end in (0.0, 1.0)]
    return [None, *ends, drawn]


def gaps(node: Node, box: Box, family: Family, weight: Tensor | None, x: Tensor) -> tuple[Tensor, Tensor]:
    """``line(x) - f(x)`` (R, B, S, *X) in float64 at x (R, B, *X), and the rounding it may carry.

    Lines are products and sums of a few numbers: their rounding errors scale with the terms, and for s-shaped
    functions also with the function's range, one, since differences from 1 are taken.
    """
    slope, intercept = (None if part is None else part.double() for part in family.line(weight))
    assert slope is not None
    intercept = torch.zeros_like(slope) if intercept is None else intercept
    far = torch.maximum(box.lower.abs(), box.upper.abs()).double().unsqueeze(1)
    value = _exact(node, x.double()).unsqueeze(2)
    scale = slope.abs() * far + intercept.abs() + value.abs() + (1.0 if node.op in ("sigmoid", "tanh") else 0.0)
    return slope * x.double().unsqueeze(2) + intercept - value, UNITS * torch.finfo(box.lower.dtype).eps * scale


def _exact(node: Node, x: Tensor) -> Tensor:
    """The function at x (R, B, *X) in float64, with the constants of the node as they are placed."""
    constants = {name: value.double() for name, value in node.constants.items()}
    double = Node(node.name, node.op, node.inputs, node.attributes, constants)
    return OPERATORS[node.op].forward(double, x.flatten(0, 1)).unflatten(0, x.shape[:2])


def violations(node: Node, box: Box, generator: torch.Generator, count: int = 24, rows: int = 3) -> int:
    """How many boxes of a batch hold a point at which some line of the envelope lies on the wrong side."""
    envelope = OPERATORS[node.op].envelope
    assert envelope is not None
    lines = envelope(node, box)
    x = points(box, count, generator, kinks(node))
    wrong = torch.zeros_like(box.lower, dtype=torch.bool)
    for family, sign in ((lines.lower, -1), (lines.upper, 1)):
        for weight in weights(tuple(box.lower.shape), rows, generator, box.lower.dtype):
            gap, rounding = gaps(node, box, family, weight, x)
            wrong |= (~(sign * gap >= -rounding)).any(2).any(0)
    return int(wrong.sum())
