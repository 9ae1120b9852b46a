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
    flat = [None if x is None else flat_rows(x) for x in (whole, *lower, *upper)]
    coefficients, constant = _Relax.apply(*flat)  # type: ignore[misc]
    coefficients = coefficients.reshape(whole.shape)
    coefficients = coefficients.movedim(-1, -3) if last else coefficients
    return coefficients, constant if lower[1] is not None or upper[1] is not None else None


def _channels_last(A: Tensor) -> bool:
    """Whether maps (..., C, H, W) lie in memory with their channels together."""
    return A.dim() >= 5 and A.shape[-3] > 1 and A.stride(-3) == 1 and not A.is_contiguous()


class _Relax(torch.autograd.Function):
    """All arguments flat: A (B, S, n), lines (B, S, n) or (B, 1, n)."""

    @staticmethod
    def forward(ctx: Any, A: Tensor, slope_l: Tensor, icept_l: Tensor | None, slope_u: Tensor, icept_u: Tensor | None):
        ctx.save_for_backward(A, slope_l, icept_l, slope_u, icept_u)
        positive, negative = A.clamp(min=0), A.clamp(max=0)
        constant = A.new_zeros(A.shape[:2])
        if icept_u is not None:
            constant = constant + _inner(negative, icept_u)
        if icept_l is not None:
            constant = constant + _inner(positive, icept_l)
        # one product each: through `slope_u - slope_l` a flat line would be as inexact as a steep one beside it
        return (negative * slope_u).addcmul_(positive, slope_l), constant

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_constant: Tensor):  # type: ignore[override]
        A, slope_l, icept_l, slope_u, icept_u = ctx.saved_tensors
        needs = ctx.needs_input_grad
        below = A < 0
        outer = grad_constant.unsqueeze(2)
        grad_A = None
        if needs[0]:
            grad_A = grad * torch.where(below, slope_u, slope_l)
            if icept_l is not None or icept_u is not None:
                none = A.new_zeros(1, 1, 1)
                high, low = (none if x is None else x for x in (icept_u, icept_l))
                grad_A.addcmul_(outer, torch.where(below, high, low))
        grads: list[Tensor | None] = [grad_A]
        for line, intercept, part in ((slope_l, icept_l, A.clamp(min=0)), (slope_u, icept_u, A.clamp(max=0))):
            position = len(grads)
            grads.append(_like(grad * part, line) if needs[position] else None)
            grads.append(_like(outer * part, intercept) if intercept is not None and needs[position + 1] else None)
        return tuple(grads)


def _like(grad: Tensor, line: Tensor) -> Tensor:
    """Sum over the rows that share a line."""
    return grad.sum(1, keepdim=True) if line.shape[1] == 1 and grad.shape[1] != 1 else grad


def _inner(part: Tensor, intercept: Tensor) -> Tensor:
    """``<part, intercept>`` over the neurons (B, S), without the product in memory where rows share the intercept."""
    return torch.linalg.vecdot(part, intercept)
