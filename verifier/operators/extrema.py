"""Maximum and minimum of two activations, through the ReLU of their difference.

``max(x, y) = y + relu(x - y)`` and ``min(x, y) = x - relu(x - y)``. The reader supplies ``r = relu(x - y)`` as the
third input, so the relaxation, the line weights and any later split live in that ReLU, and max pooling needs no rule of
its own. As sums of ``y``, ``x`` and ``r`` these operators are affine; only their intervals know better, being exact
for the extremum itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.graph.ir import Node
from verifier.operators.registry import Adjoint, Operator, Shape
from verifier.specs.region import Box


def _maximum(node: Node, x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    return y + r


def _maximum_interval(node: Node, x: Box, y: Box, r: Box) -> Box:
    return Box(torch.maximum(x.lower, y.lower), torch.maximum(x.upper, y.upper))


def _maximum_adjoint(node: Node, A: Tensor, shapes: tuple[Shape, ...]) -> Adjoint:
    return (None, A, A), None


def _minimum(node: Node, x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    return x - r


def _minimum_interval(node: Node, x: Box, y: Box, r: Box) -> Box:
    return Box(torch.minimum(x.lower, y.lower), torch.minimum(x.upper, y.upper))


def _minimum_adjoint(node: Node, A: Tensor, shapes: tuple[Shape, ...]) -> Adjoint:
    return (A, None, -A), None


OPERATORS = (
    Operator("maximum", _maximum, _maximum_interval, _maximum_adjoint),
    Operator("minimum", _minimum, _minimum_interval, _minimum_adjoint),
)
