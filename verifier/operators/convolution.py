"""Convolutions and their transposes, in one to three spatial dimensions.

Shapes are (N, C, *spatial) as in ONNX; the extra axes B (and S) in front are folded into N for torch's kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from verifier.graph.ir import Node
from verifier.operators.affine import affine_interval
from verifier.operators.registry import Adjoint, Operator, Shape
from verifier.specs.region import Box

CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSE: dict[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}

#: up to this many channels a transposed convolution is faster as a convolution with its stride's phases side by side
FEW_CHANNELS = 4


def _fold(x: Tensor, rank: int) -> Tensor:
    """Merge every axis in front of (C, *spatial)."""
    if x.dim() == rank + 3 and x.shape[1] == 1:
        return x.squeeze(1)  # which keeps the strides of axes of length one
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
        return affine_interval(partial(layer, node), box, node.constants["weight"], node.constants.get("bias"))

    return interval


def _constant(node: Node, A: Tensor, rank: int) -> Tensor | None:
    bias = node.constants.get("bias")
    if bias is None:
        return None
    per_channel = A.flatten(-rank).sum(-1)  # (B, S, N, C)
    return (per_channel @ bias).sum(-1)


def transposed(maps: Tensor, node: Node, padding: Sequence[int], extra: Sequence[int]) -> Tensor:
    """The linear part of a convolution's adjoint: maps (M, C, *spatial) of its outputs to those of its inputs.

    Args:
        node: the convolution.
        padding: rows and columns to cut off at either end.
        extra: positions to add at the far end, which get zeros where no output reaches.
    """
    weight, a = node.constants["weight"], node.attributes
    rank = weight.dim() - 2
    plain = rank == 2 and a["groups"] == 1 and a["dilation"] == (1, 1) and a["stride"][0] == a["stride"][1]
    whole_taps = all(k % s == 0 for k, s in zip(weight.shape[2:], a["stride"], strict=True))
    if plain and (weight.shape[1] <= FEW_CHANNELS or (whole_taps and a["stride"][0] > 1)):
        return _by_phases(maps, weight, a["stride"][0], padding, extra)
    if rank == 2:  # the CPU kernels are several times as fast with channels last
        maps, weight = (x.contiguous(memory_format=torch.channels_last) for x in (maps, weight))
    return TRANSPOSE[rank](maps, weight, None, a["stride"], padding, extra, a["groups"], a["dilation"])


def _by_phases(maps: Tensor, weight: Tensor, stride: int, padding: Sequence[int], extra: Sequence[int]) -> Tensor:
    """A transposed convolution as a convolution: outputs that agree modulo the stride form one channel of it each."""
    outputs, inputs, *kernel = weight.shape
    taps = [-(-k // stride) for k in kernel]
    whole = F.pad(weight, (0, taps[1] * stride - kernel[1], 0, taps[0] * stride - kernel[0]))
    phases = whole.reshape(outputs, inputs, taps[0], stride, taps[1], stride).permute(1, 3, 5, 0, 2, 4)
    phases = phases.reshape(inputs * stride * stride, outputs, *taps).flip(2, 3)
    together = F.conv2d(maps, phases.contiguous(memory_format=torch.channels_last), None, 1, (taps[0] - 1, taps[1] - 1))
    full = F.pixel_shuffle(together, stride)
    size = [(n - 1) * stride - 2 * p + k + e for n, p, k, e in zip(maps.shape[2:], padding, kernel, extra, strict=True)]
    short = [max(0, p + n - have) for p, n, have in zip(padding, size, full.shape[2:], strict=True)]
    full = F.pad(full, (0, short[1], 0, short[0])) if any(short) else full
    return full[:, :, padding[0] : padding[0] + size[0], padding[1] : padding[1] + size[1]]


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
    x = transposed(_fold(A, rank), node, a["padding"], lost)
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
