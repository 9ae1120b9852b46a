"""Properties as objective rows, and bounds of rows as margins of properties.

A property holds if every unsafe polytope ``{y : C y <= d}`` misses the image of the region. One row that stays
positive, ``min (C y - d) > 0``, is enough to miss a polytope, so its margin is the greatest bound of its rows, and
the property's margin the least of its polytopes'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.bounding.dual import Objective
from verifier.graph.ir import Graph
from verifier.specs.property import Property


@dataclass(frozen=True)
class Rows:
    """The rows of a batch of properties, side by side.

    Args:
        objective: C (B, S, *Y) and offset -d (B, S) on the network's output. Properties with fewer rows than others
            are filled up with rows of zeros.
        owner: (B, S) which polytope a row belongs to; filled-up rows belong to none (-1).
        polytopes: number of polytopes of each property.
    """

    objective: Objective
    owner: Tensor
    polytopes: tuple[int, ...]

    def margins(self, bounds: Tensor) -> Tensor:
        """Margin of every polytope, (B, P) with P the largest count, from bounds of rows (B, S).

        A polytope without rows is all of the output space and has margin -inf; one that a property does not have
        has margin +inf.
        """
        most = max(self.polytopes)
        margins = bounds.new_full((bounds.shape[0], most + 1), -torch.inf)
        slot = torch.where(self.owner < 0, torch.full_like(self.owner, most), self.owner)
        margins = margins.scatter_reduce(1, slot, bounds, "amax")[:, :most]
        present = torch.tensor(self.polytopes, device=bounds.device).unsqueeze(1)
        absent = torch.arange(most, device=bounds.device).unsqueeze(0) >= present
        return margins.masked_fill(absent, torch.inf)

    def select(self, index: Tensor) -> Rows:
        """The rows of the properties at int64 indices."""
        C, offset = self.objective.C[index], self.objective.offset
        objective = Objective(self.objective.node, C, None if offset is None else offset[index])
        return Rows(objective, self.owner[index], tuple(self.polytopes[i] for i in index.tolist()))


def stack_rows(graph: Graph, properties: Sequence[Property], dtype: torch.dtype, device: torch.device | str) -> Rows:
    """Rows of a batch of properties on a graph's output; d is rounded up, so polytopes only grow."""
    per_property = [
        [(C, d, number) for number, p in enumerate(prop.unsafe) for C, d in zip(p.C, p.d, strict=True)]
        for prop in properties
    ]
    batch, most = len(properties), max(1, max(len(rows) for rows in per_property))
    size = int(torch.Size(graph.output_shape).numel())
    C = torch.zeros(batch, most, size, dtype=torch.float64)
    d = torch.zeros(batch, most, dtype=torch.float64)
    owner = torch.full((batch, most), -1)
    for b, rows in enumerate(per_property):
        for s, (coefficients, bound, number) in enumerate(rows):
            C[b, s] = torch.as_tensor(coefficients)
            d[b, s], owner[b, s] = float(bound), number
    limit = d.to(dtype)
    limit = torch.where(limit < d, torch.nextafter(limit, torch.full_like(limit, torch.inf)), limit)
    objective = Objective(
        graph.output, C.reshape(batch, most, *graph.output_shape).to(device, dtype), -limit.to(device)
    )
    return Rows(objective, owner.to(device), tuple(len(prop.unsafe) for prop in properties))
