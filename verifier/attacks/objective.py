"""The margin of a property, and the loss that an attack descends.

Axes: R restarts, P properties, K unsafe polytopes of a property, S rows of a polytope, ``*Y`` outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from verifier.specs.property import Polytope, Property

_NEVER = 1e30  # margin of a polytope that is only padding


@dataclass(frozen=True)
class Objective:
    """The unsafe polytopes of P properties, padded to equal numbers of polytopes and rows.

    A padding row always holds, a padding polytope never does.

    Args:
        C: (P, K, S, Y) coefficients on the flat output.
        d: (P, K, S) right-hand sides, the inner ones, which a witness has to meet.
        count: (P,) int64, number of real polytopes of each property.
    """

    C: Tensor
    d: Tensor
    count: Tensor

    @staticmethod
    def of(
        properties: Sequence[Property], dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
    ) -> Objective:
        """The objective of several properties of one network."""
        distinct = {id(prop.unsafe): prop.unsafe for prop in properties}  # many inputs share a few labels
        polytopes = max(len(unsafe) for unsafe in distinct.values())
        rows = max(len(polytope.d) for unsafe in distinct.values() for polytope in unsafe)
        outputs = properties[0].unsafe[0].C.shape[1]
        C = np.zeros((len(distinct), polytopes, rows, outputs))
        d = np.full((len(distinct), polytopes, rows), -_NEVER)
        for p, unsafe in enumerate(distinct.values()):
            for k, polytope in enumerate(unsafe):
                n = len(polytope.d)
                C[p, k, :n], d[p, k, :n], d[p, k, n:] = polytope.C, _inner(polytope), _NEVER
        count = torch.tensor([len(unsafe) for unsafe in distinct.values()], device=device)
        parts = Objective(torch.from_numpy(C).to(device, dtype), torch.from_numpy(d).to(device, dtype), count)
        if len(distinct) == len(properties):
            return parts
        place = {key: p for p, key in enumerate(distinct)}
        return parts.select(torch.tensor([place[id(prop.unsafe)] for prop in properties], device=device))

    def select(self, index: Tensor) -> Objective:
        """The objective of some of the properties (int64 indices)."""
        return Objective(self.C[index], self.d[index], self.count[index])

    def rows(self, y: Tensor) -> Tensor:
        """``C y - d`` of every row, (R, P, K, S), for outputs y (R, P, *Y)."""
        return torch.einsum("pksy,rpy->rpks", self.C, y.flatten(2)) - self.d

    @staticmethod
    def margins(rows: Tensor) -> Tensor:
        """(R, P): min over polytopes of max over rows; the property is violated where it is <= 0."""
        return rows.amax(-1).amin(-1)

    @staticmethod
    def hinge(rows: Tensor, target: Tensor, push: Tensor) -> Tensor:
        """(R, P): what the target polytope lacks, ``sum_s max(row_s + push, 0)``.

        Args:
            rows: (R, P, K, S)
            target: (R, P) int64: a polytope, or -1 for the one that is nearest at the moment.
            push: (P,) how far beyond the boundary to go.
        """
        nearest = rows.detach().amax(-1).argmin(-1)
        chosen = torch.where(target < 0, nearest, target)[..., None, None].expand(*rows.shape[:2], 1, rows.shape[-1])
        return (rows.gather(2, chosen).squeeze(2) + push[:, None]).clamp(min=0).sum(-1)


def margin(prop: Property, y: np.ndarray) -> float:
    """Margin of one output y (*Y): <= 0 iff it lies in an unsafe polytope of the property."""
    return float(margins(prop.unsafe, np.reshape(y, (1, -1)))[0])


def margins(unsafe: Sequence[Polytope], y: np.ndarray) -> np.ndarray:
    """Margins (N,) of outputs y (N, Y)."""
    y = np.asarray(y, dtype=np.float64)
    return np.min([(y @ polytope.C.T - _inner(polytope)).max(1) for polytope in unsafe], axis=0)


def _inner(polytope: Polytope) -> np.ndarray:
    return polytope.d if polytope.d_inner is None else polytope.d_inner
