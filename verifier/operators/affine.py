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
        return _sum_and_difference(lower, upper)

    @staticmethod
    def backward(ctx: Any, total: Tensor, width: Tensor):  # type: ignore[override]
        upper, lower = _sum_and_difference(width, total)
        return lower, upper


class _Ends(torch.autograd.Function):
    """``(centre - radius, centre + radius)``"""

    @staticmethod
    def forward(ctx: Any, centre: Tensor, radius: Tensor):
        upper, lower = _sum_and_difference(radius, centre)
        return lower, upper

    @staticmethod
    def backward(ctx: Any, lower: Tensor, upper: Tensor):  # type: ignore[override]
        return _sum_and_difference(lower, upper)


def _sum_and_difference(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """``(one + other, other - one)`` of tensors of one shape.

    The layout of the first is kept, that of axes of length one as well: convolutions read off those whether a single
    channel is the last axis, and torch forgets it in a sum.
    """
    return torch.add(one, other, out=torch.empty_like(one)), torch.sub(other, one, out=torch.empty_like(one))
