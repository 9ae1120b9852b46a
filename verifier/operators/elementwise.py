"""Affine operators that act entry by entry: sources, scales, sums, broadcasts."""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.graph.ir import Node
from verifier.operators.registry import Adjoint, Operator, Shape
from verifier.specs.region import Box


def _inner(A: Tensor, value: Tensor) -> Tensor:
    """``<A, value>`` over the node's axes, which may be none: (B, S)."""
    return (A * value).unsqueeze(-1).flatten(2).sum(2)


def _constant_forward(node: Node, like: Tensor) -> Tensor:
    value = node.constants["value"]
    return value.expand(like.shape[0], *value.shape)


def _constant_interval(node: Node, like: Box) -> Box:
    value = _constant_forward(node, like.lower)
    return Box(value, value)


def _constant_adjoint(node: Node, A: Tensor, shapes: tuple[Shape, ...]) -> Adjoint:
    return (), _inner(A, node.constants["value"])


def _scale_forward(node: Node, x: Tensor) -> Tensor:
    return x * node.constants["scale"] + node.constants["shift"]


def _scale_interval(node: Node, box: Box) -> Box:
    one, other = _scale_forward(node, box.lower), _scale_forward(node, box.upper)
    return Box(torch.minimum(one, other), torch.maximum(one, other))


def _scale_adjoint(node: Node, A: Tensor, shapes: tuple[Shape, ...]) -> Adjoint:
    return (A * node.constants["scale"],), _inner(A, node.constants["shift"])


def _expand_forward(node: Node, x: Tensor) -> Tensor:
    shape = node.attributes["shape"]
    return x.reshape(x.shape[0], *(1,) * (len(shape) + 1 - x.dim()), *x.shape[1:]).expand(x.shape[0], *shape)


def _expand_interval(node: Node, box: Box) -> Box:
    return Box(_expand_forward(node, box.lower), _expand_forward(node, box.upper))


def _expand_adjoint(node: Node, A: Tensor, shapes: tuple[Shape, ...]) -> Adjoint:
    shape, target = shapes[0], A.shape[2:]
    padded = (1,) * (len(target) - len(shape)) + tuple(shape)
    axes = [i + 2 for i, (one, many) in enumerate(zip(padded, target, strict=True)) if one != many]
    A = A.sum(axes, keepdim=True) if axes else A
    return (A.reshape(*A.shape[:2], *shape),), None


def _add_forward(node: Node, x: Tensor, y: Tensor) -> Tensor:
    return x + y


def _add_interval(node: Node, x: Box, y: Box) -> Box:
    return Box(x.lower + y.lower, x.upper + y.upper)


def _add_adjoint(node: Node, A: Tensor, shapes: tuple[Shape, ...]) -> Adjoint:
    return (A, A), None


def _sub_forward(node: Node, x: Tensor, y: Tensor) -> Tensor:
    return x - y


def _sub_interval(node: Node, x: Box, y: Box) -> Box:
    return Box(x.lower - y.upper, x.upper - y.lower)


def _sub_adjoint(node: Node, A: Tensor, shapes: tuple[Shape, ...]) -> Adjoint:
    return (A, -A), None


def _axes(node: Node) -> list[int]:
    return [axis + 1 for axis in node.attributes["axes"]]


def _sum_forward(node: Node, x: Tensor) -> Tensor:
    return x.sum(_axes(node))


def _sum_interval(node: Node, box: Box) -> Box:
    return Box(_sum_forward(node, box.lower), _sum_forward(node, box.upper))


def _sum_adjoint(node: Node, A: Tensor, shapes: tuple[Shape, ...]) -> Adjoint:
    for axis in sorted(node.attributes["axes"]):
        A = A.unsqueeze(axis + 2)
    return (A.expand(*A.shape[:2], *shapes[0]),), None


OPERATORS = (
    Operator("constant", _constant_forward, _constant_interval, _constant_adjoint),
    Operator("scale", _scale_forward, _scale_interval, _scale_adjoint),
    Operator("expand", _expand_forward, _expand_interval, _expand_adjoint),
    Operator("add", _add_forward, _add_interval, _add_adjoint),
    Operator("sub", _sub_forward, _sub_interval, _sub_adjoint),
    Operator("sum", _sum_forward, _sum_interval, _sum_adjoint),
)
