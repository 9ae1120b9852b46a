"""FAB: the nearest point of an unsafe polytope, by projections onto linearised decision boundaries.

Croce and Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary attack" (ICML).
Distances are measured by a `Gauge`, so boxes with a width of their own per feature, balls, and limits are all alike.
Axes: A inputs, K unsafe polytopes, ``*X`` the input.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

from verifier.attacks.batch import Batch, per_input, resumed, taken
from verifier.attacks.losses import derivative, descent
from verifier.operators import evaluate

_TINY = 1e-30


@dataclass(frozen=True)
class Fab:
    """Options of the attack, and the attack.

    Args:
        steps: linearisations of each restart.
        restarts: the first begins at the centre, others at random.
        aims: polytopes to aim at, by their ranks at the centre, each in a row of its own (`Batch.aimed`); none for the
            nearest by linearisation, which costs a gradient for each polytope.
        overshoot: moves are longer than to the boundary by this factor (eta).
        pull: the largest weight of the projection of the centre (alpha_max).
        backward: where a step goes on after a success, as a share of the way from the centre (beta).
    """

    steps: int = 100
    restarts: int = 1
    aims: tuple[int, ...] = ()
    overshoot: float = 1.05
    pull: float = 0.1
    backward: float = 0.9

    def start(self, batch: Batch, seed: int) -> FabState:
        """Before the first step; an input that is unsafe at its centre is done."""
        margin = batch.margins(batch.outputs(batch.center))
        zero, broken = torch.zeros_like(batch.center), margin <= 0
        distance = torch.where(broken, 0, torch.full_like(margin, inf))
        random = torch.Generator().manual_seed(seed).get_state()
        margin = torch.where(broken, margin, inf)
        return FabState(zero, zero, distance, batch.center, margin, 0, random)

    def step(self, batch: Batch, state: FabState) -> FabState:
        """One linearisation: a move towards the boundary, and back towards the centre from beyond it."""
        gauge = batch.gauge
        state = self._restarted(batch, state)
        u = state.u
        value, gradient = self.linearised(batch, u)
        move = gauge.to_hyperplane(u, value, gradient)
        there = value - (gradient * u).flatten(1).sum(-1)  # the linear function at the centre
        direct = gauge.to_hyperplane(torch.zeros_like(u), there, gradient)
        near, far = gauge.length(move), gauge.length(direct)
        share = per_input((near / (near + far).clamp(min=_TINY)).clamp(max=self.pull), u)
        u = gauge.clip((1 - share) * (u + self.overshoot * move) + share * self.overshoot * direct)
        return self._judged(batch, state, u)

    def done(self, state: FabState) -> bool:
        return state.step >= self.steps * self.restarts

    def _judged(self, batch: Batch, state: FabState, u: Tensor) -> FabState:
        """The state after a step to u: whether it is a success, and the nearest one so far."""
        gauge = batch.gauge
        x = gauge.point(u)
        margin = batch.margins(batch.outputs(x))
        success, length = margin <= 0, gauge.length(u)
        better = success & (length < state.distance)
        return replace(
            state,
            u=taken(self.backward * u, success, u),
            best=taken(u, better, state.best),
            distance=torch.where(better, length, state.distance),
            point=taken(x, better, state.point),
            margin=torch.where(better & (length <= 1), margin, state.margin),
            step=state.step + 1,
        )

    def _restarted(self, batch: Batch, state: FabState) -> FabState:
        """At the beginning of a further restart, a random point at half the distance of the best one."""
        if state.step == 0 or state.step % self.steps:
            return state
        generator = resumed(state.random)
        u = batch.gauge.random(generator)
        u = u * per_input(state.distance.clamp(max=1) / 2, u)
        return replace(state, u=u, random=generator.get_state())

    def linearised(self, batch: Batch, u: Tensor) -> tuple[Tensor, Tensor]:
        """Value (A,) and gradient by u (A, *X) of the polytope's largest row that is aimed at."""
        x = batch.gauge.point(u)
        if batch.aim is not None or batch.ranking.shape[1] == 1:
            value, gradient, _ = descent("margin", batch, x)
            return value, gradient * batch.gauge.scale
        return self._nearest(batch, x)

    def _nearest(self, batch: Batch, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `linearised`, of the polytope whose linearised boundary is nearest."""
        x = x.requires_grad_()
        with torch.enable_grad():
            y = evaluate(batch.graph, x)
        flat = y.detach().flatten(1)
        values = batch.goal.values(flat)
        least, chosen, slope = torch.full_like(values[:, 0], inf), values[:, 0], torch.zeros_like(x)
        count = values.shape[1]
        for k in range(count):
            weight = batch.goal.slope(flat, torch.full_like(batch.goal.count, k))
            gradient = derivative(y, x, weight, k + 1 < count) * batch.gauge.scale
            value = values[:, k]
            distance = value.abs() / batch.gauge.steepness(gradient).clamp(min=_TINY)
            nearer = distance < least
            least, chosen = torch.where(nearer, distance, least), torch.where(nearer, value, chosen)
            slope = taken(gradient, nearer, slope)
        return chosen, slope


@dataclass(frozen=True, eq=False)
class FabState:
    """Where the attack stands.

    Args:
        u: (A, *X), the current position in the gauge's unit.
        best: (A, *X), the position of the nearest success; zero where there is none.
        distance: (A,), its length; infinite where there is none.
        point: (A, *X), the same as an input; the centre where there is none.
        margin: (A,), the margin there; infinite where it lies farther than one, that is outside the region.
        step: steps taken.
        random: state of the generator.
    """

    u: Tensor
    best: Tensor
    distance: Tensor
    point: Tensor
    margin: Tensor
    step: int
    random: Tensor
