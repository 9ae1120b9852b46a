"""Operators that only move entries: the interval moves with them, the adjoint moves them back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from verifier.graph.ir import Node
from verifier.operators.registry import Adjoint, Operator, Shape
from verifier.specs.region import Box


def _moved(forward: Callable[..., Tensor]) -> Callable[..., Box]:
    """The interval rule of an operator that is monotone in every entry."""

    def interval(node: Node, *boxes: Box) -> Box:
        return Box(forward(node, *(b.lower for b in boxes)), forward(node, *(b.upper for b in boxes)))

    return interval


def _reshape(node: Node, x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], *node.attributes["shape"])


def _reshape_adjoint(node: Node, A: Tensor, shapes: tuple[Shape, ...]) -> Adjoint:
    return (A.reshape(*A.shape[:2], *shapes[0]),), None


def _transpose(node: Node, x: Tensor) -> Tensor:
    return x.permute(0, *(axis + 1 for axis in node.attributes["perm"]))


def _transpose_adjoint(node: Node, A: Tensor, shapes: tuple[Shape, ...]) -> Adjoint:
    perm = node.attributes["perm"]
    return (A.permute(0, 1, *(perm.index(axis) + 2 for axis in range(len(perm)))),), None


def _concat(node: Node, *xs: Tensor) -> Tensor:
    return torch.cat(xs, node.attributes["axis"] + 1)


def _concat_adjoint(node: Node, A: Tensor, shapes: tuple[Shape, ...]) -> Adjoint:
    axis = node.attributes["axis"]
    return A.split([shape[axis] for shape in shapes], axis + 2), None


def _take(node: Node, x: Tensor) -> Tensor:
    return x.index_select(node.attributes["axis"] + 1, node.constants["indices"])


def _take_adjoint(node: Node, A: Tensor, shapes: tuple[Shape, ...]) -> Adjoint:
    axis = node.attributes["axis"]
    x = A.new_zeros(*A.shape[:2], *shapes[0])
    return (x.index_add(axis + 2, node.constants["indices"], A),), None


def _flat_pads(node: Node) -> list[int]:
    """torch lists pads from the last axis to the first."""
    return [amount for pair in reversed(node.attributes["pads"]) for amount in pair]


def _pad(node: Node, x: Tensor) -> Tensor:
    return F.pad(x, _flat_pads(node), value=node.attributes["value"])


def _pad_adjoint(node: Node, A: Tensor, shapes: tuple[Shape, ...]) -> Adjoint:
    x, constant = F.pad(A, [-amount for amount in _flat_pads(node)]), None
    if node.attributes["value"] != 0:
        constant = node.attributes["value"] * (A.flatten(2).sum(2) - x.flatten(2).sum(2))
    return (x,), constant


OPERATORS = (
    Operator("reshape", _reshape, _moved(_reshape), _reshape_adjoint),
    Operator("transpose", _transpose, _moved(_transpose), _transpose_adjoint),
    Operator("concat", _concat, _moved(_concat), _concat_adjoint),
    Operator("take", _take, _moved(_take), _take_adjoint),
    Operator("pad", _pad, _moved(_pad), _pad_adjoint),
)
