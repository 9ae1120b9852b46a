"""What is to be proved: no point of a region is mapped into any unsafe polytope."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verifier.specs.region import Region


@dataclass(frozen=True)
class Polytope:
    """The set of flat outputs y with every row ``C y <= d``.

    Args:
        C: (S, Y) float64, exact.
        d: (S,) float64, rounded up: the polytope contains the one that was written down.
        d_inner: (S,) float64, rounded down; a witness has to meet these. Defaults to `d` (exact).
    """

    C: np.ndarray
    d: np.ndarray
    d_inner: np.ndarray | None = None

    def contains(self, y: np.ndarray) -> bool:
        """Whether flat output y (Y,) certainly lies in the polytope as written (zero tolerance)."""
        inner = self.d if self.d_inner is None else self.d_inner
        return bool((self.C @ np.asarray(y, dtype=np.float64).reshape(-1) <= inner).all())


@dataclass(frozen=True)
class Property:
    """Violated iff some x of the region has its output in one of the unsafe polytopes.

    Args:
        region: one input set (batch size 1).
        unsafe: at least one polytope.
    """

    region: Region
    unsafe: tuple[Polytope, ...]


@dataclass(frozen=True)
class Query:
    """A union of properties: violated iff one of them is. VNN-LIB files with several input boxes need it."""

    properties: tuple[Property, ...]
    name: str = ""
