"""The interval of a layer that is linear in its weights: its radius goes by their absolute values.

Gowal et al. 2018, arXiv 1810.12715, equation (6). Few passes over the values are made: the halves are taken of the
weights, and the gradient is written by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from verifier.specs.region import Box


def affine_interval(
    layer: Callable[[Tensor, Tensor, Tensor | None], Tensor], box: Box, weight: Tensor, bias: Any
) -> Box:
    """Image of a box.

    Args:
        layer: ``(x, weight, bias) -> y``, linear in x for bias None, and in weight.
    """
    half = weight / 2
    total, width = _Sums.apply(box.lower, box.upper)  # type: ignore[misc]
    return Box(*_Ends.apply(layer(total, half, bias), layer(width, half.abs(), None)))  # type: ignore[misc]


class _Sums(torch.autograd.Function):
    """``(lower + upper, upper - lower)``"""

    @staticmethod
    def forward(ctx: Any, lower: Tensor, upper: Tensor):
        return _strided(lower + upper, lower), _strided(upper - lower, lower)

    @staticmethod
    def backward(ctx: Any, total: Tensor, width: Tensor):  # type: ignore[override]
        return total - width, total + width


class _Ends(torch.autograd.Function):
    """``(centre - radius, centre + radius)``"""

    @staticmethod
    def forward(ctx: Any, centre: Tensor, radius: Tensor):
        return centre - radius, centre + radius

    @staticmethod
    def backward(ctx: Any, lower: Tensor, upper: Tensor):  # type: ignore[override]
        return lower + upper, upper - lower


def _strided(x: Tensor, like: Tensor) -> Tensor:
    """x with the strides of another tensor of its shape and order in memory.

    They differ where axes of length one are. Convolutions read off those whether channels are the last axis, and torch
    forgets it in a sum.
    """
    if x.stride() == like.stride() or not (x.is_contiguous() and like.is_contiguous()):
        return x
    return x.as_strided(x.shape, like.stride())
