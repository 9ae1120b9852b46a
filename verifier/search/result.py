"""What a search is asked and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

#: (number of the property in the batch, point (*X)) -> whether it is a counterexample, which ends the search
Replay = Callable[[int, Tensor], bool]


@dataclass(frozen=True)
class SearchOptions:
    """How to search.

    Args:
        memory: bytes that open subproblems may take.
        batch_bytes: memory that the coefficients of one batch take in the widest layer: what stays in the cache of
            a processor measures fastest.
        input_dimensions: sets with at most this many free coordinates are split in the input first.
        candidates: points handed to the replay per batch at most.
    """

    memory: int = 4 << 30
    batch_bytes: int = 8 << 20
    input_dimensions: int = 20
    candidates: int = 2


@dataclass(frozen=True)
class SearchResult:
    """Where a search ended.

    Args:
        margins: (B,) certified lower bound of every property's margin.
        proved: (B,) bool, every subproblem of the property is closed.
        falsified: a candidate was confirmed as a counterexample.
        subproblems: how many were bounded.
    """

    margins: Tensor
    proved: Tensor
    falsified: bool
    subproblems: int
