"""What the flags of `verify` ask for, checked as far as that needs no file."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from verifier.errors import InputError


class Norm(StrEnum):
    """The norms of ``--norm``."""

    INF = "inf"
    TWO = "2"
    ONE = "1"


#: data sets have far fewer inputs; the limit keeps a mistyped range from filling the memory
_RANGE = re.compile(r"([0-9]{1,6})(?::([0-9]{1,6}))?")


@dataclass(frozen=True)
class Inputs:
    """Queries of robustness around inputs of a data set.

    Args:
        dataset: a name, or a path that ends in ``.npz``.
        indices: which inputs, each a query.
        epsilon: radius in the unit of the data.
        targets: the class that must not be reached, or None for every other class.
        clip: whether the input stays in [0, 1].
        mean, std: per-channel normalisation between the data and the network, or None.
        folder: where the standard files are, or None for the usual places.
    """

    dataset: str
    indices: tuple[int, ...]
    epsilon: float
    norm: Norm
    targets: int | None
    clip: bool
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    folder: Path | None


@dataclass(frozen=True)
class Request:
    """One call of `verify`: the network, and a specification or inputs of a data set."""

    network: Path
    what: Path | Inputs

    @property
    def count(self) -> int:
        """How many queries it holds."""
        return len(self.what.indices) if isinstance(self.what, Inputs) else 1


def parse_indices(text: str) -> tuple[int, ...]:
    """``7``, ``0:20`` (0 to 19) and lists of these with commas.

    Raises:
        InputError: something else, or nothing at all.
    """
    indices: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise InputError(f"--index {text}", f"'{part}' is not an index or a range", "write 7, 0:20 or 3,5,10:20")
        first = int(match[1])
        indices += range(first, first + 1 if match[2] is None else int(match[2]))
    if not indices:
        raise InputError(f"--index {text}", "selects no input", "the end of a range is not part of it: 0:1 is input 0")
    return tuple(dict.fromkeys(indices))


def parse_epsilon(text: str) -> float:
    """``0.03``, ``1e-3`` or ``8/255``.

    Raises:
        InputError: not a number, or negative.
    """
    value = _number(text)
    if value is None:
        raise InputError(f"--epsilon {text}", "is not a number", "write 0.03 or 8/255")
    if value < 0:
        raise InputError(f"--epsilon {text}", "is negative", "a radius is 0 or larger")
    return value


def parse_targets(text: str) -> int | None:
    """``all``, or one class.

    Raises:
        InputError: neither.
    """
    if text == "all":
        return None
    if not re.fullmatch("[0-9]{1,9}", text):
        raise InputError(f"--targets {text}", "is neither 'all' nor a class", "write all, or a number such as 3")
    return int(text)


def parse_channels(text: str | None, flag: str) -> tuple[float, ...] | None:
    """Comma-separated finite numbers, one per channel, or one for all.

    Raises:
        InputError: something else.
    """
    if text is None:
        return None
    values = tuple(value for part in text.split(",") if (value := _number(part)) is not None)
    if len(values) != text.count(",") + 1:
        raise InputError(f"{flag} {text}", "is not a list of numbers", "write 0.49,0.48,0.45")
    return values


def _number(text: str) -> float | None:
    """A finite decimal or a quotient of two, else None."""
    try:
        above, slash, below = text.partition("/")
        value = float(above) / (float(below) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        return None
    return value if math.isfinite(value) else None
