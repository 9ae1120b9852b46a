"""What an attack on many inputs has to reach: how far outputs are from each unsafe polytope, and where that falls.

Axes: A inputs of a batch, K unsafe polytopes of a property, S rows of a polytope, Y outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from verifier.attacks.objective import Objective

_NEVER = 1e30  # value of a polytope that is only padding


class Goal(Protocol):
    """The unsafe polytopes of A properties, padded to equal numbers of them."""

    @property
    def count(self) -> Tensor: ...  # (A,) int64: the real polytopes of each property
    @property
    def outputs(self) -> int: ...  # Y
    def values(self, y: Tensor) -> Tensor: ...  # (A, Y) -> (A, K): an output lies inside where it is <= 0
    def slope(self, y: Tensor, polytope: Tensor) -> Tensor: ...  # (A, Y), (A,) int64 -> (A, Y): derivative of a value
    def select(self, index: Tensor) -> Goal: ...  # of some of the properties (int64 indices)


@dataclass(frozen=True, eq=False)
class Classes:
    """Each polytope is ``y[label] <= y[rival]``: a class is compared with others.

    Args:
        label: (A, 1) int64.
        rivals: (A, K) int64; where there are fewer, the first one again.
        padding: (A, K), what is added to the value of each: zero, or a huge number where it is only padding.
        one: (A, Y), one at the label, else zero.
        others: (A, Y), zero at the rivals, minus infinity elsewhere.
        count: (A,) int64.
    """

    label: Tensor
    rivals: Tensor
    padding: Tensor
    one: Tensor
    others: Tensor
    count: Tensor

    @staticmethod
    def of(objective: Objective) -> Classes | None:
        """An objective that only compares one class with others, None if it does anything else."""
        C, d, count = objective.C, objective.d, objective.count
        if d.shape[2] != 1:
            return None
        C, d = C[:, :, 0], d[:, :, 0]
        real = torch.arange(C.shape[1], device=C.device) < count.unsqueeze(1)
        label, rivals = C.argmax(-1), C.argmin(-1)
        one = torch.zeros_like(C).scatter(2, label.unsqueeze(2), 1.0)
        compares = ((C == one.scatter_add(2, rivals.unsqueeze(2), -torch.ones_like(C[:, :, :1]))).all(-1)) & (d == 0)
        if not bool(((compares & (label == label[:, :1])) | ~real).all()):
            return None
        padding = torch.zeros_like(d).masked_fill(~real, _NEVER)
        rivals = torch.where(real, rivals, rivals[:, :1])
        others = torch.full_like(C[:, 0], -torch.inf).scatter(1, rivals, 0.0)
        return Classes(label[:, :1], rivals, padding, one[:, 0], others, count)

    @property
    def outputs(self) -> int:
        return self.one.shape[1]

    def values(self, y: Tensor) -> Tensor:
        return y.gather(1, self.label) - y.gather(1, self.rivals) + self.padding

    def slope(self, y: Tensor, polytope: Tensor) -> Tensor:
        rival = self.rivals.gather(1, polytope.unsqueeze(1))
        return self.one.scatter(1, rival, -1.0)

    def select(self, index: Tensor) -> Classes:
        parts = (self.label, self.rivals, self.padding, self.one, self.others, self.count)
        return Classes(*(part[index] for part in parts))


@dataclass(frozen=True, eq=False)
class Polytopes:
    """Any polytopes: the value of one is its largest row."""

    objective: Objective

    @property
    def count(self) -> Tensor:
        return self.objective.count

    @property
    def outputs(self) -> int:
        return self.objective.C.shape[-1]

    def values(self, y: Tensor) -> Tensor:
        return self.objective.rows(y.unsqueeze(0))[0].amax(-1)

    def slope(self, y: Tensor, polytope: Tensor) -> Tensor:
        each = torch.arange(len(y), device=y.device)
        row = self.objective.rows(y.unsqueeze(0))[0, each, polytope].argmax(-1)
        return self.objective.C[each, polytope, row]

    def select(self, index: Tensor) -> Polytopes:
        return Polytopes(self.objective.select(index))
