"""Projected gradient descent on the margin of properties: many restarts of many properties in one batch.

Madry et al. 2018 (PGD); Tashiro, Song and Ermon 2020 (output-diversified starts); Dong et al. 2018 (momentum).
Axes: R restarts, P properties, K unsafe polytopes, ``*X`` / ``*Y`` input and output.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch
from torch import Tensor

from verifier.attacks.objective import Objective
from verifier.attacks.replay import Replayer, replay
from verifier.attacks.steps import centre, normalised, steepest
from verifier.errors import out_of_memory
from verifier.graph.ir import Graph, Node
from verifier.operators import evaluate
from verifier.operators.cost import multiply_adds, placement
from verifier.specs.property import Property, Query
from verifier.specs.region import stack
from verifier.verdict import Counterexample

_FEWEST_RESTARTS = 4  # per property: beyond that, properties are split over batches and `work` is exceeded
_FIRST_PUSH = 1e-6  # how far beyond the boundary to aim, relative to the outputs; grows while candidates are refused
_PUSH_GROWTH = 4.0
_PLAIN = 5  # every fifth restart descends the margin from the first step, without a warm-up
_NEAREST = 3  # every third restart aims at the polytope that is nearest at the moment
_LOCAL = 4  # every fourth restart begins near the best point so far
_NEARBY = 0.5  # of the way to a random point
_LEAK = 0.05
_VALUE_COST = 8
_FINE = 0.05  # every other restart takes steps this much smaller, and so stays in its basin


@dataclass(frozen=True)
class PgdOptions:
    """How hard to try.

    Args:
        steps: gradient steps of each restart.
        restarts: restarts in one batch; fewer where the network is large (see `work`).
        rounds: batches of restarts, each starting anew.
        step_size: first step, as a fraction of the region's half width.
        final_size: last step; in between the size falls geometrically.
        momentum: share of the previous direction that is kept.
        warmup: steps along a random direction of the output that most restarts take first.
        work: multiply-adds that one forward pass of a batch may cost, about; the default suits one or two cores.
        seed: of all random choices.
    """

    steps: int = 60
    restarts: int = 256
    rounds: int = 2
    step_size: float = 0.5
    final_size: float = 0.01
    momentum: float = 0.5
    warmup: int = 5
    work: float = 3e7
    seed: int = 0


@dataclass(frozen=True)
class AttackResult:
    """The best point that was found.

    Args:
        point: (*X) float64, in the region up to the rounding of the graph's precision.
        margin: the property's margin there, in the graph's precision; <= 0 means that it seems violated.
        property: its number in the query.
        steps: gradient steps taken, each of a batch of restarts.
    """

    point: np.ndarray
    margin: float
    property: int
    steps: int


def pgd(
    graph: Graph,
    prop: Property,
    options: PgdOptions = PgdOptions(),
    deadline: float | None = None,
    starts: Tensor | None = None,
) -> AttackResult:
    """Minimise the margin of one property; stops at the first point with a margin <= 0.

    Args:
        graph: placed; its precision and device are used.
        prop: a property whose region has batch size 1.
        deadline: value of `time.monotonic` at which to stop.
        starts: (R, *X) points to begin with, besides the random ones.
    """
    search = _Search(graph, (prop,), options, deadline, lambda number, x: True)
    return search.run(starts)


def least_margin(graph: Graph, query: Query, options: PgdOptions, deadline: float | None = None) -> AttackResult:
    """The smallest margin that is found over all properties of a query; goes on beyond zero.

    Args:
        graph, query, options, deadline: as of `attack`.
    """
    return _Search(graph, query.properties, options, deadline, lambda number, x: False).run(None)


def attack(
    graph: Graph,
    query: Query,
    options: PgdOptions,
    replayer: Replayer,
    deadline: float | None = None,
    starts: Tensor | None = None,
) -> Counterexample | AttackResult:
    """Look for an input that breaks some property of a query, and replay it on the original file.

    All properties are screened at their centres, then attacked in batches, the most promising first. Where memory runs
    out it begins anew with fewer restarts.

    Args:
        graph: placed; its precision and device are used.
        query: its properties, each with a region of batch size 1, all of one kind.
        options: how hard to try.
        replayer: session on the original file.
        deadline: value of `time.monotonic` at which to stop.
        starts: (R, *X) points to begin with, besides the random ones.

    Raises:
        InputError: the regions differ in kind.
        MemoryError, RuntimeError: there is no memory for a single restart.
    """
    found: list[Counterexample] = []

    def accept(number: int, x: np.ndarray) -> bool:
        counterexample = replay(replayer, query.properties[number], x, number)
        found.extend([counterexample] if counterexample else [])
        return bool(found)

    while True:
        try:
            result = _Search(graph, query.properties, options, deadline, accept).run(starts)
            return found[0] if found else result
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error) or options.restarts == 1:
                raise
            options = replace(options, restarts=max(1, options.restarts // 4))


@dataclass(frozen=True)
class _Aim:
    """What a batch of restarts goes for.

    Args:
        objective: of the P properties.
        target: (R, P) int64, the polytope of each restart, -1 for the nearest one.
        size: (P,) magnitude of the outputs.
        weights: (R, P, Y) direction of the output along which a restart warms up; zero for none.
    """

    objective: Objective
    target: Tensor
    size: Tensor
    weights: Tensor

    def loss(self, y: Tensor, push: Tensor, warm: bool) -> Tensor:
        """(R, P), to be minimised, of outputs y (R, P, Y); `push` (P,) is relative to the outputs."""
        hinge = Objective.hinge(self.objective.rows(y), self.target, push * self.size)
        return torch.where(self.weights.any(-1), (self.weights * y).sum(-1), hinge) if warm else hinge


class _Search:
    """One run of the attack: the best points so far, and who judges them.

    Args:
        accept: ``(number of the property, x (*X) float64) -> bool``: whether a point that seems to violate it does.
    """

    def __init__(
        self,
        graph: Graph,
        properties: Sequence[Property],
        options: PgdOptions,
        deadline: float | None,
        accept: Callable[[int, np.ndarray], bool],
    ):
        self.graph, self.options, self.deadline, self.accept = graph, options, deadline, accept
        self.leaky = _leaky(graph)
        dtype, device = placement(graph)
        self.region = stack([prop.region for prop in properties]).to(dtype, device)
        self.objective = Objective.of(properties, dtype, device)
        self.capacity = max(_FEWEST_RESTARTS, int(options.work / _cost(graph)))
        self.generator = torch.Generator().manual_seed(options.seed)
        self.margin = torch.full((len(properties),), torch.inf, dtype=dtype, device=device)
        self.point = centre(self.region)[0]
        self.refused = self.margin.clone()  # smallest margin of a point that was not accepted
        self.push = torch.full_like(self.margin, _FIRST_PUSH)
        self.steps, self.step_seconds = 0, 0.0

    def run(self, starts: Tensor | None) -> AttackResult:
        if not self._screen(starts):
            for number in range(self.options.rounds):
                if self._late() or self._round(number):
                    break
        best = int(self.margin.argmin())
        point = self.point[best].detach().cpu().double().numpy()
        return AttackResult(point, float(self.margin[best]), best, self.steps)

    def _screen(self, starts: Tensor | None) -> bool:
        """Evaluate every property at its centre and at the given points; whether one is broken."""
        given = 0 if starts is None else len(starts)
        order = torch.arange(len(self.margin), device=self.margin.device)
        for part in order.split(max(1, self.capacity // (1 + given))):
            if int(part[0]) > 0 and self._late():
                return False
            x = self.point[part].unsqueeze(0)
            if starts is not None:
                region = self.region.select(part)
                x = torch.cat([x, region.project(starts.to(x).unsqueeze(1).expand(-1, *x.shape[1:]))])
            with torch.no_grad():
                rows = self.objective.select(part).rows(self._outputs(self.graph, x))
            if self._visit(part, x, Objective.margins(rows)):
                return True
        return False

    def _round(self, number: int) -> bool:
        """One batch of restarts for every property, the most promising first; whether one is broken."""
        restarts = min(self.options.restarts, max(self.capacity // len(self.margin), _FEWEST_RESTARTS))
        for part in self.margin.argsort().split(max(1, self.capacity // restarts)):
            if self._late() or self._descend(part, restarts, number):
                return True
        return False

    def _descend(self, part: Tensor, restarts: int, number: int) -> bool:
        """Restarts of some properties, all steps; whether a property is broken."""
        options, sizes, region = self.options, _sizes(self.options), self.region.select(part)
        x = region.sample(restarts, self.generator)
        x[::_LOCAL] = torch.lerp(self.point[part], x[::_LOCAL], _NEARBY)  # between points of a convex set
        x[0] = self.point[part]
        aim = self._aim(part, x, number)
        scale = torch.ones(restarts, *[1] * (x.ndim - 1), dtype=x.dtype, device=x.device)
        scale[1::2] = _FINE
        velocity = torch.zeros_like(x)
        for step in range(len(sizes) + 1):
            began = time.monotonic()
            x = x.detach().requires_grad_()
            y = self._outputs(self.graph, x)
            margins = Objective.margins(aim.objective.rows(y.detach()))
            if self._visit(part, x, margins):
                return True
            if step == len(sizes) or self._late():
                break
            push, warm = self.push[part], step < options.warmup
            gradient = _gradient(aim.loss(y, push, warm), x)
            stuck = (gradient.flatten(2) == 0).all(-1) & (margins > 0)
            if bool(stuck.any()):
                gradient[stuck] = _gradient(aim.loss(self._outputs(self.leaky, x), push, warm), x)[stuck]
            velocity = options.momentum * velocity + normalised(gradient)
            x = region.project(x.detach() + sizes[step] * scale * steepest(region, velocity))
            self.steps, self.step_seconds = self.steps + 1, time.monotonic() - began
        return False

    def _aim(self, part: Tensor, x: Tensor, number: int) -> _Aim:
        """What the restarts at x (R, P, *X), of which the first is the best point so far, go for."""
        objective = self.objective.select(part)
        with torch.no_grad():
            y = self._outputs(self.graph, x)
        weights = torch.rand(y.shape, generator=self.generator, dtype=torch.float64).to(y) * 2 - 1
        weights[::_PLAIN] = 0
        return _Aim(objective, _targets(objective, y[0], len(x), number), y.abs().amax((0, 2)), weights)

    def _outputs(self, graph: Graph, x: Tensor) -> Tensor:
        """Flat outputs (R, P, Y) of inputs x (R, P, *X)."""
        return evaluate(graph, x.flatten(0, 1)).reshape(*x.shape[:2], -1)

    def _visit(self, part: Tensor, x: Tensor, margins: Tensor) -> bool:
        """Remember the best points, and have the one judged that lies deepest in an unsafe polytope.

        Args:
            part: (P,) numbers of the properties.
            x: (R, P, *X)
            margins: (R, P)
        """
        low, where = torch.where(margins.isfinite(), margins, torch.inf).min(0)
        best = x.detach()[where, torch.arange(len(part), device=x.device)]
        better = low < self.margin[part]
        self.margin[part[better]], self.point[part[better]] = low[better], best[better]
        hopeful = torch.where(low < self.refused[part], low, torch.inf)
        chosen = int(hopeful.argmin())
        if float(hopeful[chosen]) <= 0:
            number = int(part[chosen])
            if self.accept(number, best[chosen].cpu().double().numpy()):
                self.margin[number], self.point[number] = low[chosen], best[chosen]
                return True
            self.refused[number] = low[chosen]
        self.push[part[low <= 0]] *= _PUSH_GROWTH
        self.push.clamp_(max=1)
        return False

    def _late(self) -> bool:
        """Whether another step like the last one would end after the deadline."""
        return self.deadline is not None and time.monotonic() + self.step_seconds >= self.deadline


def _gradient(loss: Tensor, x: Tensor) -> Tensor:
    """Derivative of the loss (R, P) by x (R, P, *X); zero where the network does not use its input."""
    if not loss.requires_grad:
        return torch.zeros_like(x)
    return torch.autograd.grad(loss.sum(), x, allow_unused=True, materialize_grads=True)[0]


def _targets(objective: Objective, y: Tensor, restarts: int, number: int) -> Tensor:
    """Which polytope each restart aims at, (R, P): some at the nearest one, the others in turn.

    Args:
        y: (P, Y) outputs at the best points so far, by which the polytopes are ranked.
        number: of the round; later rounds go on where the earlier ones stopped.
    """
    ranking = objective.rows(y.unsqueeze(0))[0].amax(-1).argsort(-1)
    turn = torch.arange(restarts, device=y.device).unsqueeze(1)
    place = (turn + number * restarts) % objective.count
    return torch.where(turn % _NEAREST == 0, -1, ranking.gather(1, place.T).T)


def _sizes(options: PgdOptions) -> list[float]:
    """Step sizes: the first one throughout the warm-up, then falling geometrically."""
    falling = np.geomspace(options.step_size, options.final_size, options.steps).tolist()
    return [options.step_size] * options.warmup + falling


def _cost(graph: Graph) -> int:
    """What one input costs, in multiply-adds; values that have to be kept for the gradient cost as much as several."""
    return multiply_adds(graph) + _VALUE_COST * sum(prod(shape) for shape in graph.shapes.values())


def _leaky(graph: Graph) -> Graph:
    """The graph with a small slope where a ReLU is flat, so that a gradient leads out of where all of them are off."""

    def leak(node: Node) -> Node:
        slope = node.constants.get("slope")
        if node.op != "relu" or slope is None:
            return node
        return replace(node, constants={**node.constants, "slope": torch.where(slope == 0, _LEAK, slope)})

    return replace(graph, nodes=tuple(leak(node) for node in graph.nodes))
