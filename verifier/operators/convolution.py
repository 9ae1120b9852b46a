"""Convolutions and their transposes, in one to three spatial dimensions.

Shapes are (N, C, *spatial) as in ONNX; the extra axes B (and S) in front are folded into N for torch's kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from verifier.graph.ir import Node
from verifier.operators.registry import Adjoint, Operator, Shape
from verifier.specs.region import Box

CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSE: dict[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}

#: up to this many channels a transposed convolution is faster as one product and a fold than in torch's CPU kernel
FEW_CHANNELS = 4


def _fold(x: Tensor, rank: int) -> Tensor:
    """Merge every axis in front of (C, *spatial)."""
    return x.reshape(-1, *x.shape[-rank - 1 :])


def _conv(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    rank = weight.dim() - 2
    a = node.attributes
    y = CONV[rank](_fold(x, rank), weight, bias, a["stride"], a["padding"], a["dilation"], a["groups"])
    return y.reshape(*x.shape[: -rank - 1], *y.shape[1:])


def _conv_transpose(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    rank = weight.dim() - 2
    a = node.attributes
    y = TRANSPOSE[rank](
        _fold(x, rank), weight, bias, a["stride"], a["padding"], a["output_padding"], a["groups"], a["dilation"]
    )
    return y.reshape(*x.shape[: -rank - 1], *y.shape[1:])


def _forward(layer: Callable[[Node, Tensor, Tensor, Tensor | None], Tensor]) -> Callable[[Node, Tensor], Tensor]:
    def forward(node: Node, x: Tensor) -> Tensor:
        return layer(node, x, node.constants["weight"], node.constants.get("bias"))

    return forward


def _interval(layer: Callable[[Node, Tensor, Tensor, Tensor | None], Tensor]) -> Callable[[Node, Box], Box]:
    def interval(node: Node, box: Box) -> Box:
        weight = node.constants["weight"]
        centre = layer(node, (box.lower + box.upper) / 2, weight, node.constants.get("bias"))
        radius = layer(node, (box.upper - box.lower) / 2, weight.abs(), None)
        return Box(centre - radius, centre + radius)

    return interval


def _constant(node: Node, A: Tensor, rank: int) -> Tensor | None:
    bias = node.constants.get("bias")
    if bias is None:
        return None
    per_channel = A.flatten(-rank).sum(-1)  # (B, S, N, C)
    return (per_channel @ bias).sum(-1)


def _adjoint_conv(node: Node, A: Tensor, shapes: tuple[Shape, ...]) -> Adjoint:
    weight: Tensor = node.constants["weight"]
    rank = weight.dim() - 2
    a = node.attributes
    kernel, size = weight.shape[2:], shapes[0][-rank:]
    lost = [  # positions that the stride never reached: the transpose would be short of them
        size[i]
        - ((A.shape[i - rank] - 1) * a["stride"][i] - 2 * a["padding"][i] + a["dilation"][i] * (kernel[i] - 1) + 1)
        for i in range(rank)
    ]
    folded = _fold(A, rank)
    if rank == 2 and a["groups"] == 1 and weight.shape[1] <= FEW_CHANNELS:
        columns = torch.matmul(weight.flatten(1).t(), folded.flatten(2))
        x = F.fold(columns, size, kernel, a["dilation"], a["padding"], a["stride"])
    else:
        x = TRANSPOSE[rank](folded, weight, None, a["stride"], a["padding"], lost, a["groups"], a["dilation"])
    return (x.reshape(*A.shape[: -rank - 1], *x.shape[1:]),), _constant(node, A, rank)


def _adjoint_transpose(node: Node, A: Tensor, shapes: tuple[Shape, ...]) -> Adjoint:
    weight: Tensor = node.constants["weight"]
    rank = weight.dim() - 2
    a: Any = node.attributes
    x = CONV[rank](_fold(A, rank), weight, None, a["stride"], a["padding"], a["dilation"], a["groups"])
    for i in range(rank):  # output_padding can add positions that no input reaches
        x = torch.narrow(x, i - rank, 0, shapes[0][i - rank])
    return (x.reshape(*A.shape[: -rank - 1], *x.shape[1:]),), _constant(node, A, rank)


OPERATORS = (
    Operator("conv", _forward(_conv), _interval(_conv), _adjoint_conv),
    Operator("conv_transpose", _forward(_conv_transpose), _interval(_conv_transpose), _adjoint_transpose),
)
