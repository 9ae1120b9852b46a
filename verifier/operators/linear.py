"""Fully connected layers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from verifier.graph.ir import Node
from verifier.operators.affine import affine_interval
from verifier.operators.registry import Adjoint, Operator, Shape
from verifier.specs.region import Box


def _forward(node: Node, x: Tensor) -> Tensor:
    return F.linear(x, node.constants["weight"], node.constants.get("bias"))


def _interval(node: Node, box: Box) -> Box:
    return affine_interval(F.linear, box, node.constants["weight"], node.constants.get("bias"))


def _adjoint(node: Node, A: Tensor, shapes: tuple[Shape, ...]) -> Adjoint:
    bias = node.constants.get("bias")
    constant = None if bias is None else (A @ bias).flatten(2).sum(2) if A.dim() > 3 else A @ bias
    return (torch.matmul(A, node.constants["weight"]),), constant


OPERATORS = (Operator("linear", _forward, _interval, _adjoint),)
