"""Many inputs under attack at once: the network, where the inputs may go, and what counts as success.

Axes: A inputs of a batch, K unsafe polytopes of a property, S rows of a polytope, Y outputs, ``*X`` the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from verifier.attacks.gauge import Gauge
from verifier.attacks.objective import Objective
from verifier.graph.ir import Graph
from verifier.operators import evaluate
from verifier.operators.cost import placement
from verifier.specs.property import Property
from verifier.specs.region import Region, stack

Record = TypeVar("Record")


@dataclass(frozen=True, eq=False)
class Batch:
    """A inputs of one network, each with a property to break.

    Args:
        graph: placed; its precision and device are used.
        region: where the inputs may go, batch size A.
        objective: the unsafe polytopes of A properties.
        labels: (A,) int64, the class that every polytope of a property is compared with; None where a property is
            not about a class.
        gauge: where attacks begin, and how far a point is from there.
        ranking: (A, K) int64, the polytopes by their margin at the centre, nearest first.
    """

    graph: Graph
    region: Region
    objective: Objective
    labels: Tensor | None
    gauge: Gauge
    ranking: Tensor

    @staticmethod
    def of(
        graph: Graph, properties: Sequence[Property], gauge: Gauge | None = None, center: Tensor | None = None
    ) -> Batch:
        """The batch of some properties of a placed graph, each with a region of batch size 1.

        Args:
            gauge: None for the one of the regions, in which a region is what lies within a distance of one.
            center: (A, *X), the points that boxes were made around, if they are known.

        Raises:
            InputError: the regions differ in kind.
        """
        dtype, device = placement(graph)
        region = stack([prop.region for prop in properties]).to(dtype, device)
        objective = Objective.of(properties, dtype, device)
        found = [label_of(prop) for prop in properties]
        labels = None if None in found else torch.tensor(found, device=device)
        center = None if center is None else center.to(device, dtype)
        gauge = Gauge.of(region, center) if gauge is None else gauge.to(dtype, device)
        with torch.no_grad():
            y = evaluate(graph, gauge.center).flatten(1)
        ranking = objective.rows(y.unsqueeze(0))[0].amax(-1).argsort(-1)
        return Batch(graph, region, objective, labels, gauge, ranking)

    def __len__(self) -> int:
        return len(self.ranking)

    @property
    def center(self) -> Tensor:
        """(A, *X), where attacks begin."""
        return self.gauge.center

    def select(self, index: Tensor) -> Batch:
        """Some of the inputs (int64 indices)."""
        labels = None if self.labels is None else self.labels[index]
        return replace(
            self,
            region=self.region.select(index),
            objective=self.objective.select(index),
            labels=labels,
            gauge=self.gauge.select(index),
            ranking=self.ranking[index],
        )

    def outputs(self, x: Tensor) -> Tensor:
        """Flat outputs (A, Y) of inputs x (A, *X); differentiable."""
        return evaluate(self.graph, x).flatten(1)

    def values(self, y: Tensor) -> Tensor:
        """(A, K): the largest row of every polytope at outputs y (A, Y); an output lies inside where it is <= 0."""
        return self.objective.rows(y.unsqueeze(0))[0].amax(-1)

    def margins(self, y: Tensor) -> Tensor:
        """(A,): the least of `values`; infinite where it is not a number, so that it never counts as success."""
        low = self.values(y.detach()).amin(-1)
        return torch.where(low.isfinite(), low, torch.inf)

    def project(self, x: Tensor) -> Tensor:
        """The nearest points of the regions to x (A, *X)."""
        return self.region.project(x.unsqueeze(0))[0]


def label_of(prop: Property) -> int | None:
    """The class whose score some other class has to reach in every unsafe polytope, None where there is none."""
    found: set[int] = set()
    for polytope in prop.unsafe:
        row = polytope.C[0]
        if len(polytope.d) != 1 or polytope.d[0] != 0 or sorted(row[row != 0]) != [-1.0, 1.0]:
            return None
        found.add(int(row.argmax()))
    return found.pop() if len(found) == 1 else None


def classes_of(objective: Objective) -> Tensor:
    """(A, K): for properties about a class, the other class of every polytope."""
    return objective.C[:, :, 0].argmin(-1)


def per_input(value: Tensor, like: Tensor) -> Tensor:
    """One number per input (A,) with axes to broadcast against ``like`` (A, *X)."""
    return value.reshape(-1, *[1] * (like.dim() - 1))


def select(state: Record, index: Tensor) -> Record:
    """Some of the inputs of an attack's state: every tensor but the generator's has them as its first axis."""
    chosen: dict[str, Any] = {
        field.name: value[index]
        for field in fields(state)  # type: ignore[arg-type]
        if isinstance(value := getattr(state, field.name), Tensor) and field.name != "random"
    }
    return replace(state, **chosen)  # type: ignore[type-var]


def resumed(random: Tensor) -> torch.Generator:
    """A generator that goes on where the one with this state stopped."""
    generator = torch.Generator()
    generator.set_state(random)
    return generator
