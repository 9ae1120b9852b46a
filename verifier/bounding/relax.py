"""The step of the dual function through an activation, with its gradient written by hand.

It is the hot loop of the engine, and bound by memory traffic: so it makes few passes over the coefficients and keeps
nothing for the gradient but its own arguments.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from verifier.relaxations.envelope import Line
from verifier.specs.box import flat_rows

#: memory that the coefficients of one group take: several such lie in a core's cache
CACHE_BYTES = 1 << 18


def relax(A: Tensor, lower: Line, upper: Line) -> tuple[Tensor, Tensor | None]:
    """Replace an activation by lines: a positive coefficient takes the lower line, a negative one the upper.

    Args:
        A: (B, S, *X) coefficients on the activation's output; B may be 1.
        lower, upper: slope and intercept, (B, S, *X) or (B, 1, *X).

    Returns:
        Coefficients on the activation's input, and the constant (B, S) (None for zero).
    """
    batch = max(A.shape[0], lower[0].shape[0])
    whole = A.expand(batch, *A.shape[1:])
    if last := _channels_last(whole):  # convolutions give and take coefficients in this order: stay in it
        whole = whole.movedim(-3, -1)
        lower, upper = ((x[0].movedim(-3, -1), None if x[1] is None else x[1].movedim(-3, -1)) for x in (lower, upper))
    flat = [None if x is None else flat_rows(x).expand(batch, -1, -1) for x in (whole, *lower, *upper)]
    coefficients, constant = _Relax.apply(*flat)  # type: ignore[misc]
    coefficients = coefficients.reshape(whole.shape)
    coefficients = coefficients.movedim(-1, -3) if last else coefficients
    return coefficients, constant if lower[1] is not None or upper[1] is not None else None


def _channels_last(A: Tensor) -> bool:
    """Whether maps (..., C, H, W) lie in memory with their channels together."""
    return A.dim() >= 5 and A.shape[-3] > 1 and A.stride(-3) == 1 and not A.is_contiguous()


class _Relax(torch.autograd.Function):
    """All arguments flat: A (B, S, n), lines (B, S, n) or (B, 1, n).

    A few elements of the batch are taken at a time, so that what lies between stays in the processor's cache.
    """

    @staticmethod
    def forward(ctx: Any, A: Tensor, slope_l: Tensor, icept_l: Tensor | None, slope_u: Tensor, icept_u: Tensor | None):
        ctx.save_for_backward(A, slope_l, icept_l, slope_u, icept_u)
        out, constant = torch.empty_like(A, memory_format=torch.contiguous_format), A.new_zeros(A.shape[:2])
        for part in _groups(A):
            a, low, high, low_0, high_0 = A[part], slope_l[part], slope_u[part], _of(icept_l, part), _of(icept_u, part)
            positive, negative = a.clamp(min=0), a.clamp(max=0)
            if high_0 is not None:
                constant[part] += _inner(negative, high_0)
            if low_0 is not None:
                constant[part] += _inner(positive, low_0)
            # one product each: through `slope_u - slope_l` a flat line would be as inexact as a steep one beside it
            torch.mul(negative, high, out=out[part]).addcmul_(positive, low)
        return out, constant

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_constant: Tensor):  # type: ignore[override]
        A, *lines = ctx.saved_tensors
        needs = ctx.needs_input_grad
        on_A = torch.empty_like(A, memory_format=torch.contiguous_format) if needs[0] else None
        on_lines = [
            None if x is None or not need else torch.empty_like(x) for x, need in zip(lines, needs[1:], strict=True)
        ]
        for part in _groups(A):
            a, up, outer = A[part], grad[part], grad_constant[part]
            low, high, low_0, high_0 = lines[0][part], lines[2][part], _of(lines[1], part), _of(lines[3], part)
            if on_A is not None:  # masks are factors here: `torch.where` takes ten times as long on a CPU
                below = torch.lt(a, 0, out=torch.empty_like(a))
                high_part = up * below
                torch.mul(up - high_part, low, out=on_A[part]).addcmul_(high_part, high)
                if low_0 is not None:
                    on_A[part].addcmul_(outer.unsqueeze(2) * (1 - below), low_0)
                if high_0 is not None:
                    on_A[part].addcmul_(below.mul_(outer.unsqueeze(2)), high_0)
            for (slope, intercept), side in ((on_lines[:2], a.clamp(min=0)), (on_lines[2:], a.clamp(max=0))):
                if intercept is not None:
                    # summed over rows by a product of matrices, where these share the line
                    shared = intercept.shape[1] == 1
                    intercept[part] = outer.unsqueeze(1) @ side if shared else outer.unsqueeze(2) * side
                if slope is not None:
                    product = side.mul_(up)
                    slope[part] = product.sum(1, keepdim=True) if slope.shape[1] == 1 else product
        return on_A, *on_lines


def _groups(A: Tensor) -> list[slice]:
    """Elements of the batch that are taken together."""
    size = len(A) if A.device.type != "cpu" else max(1, CACHE_BYTES // max(1, A[0].numel() * A.element_size()))
    return [slice(start, start + size) for start in range(0, len(A), size)]


def _of(x: Tensor | None, part: slice) -> Tensor | None:
    return None if x is None else x[part]


def _inner(part: Tensor, intercept: Tensor) -> Tensor:
    """``<part, intercept>`` over the neurons (B, S), without the product in memory where rows share the intercept."""
    return torch.linalg.vecdot(part, intercept)
