"""Elementwise bounds, and what every region shares: flat views, products, checks of what users give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from verifier.errors import InputError
from verifier.specs.rounding import float32_within, narrow

EXTREME_SHARE = 4  # every fourth sample is an extreme point


@dataclass(frozen=True, eq=False)
class Box:
    """Elementwise bounds: an input set and an interval of activations alike.

    The constructor checks nothing, since bounding makes many of these; `Box.checked` is for what users give.

    Args:
        lower, upper: (B, *X), finite, lower <= upper. Where a bound that was written down is not a float64
            these are rounded outwards, so the box contains the set that was meant.
        inner_lower, inner_upper: the same bounds rounded inwards, (B, *X) float64; None where nothing was
            rounded. Where the set that was meant holds no float64 at all (``x = 0.1``) both are the float64
            nearest to it.
    """

    lower: Tensor
    upper: Tensor
    inner_lower: Tensor | None = None
    inner_upper: Tensor | None = None

    @classmethod
    def checked(cls, lower: Tensor, upper: Tensor, where: str = "input region") -> Box:
        """A box of bounds that came from outside.

        Raises:
            InputError: shapes differ, a bound is NaN or infinite, or lower > upper; names the first coordinate
                (as ``X_i``, i counted over the flattened X).
        """
        check_bounds(lower, upper, where)
        return cls(lower, upper)

    @property
    def batch(self) -> int:
        return self.lower.shape[0]

    @cached_property
    def half(self) -> Tensor:
        """Half widths (B, *X)."""
        return (self.upper - self.lower) / 2

    def minimum(self, A: Tensor) -> Tensor:
        """``min <A, x>``: A (B, S, *X) -> (B, S), exact up to rounding; either batch may be 1.

        Differentiable in A (the gradient is the minimiser) and in the bounds.
        """
        coefficients = flat_rows(A)
        lower, upper = flat(self.lower), flat(self.upper)
        nearest = pair(coefficients, (lower + upper) / 2)
        return nearest - pair(coefficients.abs(), (upper - lower) / 2)

    def project(self, x: Tensor) -> Tensor:
        """The nearest point of the box: x (R, B, *X) clipped."""
        return torch.minimum(torch.maximum(x, self.lower), self.upper)

    def contains(self, x: Tensor) -> Tensor:
        """Whether each x (R, B, *X) lies in the box: bool (R, B), zero tolerance."""
        return flat_rows((x >= self.lower) & (x <= self.upper)).all(-1)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, B, *X): uniform points; the first of every four is a random corner instead."""
        share = random((count, *self.lower.shape), generator, self.lower)
        share[::EXTREME_SHARE] = share[::EXTREME_SHARE].round()
        return self.project(torch.lerp(self.lower, self.upper, share))  # exact at both ends

    def enclosing_box(self) -> Box:
        return self

    def witness(self, x: np.ndarray) -> np.ndarray | None:
        """The point nearest to a candidate that the network can be given.

        Networks compute in float32, so every coordinate is a float32 value inside the *inner* bounds. A
        coordinate whose interval holds no float32 value becomes a float64 inside it; where the interval holds
        no float64 either, since a decimal like 0.1 is fixed, it becomes the float64 nearest to that decimal.

        Args:
            x: (*X), any float type.

        Returns:
            float64 (*X), or None for an empty interval or a candidate with a NaN.
        """
        check_as_read(self.lower)
        low = as_numpy(self.lower if self.inner_lower is None else self.inner_lower)
        high = as_numpy(self.upper if self.inner_upper is None else self.inner_upper)
        candidate = np.asarray(x, dtype=np.float64).reshape(low.shape)
        if np.isnan(candidate).any() or (low > high).any():
            return None
        return float32_within(candidate, low, high)

    def to(self, dtype: torch.dtype, device: torch.device | str) -> Box:
        """The box in another precision, rounded outwards. Inner bounds are kept while it stays in float64."""
        lower = narrow(self.lower, dtype, device, -torch.inf)
        upper = narrow(self.upper, dtype, device, torch.inf)
        if dtype != torch.float64 or self.inner_lower is None or self.inner_upper is None:
            return Box(lower, upper)
        return Box(lower, upper, self.inner_lower.to(device), self.inner_upper.to(device))

    def select(self, index: Tensor) -> Box:
        inner_lower = None if self.inner_lower is None else self.inner_lower[index]
        inner_upper = None if self.inner_upper is None else self.inner_upper[index]
        return Box(self.lower[index], self.upper[index], inner_lower, inner_upper)

    def reshape(self, shape: Sequence[int]) -> Box:
        whole = (self.batch, *shape)
        inner_lower = None if self.inner_lower is None else self.inner_lower.reshape(whole)
        inner_upper = None if self.inner_upper is None else self.inner_upper.reshape(whole)
        return Box(self.lower.reshape(whole), self.upper.reshape(whole), inner_lower, inner_upper)


def overlap(one: Box, other: Box) -> Box:
    """What two boxes (B, *X) of the same values have in common; ends that rounding has swapped are swapped back."""
    lower, upper = torch.maximum(one.lower, other.lower), torch.minimum(one.upper, other.upper)
    return Box(torch.minimum(lower, upper), torch.maximum(lower, upper))


def magnitude(box: Box) -> Tensor:
    """The largest absolute values (B, *X) in a box."""
    return torch.maximum(box.lower.abs(), box.upper.abs())


def flat(x: Tensor) -> Tensor:
    """(B, *X) -> (B, n); X may be the empty shape."""
    return x.reshape(x.shape[0], -1)


def flat_rows(A: Tensor) -> Tensor:
    """(B, S, *X) -> (B, S, n)."""
    return A.reshape(A.shape[0], A.shape[1], -1)


def pair(A: Tensor, x: Tensor) -> Tensor:
    """``<A, x>``: (B, S, n), (B, n) -> (B, S), either batch may be 1; the cheapest product for each case."""
    if x.shape[0] == 1:
        return A @ x[0]
    if A.shape[0] == 1:
        return x @ A[0].T
    return torch.linalg.vecdot(A, x.unsqueeze(1))


def random(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Uniform numbers in [0, 1) in the precision and on the device of ``like``."""
    return torch.rand(shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)


def as_numpy(field: Tensor) -> np.ndarray:
    """The one entry of a batch of size 1: (1, *X) -> (*X)."""
    return field[0].detach().cpu().numpy()


def check_as_read(field: Tensor) -> None:
    """A witness is found for one region in full precision only; anything else is a mistake of the caller."""
    if field.shape[0] != 1 or field.dtype != torch.float64:
        raise ValueError("witness() needs the region as it was read: batch size 1, float64")


def check_bounds(lower: Tensor, upper: Tensor, where: str, what: str = "contradictory bounds") -> None:
    """Refuse bounds (B, *X) that are not finite numbers of one shape with lower <= upper.

    Raises:
        InputError: names the first coordinate at fault.
    """
    if lower.shape != upper.shape:
        shapes = f"{tuple(lower.shape)} and {tuple(upper.shape)}"
        raise InputError(where, f"the bounds have shapes {shapes}", "give both the same shape")
    if lower.numel() > 0:  # one look suffices where all is well: NaN and infinity show in the width
        least, widest = (upper - lower).aminmax()
        if least >= 0 and widest < torch.inf:
            return
    for bound in (lower, upper):
        if not bool(bound.isfinite().all()):
            _, place = _first(~bound.isfinite())
            raise InputError(where, f"X_{place} is not finite", "replace NaN and infinite values by numbers")
    if not bool((lower <= upper).all()):
        row, place = _first(lower > upper)
        low, high = float(flat(lower)[row, place]), float(flat(upper)[row, place])
        raise InputError(where, f"{what}: X_{place} would need {low!r} <= {high!r}", "correct one of the two")


def _first(wrong: Tensor) -> tuple[int, int]:
    """Batch entry and flat index of the first True."""
    place = int(flat(wrong).int().argmax())
    return divmod(place, max(1, flat(wrong).shape[1]))
