"""Directed rounding: numbers that lie on the safe side of the one that was meant."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def narrow(x: Tensor, dtype: torch.dtype, device: torch.device | str, towards: float) -> Tensor:
    """``x`` in another precision, rounded down (``towards=-inf``) or up (``towards=inf``); same shape."""
    near = x.to(dtype)
    if dtype.itemsize < x.dtype.itemsize:
        back = near.to(x.dtype)
        wrong = back > x if towards < 0 else back < x
        near = torch.where(wrong, torch.nextafter(near, torch.full_like(near, towards)), near)
    return near.to(device)


def outward(x: Tensor, towards: float) -> Tensor:
    """The float next to ``x`` in the direction ``towards`` (-inf or inf); covers one rounded operation."""
    return torch.nextafter(x, torch.full_like(x, towards))


def add_directed(a: np.ndarray, b: np.ndarray, towards: float) -> np.ndarray:
    """``a + b`` in float64, rounded down (``towards=-inf``) or up (``towards=inf``).

    The rounding error of a float sum is itself a float (Knuth's TwoSum), so exact sums stay as they are.
    """
    total = a + b
    rest = total - a
    error = (a - (total - rest)) + (b - rest)
    wrong = error < 0 if towards < 0 else error > 0
    return np.where(wrong, np.nextafter(total, towards), total)


def divide_directed(a: np.ndarray, b: np.ndarray, towards: float) -> np.ndarray:
    """``a / b`` in float64, the float next to the rounded quotient in the direction ``towards`` (-inf or inf).

    The quotient itself where it is known to be exact: b = 1 or a = 0.
    """
    quotient = a / b
    exact = (b == 1) | (a == 0)
    return np.where(exact, quotient, np.nextafter(quotient, towards))


def float32_within(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The float32 value in [low, high] nearest to ``x``, as float64; ``x`` clipped where there is none.

    Args:
        x: float64, any shape.
        low, high: float64, shape of x, low <= high.
    """
    inside = np.clip(x, low, high)
    with np.errstate(over="ignore"):  # beyond float32's range: infinite, and found to be outside below
        near = inside.astype(np.float32)
    down = np.nextafter(near, np.float32(-np.inf)).astype(np.float64)
    up = np.nextafter(near, np.float32(np.inf)).astype(np.float64)
    near = near.astype(np.float64)
    near = np.where(near < low, up, np.where(near > high, down, near))
    return np.where((near >= low) & (near <= high), near, inside)
