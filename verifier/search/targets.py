"""Rows and polytopes of a batch of properties, looked up by number without Python loops."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.bounding.dual import Objective
from verifier.bounding.rows import Rows


@dataclass(frozen=True)
class Targets:
    """The rows of B properties.

    Args:
        node: name of the network's output.
        C, offset: (B, S, *Y) and (B, S).
        member: (B, P, S) bool: the row is one of the polytope's.
        present: (B, P) bool: the property has that polytope.
    """

    node: str
    C: Tensor
    offset: Tensor
    member: Tensor
    present: Tensor

    @classmethod
    def of(cls, rows: Rows) -> Targets:
        C, offset = rows.objective.C, rows.objective.offset
        count = torch.tensor(rows.polytopes, device=C.device)
        numbers = torch.arange(max(rows.polytopes), device=C.device)
        offset = C.new_zeros(C.shape[:2]) if offset is None else offset
        member = rows.owner.unsqueeze(1) == numbers.reshape(1, -1, 1)
        return cls(rows.objective.node, C, offset, member, numbers < count.unsqueeze(1))

    def objective(self, owner: Tensor) -> Objective:
        """Rows for subproblems that belong to properties `owner` (N,); batch 1 where all share them."""
        if self.C.shape[0] == 1:
            return Objective(self.node, self.C, self.offset)
        return Objective(self.node, self.C[owner], self.offset[owner])

    def margins(self, bounds: Tensor, owner: Tensor) -> Tensor:
        """Margins of polytopes (N, P), the greatest of their rows' bounds (N, S); +inf for absent polytopes."""
        best = bounds.unsqueeze(1).masked_fill(~self.member[owner], -torch.inf).amax(2)
        return best.masked_fill(~self.present[owner], torch.inf)

    def values(self, outputs: Tensor, owner: Tensor) -> Tensor:
        """Margins (N, P) at outputs (N, *Y) of the network; <= 0 for outputs in the polytope."""
        C, y = self.C[owner].flatten(2), outputs.flatten(1)
        return self.margins(torch.bmm(C, y.unsqueeze(2)).squeeze(2) + self.offset[owner], owner)
