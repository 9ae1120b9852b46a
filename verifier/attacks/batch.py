"""Many inputs under attack at once: the network, where the inputs may go, and what counts as success.

Axes: A inputs of a batch, K unsafe polytopes of a property, S rows of a polytope, Y outputs, ``*X`` the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from math import inf
from typing import Any, TypeVar

import torch
from torch import Tensor

from verifier.attacks.dense import Dense
from verifier.attacks.gauge import Gauge
from verifier.attacks.goal import Classes, Goal, Polytopes
from verifier.attacks.objective import Objective
from verifier.attacks.steps import inside
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
        goal: the unsafe polytopes of A properties.
        gauge: where attacks begin, and how far a point is from there.
        ranking: (A, K) int64, the polytopes by their margin at the centre, nearest first.
        aim: (A,) int64, the polytope to aim at; None for any.
    """

    graph: Graph
    region: Region
    goal: Goal
    gauge: Gauge
    ranking: Tensor
    aim: Tensor | None = None

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
        goal = Classes.of(objective) or Polytopes(objective)
        center = None if center is None else center.to(device, dtype)
        gauge = Gauge.of(region, center) if gauge is None else gauge.to(dtype, device)
        with torch.no_grad():
            ranking = goal.values(evaluate(graph, gauge.center).flatten(1)).argsort(-1)
        return Batch(graph, region, goal, gauge, ranking)

    def __len__(self) -> int:
        return len(self.ranking)

    @property
    def center(self) -> Tensor:
        """(A, *X), where attacks begin."""
        return self.gauge.center

    @cached_property
    def dense(self) -> Dense | None:
        """The network where it is a plain fully connected one, else None."""
        return Dense.of(self.graph)

    @property
    def classes(self) -> Classes | None:
        """The goal where it is about classes, else None."""
        return self.goal if isinstance(self.goal, Classes) else None

    def select(self, index: Tensor) -> Batch:
        """Some of the inputs (int64 indices)."""
        return replace(
            self,
            region=self.region.select(index),
            goal=self.goal.select(index),
            gauge=self.gauge.select(index),
            ranking=self.ranking[index],
            aim=None if self.aim is None else self.aim[index],
        )

    def aimed(self, ranks: Sequence[int]) -> Batch:
        """Every input once for each of some polytopes, given by their ranks; all for one input stand side by side.

        Args:
            ranks: counted from zero, and from the beginning again where a property has fewer; none for no aim at all.
        """
        if not ranks:
            return self
        device = self.ranking.device
        repeated = self.select(torch.arange(len(self), device=device).repeat_interleave(len(ranks)))
        rank = torch.tensor(tuple(ranks), device=device).repeat(len(self)) % repeated.goal.count
        return replace(repeated, aim=repeated.ranking.gather(1, rank.unsqueeze(1)).squeeze(1))

    def outputs(self, x: Tensor) -> Tensor:
        """Flat outputs (A, Y) of inputs x (A, *X), without their derivative."""
        with torch.no_grad():
            return evaluate(self.graph, x).flatten(1)

    def margins(self, y: Tensor) -> Tensor:
        """(A,): the least value of a polytope at outputs y (A, Y); infinite where it is not a number."""
        return finite(self.goal.values(y).amin(-1))

    def inside(self, x: Tensor) -> Tensor:
        """Points of the regions near x (A, *X), see `verifier.attacks.steps.inside`."""
        return inside(self.region, x)


def finite(value: Tensor) -> Tensor:
    """Values with infinity in place of what is not finite, so that it never counts as success."""
    return torch.nan_to_num(value, nan=inf, posinf=inf, neginf=inf)


def per_input(value: Tensor, like: Tensor) -> Tensor:
    """One number per input (A,) with axes to broadcast against ``like`` (A, *X)."""
    return value.reshape(-1, *[1] * (like.dim() - 1))


def taken(new: Tensor, where: Tensor, old: Tensor) -> Tensor:
    """``new`` (A, *X) for the inputs of a mask (A,), else ``old``, both finite: exact, faster than `torch.where`."""
    return torch.lerp(old, new, per_input(where.to(old.dtype), old))


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
