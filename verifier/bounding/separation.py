"""Only those cuts that matter: what a primal point violates becomes a cut, round by round.

Of all facets of all groups few bind at an optimum. A *primal point* of the relaxation, values of all activations'
inputs and outputs, says which: where they lie outside the hull of a group, some of its facets cut them off. So Qhull
works on those groups alone, and what optimises afterwards carries few multipliers or rows (the cutting planes of
Kelley 1960; for neural networks Zhang et al. 2022, arXiv 2208.05740).

A linear program has a primal point; so has the dual function: its derivatives by coefficients on an activation's
outputs and inputs are the values that attain it, and their mean over an ascent comes near to a program's optimum
(Barahona and Anbil 2000, "The volume algorithm"). Which facets are taken is a question of tightness alone: every limit
is computed over all points of its group's hull.

Axes: B batch, S objective rows, G groups, M groups that are violated, F facets, V points, n neurons, k of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from time import monotonic

import torch
from torch import Tensor

from verifier.bounding.ascent import AscentOptions, ascend
from verifier.bounding.dual import DualPoint, Objective, Relaxation
from verifier.bounding.krelu import KReluOptions, candidates, with_limits
from verifier.bounding.octahedra import Weights, each
from verifier.graph.ir import Graph, Node
from verifier.relaxations.cuts import Cuts, Push, beside, dense_terms
from verifier.relaxations.hulls import facets, outside
from verifier.specs.region import Region

#: for activations the values (B, S, n) of their outputs and of their inputs
Point = Mapping[str, tuple[Tensor, Tensor]]
#: a primal point of a relaxation; None where there is none
Primal = Callable[[Relaxation], Point | None]


@dataclass(frozen=True)
class SeparationOptions:
    """Which cuts are taken.

    Args:
        rounds: primal points that are looked at, at most.
        margin: groups and facets count that are violated by more than this share of the group's largest values.
        most: facets that one point adds of a group.
    """

    rounds: int = 4
    margin: float = 1e-5
    most: int = 16


def with_violated(
    graph: Graph,
    region: Region,
    relaxation: Relaxation,
    primal: Primal,
    groups: KReluOptions,
    options: SeparationOptions | None = None,
    deadline: float | None = None,
) -> Relaxation:
    """A relaxation without cuts, and with those that primal points of it violate.

    Args:
        primal: of the relaxation with the cuts that there are already.
        groups: which neurons go together, and how their octahedra are bounded.
        deadline: `time.monotonic` value after which no further round begins.
    """
    options = options or SeparationOptions()
    pools = []
    for node in graph.nodes:
        found = candidates(graph, region, relaxation, node, groups) if node.name in relaxation.envelopes else None
        pools += [] if found is None else [_Pool(node, *found)]
    cuts: dict[str, Cuts] = {}
    for _ in range(options.rounds):
        late = deadline is not None and monotonic() > deadline
        point = None if late else primal(replace(relaxation, cuts=cuts))
        if point is None:
            break
        fresh = {}
        for pool in pools:
            if pool.node.name in point:
                more = pool.violated(*point[pool.node.name], options)
                fresh |= {} if more is None else {pool.node.name: more}
        if not fresh:
            break
        cuts |= {name: beside(cuts[name], more) if name in cuts else more for name, more in fresh.items()}
    return replace(relaxation, cuts=cuts)


@dataclass(frozen=True)
class _Pool:
    """What there is to choose from at one activation: groups (B, G, k), points (B, G, V, 2k), weights of octahedra."""

    node: Node
    groups: Tensor
    points: Tensor
    weights: Weights

    def violated(self, z: Tensor, x: Tensor, options: SeparationOptions) -> Cuts | None:
        """Facets that outputs and inputs (B, S, n) violate, of the groups whose hull they are outside of."""
        (batch, count, k), rows = self.groups.shape, z.shape[1]
        index = self.groups.flatten(1).unsqueeze(1).expand(-1, rows, -1)
        values = torch.cat([part.to(self.points).gather(2, index).unflatten(2, (count, k)) for part in (z, x)], -1)
        beyond = [outside(values[:, s].flatten(0, 1), self.points.flatten(0, 1)) for s in range(rows)]
        gap = torch.stack(beyond).amax(0).unflatten(0, (batch, count))
        most = int((gap > options.margin).sum(1).max())
        if most == 0:
            return None
        chosen = gap.argsort(dim=1, descending=True, stable=True)[:, :most]
        element = torch.arange(batch, device=chosen.device).unsqueeze(1)
        points, values = self.points[element, chosen], values[element, :, chosen]  # (B, M, V, 2k), (B, M, S, 2k)
        normals = _worst(facets(points.flatten(0, 1)).unflatten(0, (batch, most)), points, values, options)
        if normals.shape[2] == 0:
            return None
        weights = each(self.weights, lambda w: w[element, chosen])
        return with_limits(self.groups[element, chosen], normals.to(z.dtype), points, weights)


def _worst(normals: Tensor, points: Tensor, values: Tensor, options: SeparationOptions) -> Tensor:
    """Of normals (B, M, F, 2k) those whose limits values (B, M, S, 2k) exceed most, the others filled up with zeros."""
    limit = (normals @ points.transpose(2, 3)).amax(3)
    reach = (normals @ values.transpose(2, 3)).amax(3)
    size = (normals * points.abs().amax(2, keepdim=True)).norm(dim=3)
    excess = torch.where(size > 0, (reach - limit) / size.clamp(min=torch.finfo(size.dtype).tiny), 0.0)
    taken = (excess > options.margin).sum(2).clamp(max=options.most)
    order = excess.argsort(dim=2, descending=True, stable=True)[..., : int(taken.max())]
    picked = normals.gather(2, order.unsqueeze(3).expand(-1, -1, -1, normals.shape[3]))
    return picked * (excess.gather(2, order) > options.margin).unsqueeze(3)


@dataclass(frozen=True)
class AscentPrimal:
    """The mean primal point of an ascent on an objective: a `Primal`.

    Args:
        climb: the ascent.
        average: the steps from its end on whose mean is taken; on line weights alone, the cuts' multipliers stay.
    """

    graph: Graph
    region: Region
    objective: Objective
    climb: AscentOptions = field(default_factory=lambda: AscentOptions(60, step=0.1, decay=0.95, cut_step=0.5))
    average: AscentOptions = field(default_factory=lambda: AscentOptions(30, step=0.05, decay=1.0, patience=30))

    def __call__(self, relaxation: Relaxation) -> Point:
        graph, region, objective = self.graph, self.region, self.objective
        _, dual = ascend(graph, region, relaxation, objective, self.climb)
        probes = {}
        for name in relaxation.envelopes:
            if name in dual.weights or name in dual.cut_multipliers:
                probes[name] = self._probe(relaxation, name, dual)
        total: dict[str, Tensor] = {}
        count = 0

        def watch(gradient: DualPoint) -> None:
            nonlocal count
            count += 1
            for name, values in gradient.cut_multipliers.items():
                total[name] = total[name] + values if name in total else values

        probed = replace(relaxation, cuts=probes)
        start = DualPoint(dual.weights, dual.multipliers)
        ascend(graph, region, probed, objective, self.average, start=start, watch=watch)
        halves = {name: (values / count).chunk(2, dim=2) for name, values in total.items()}
        return {name: (half[0], half[1]) for name, half in halves.items()}

    def _probe(self, relaxation: Relaxation, name: str, dual: DualPoint) -> _Probe:
        size, rows = prod(self.graph.shapes[name]), self.objective.C.shape[1]
        batch = len(relaxation.boxes[name].lower)
        zero = self.objective.C.new_zeros(batch, rows, size)
        push: Push = (zero, zero, zero[..., 0])
        if name in dual.cut_multipliers:
            push = relaxation.cuts[name].push(dual.cut_multipliers[name], size)
        return _Probe(*push)


@dataclass(frozen=True)
class _Probe:
    """Cuts with multipliers that are fixed, and coefficients (B, S, 2n) of zero on outputs and inputs whose derivatives
    are those values. Their pace is zero, so that they stay at zero: anything else would be no bound."""

    on_output: Tensor
    on_input: Tensor
    constant: Tensor

    @property
    def least(self) -> float:
        return 0.0

    @property
    def pace(self) -> float:
        return 0.0

    def zero(self, rows: int) -> Tensor:
        return torch.cat([torch.zeros_like(self.on_output), torch.zeros_like(self.on_input)], 2)

    def push(self, multipliers: Tensor, size: int) -> Push:
        on_output, on_input = multipliers.split(size, dim=2)
        return self.on_output + on_output, self.on_input + on_input, self.constant

    def terms(self, multipliers: Tensor, z: Tensor, x: Tensor) -> Tensor:
        return dense_terms(self.push(multipliers, z.shape[1]), z, x)
