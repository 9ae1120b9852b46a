"""The change of units ``(x - mean) / std`` between data and a network's input, with directed rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from verifier.errors import InputError
from verifier.specs.rounding import add_directed, divide_directed


@dataclass(frozen=True, eq=False)
class Affine:
    """``(x - mean) / std``.

    Args:
        mean, std: float64, broadcastable to x; std positive.
    """

    mean: np.ndarray
    std: np.ndarray

    @property
    def identity(self) -> bool:
        return bool((self.mean == 0).all() and (self.std == 1).all())

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """In float64, rounded to nearest twice."""
        return (x - self.mean) / self.std

    def directed(self, x: np.ndarray, towards: float) -> np.ndarray:
        """Rounded down (``towards=-inf``) or up (``towards=inf``); infinite values stay."""
        moved = x - self.mean if np.isinf(x).any() else add_directed(x, -self.mean, towards)
        return divide_directed(moved, self.std, towards)

    def error(self, x: np.ndarray) -> np.ndarray:
        """What `__call__` may be off by at most, per coordinate."""
        return (np.spacing(np.abs(x - self.mean)) / self.std + np.spacing(np.abs(self(x)))) / 2

    def common_scale(self) -> float | None:
        """The std that all channels share, if they do."""
        first = float(self.std.reshape(-1)[0])
        return first if bool((self.std == first).all()) else None


def affine(shape: tuple[int, ...], mean: float | Sequence[float] | None, std: float | Sequence[float] | None) -> Affine:
    """The change of units for inputs of a shape.

    Args:
        shape: of the input.
        mean, std: a number, or one for each entry of the channel axis: the first axis of that length. None: 0 and 1.

    Raises:
        InputError: no axis fits, a number is not finite, or std is not positive.
    """
    middle = _per_channel(shape, 0.0 if mean is None else mean, "--mean")
    scale = _per_channel(shape, 1.0 if std is None else std, "--std")
    if not (scale > 0).all():
        raise InputError("--std", f"{scale.min():g} is not positive", "give the standard deviation of each channel")
    return Affine(middle, scale)


def _per_channel(shape: tuple[int, ...], values: float | Sequence[float], where: str) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        raise InputError(where, f"{values!r} is not a list of numbers", "give one for each channel") from None
    if array.size == 0 or not np.isfinite(array).all():
        raise InputError(where, "needs finite numbers", "give one, or one for each channel")
    if array.size == 1:
        return array.reshape([1] * len(shape))
    if array.size not in shape:
        what = f"{array.size} numbers, but no axis of the input {tuple(shape)} has as many"
        raise InputError(where, what, "give one for each channel, and the input with its channel axis")
    axis = shape.index(array.size)
    return array.reshape([-1 if i == axis else 1 for i in range(len(shape))])
