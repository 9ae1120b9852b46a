"""APGD: projected gradient descent that halves its steps by itself.

Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks"
(ICML), Algorithm 1. Steps are taken in the region's own geometry, see `verifier.attacks.steps.steepest`.
Axes: A inputs, ``*X`` the input.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, inf

import torch
from torch import Tensor

from verifier.attacks.batch import Batch, per_input, resumed, taken
from verifier.attacks.losses import check_loss, descent
from verifier.attacks.steps import steepest

_FIRST, _SHORTER, _SHORTEST = 0.22, 0.03, 0.06  # intervals between checkpoints, as shares of all steps
_DIGITS = 9  # beyond them these shares have rounding errors


@dataclass(frozen=True)
class Apgd:
    """Options of the attack, and the attack.

    Args:
        loss: ``ce``, ``dlr`` or ``margin``, see `verifier.attacks.losses.descent`.
        aims: polytopes to aim at, by their ranks at the centre, each in a row of its own (`Batch.aimed`); none for any.
        steps: gradient steps of each restart.
        restarts: each begins at a random point of the region.
        size: first step, in half widths of the region.
        momentum: weight of the new step beside the last move.
        share: of the steps between two checkpoints so many must improve the loss, else steps are halved (rho).
    """

    loss: str = "ce"
    aims: tuple[int, ...] = ()
    steps: int = 100
    restarts: int = 1
    size: float = 2.0
    momentum: float = 0.75
    share: float = 0.75

    @cached_property
    def checkpoints(self) -> dict[int, int]:
        """Step of each checkpoint -> steps since the one before."""
        found: dict[int, int] = {}
        before, at, interval = 0, 0.0, _FIRST
        while (at := round(at + interval, _DIGITS)) <= 1:
            here = ceil(round(at * self.steps, _DIGITS))
            if here > before:
                found[here] = here - before
            before, interval = here, max(interval - _SHORTER, _SHORTEST)
        return found

    def start(self, batch: Batch, seed: int) -> ApgdState:
        """Before the first step.

        Raises:
            InputError: the loss is not defined for the batch.
        """
        check_loss(self.loss, batch.aim is not None, batch)
        random = torch.Generator().manual_seed(seed).get_state()
        worst = torch.full((len(batch),), inf, dtype=batch.center.dtype, device=batch.center.device)
        return self._begun(batch, random, batch.center, worst, 0)

    def step(self, batch: Batch, state: ApgdState) -> ApgdState:
        """One gradient, and the move that it suggests."""
        turn = state.step % self.steps
        if state.step > 0 and turn == 0:
            state = self._begun(batch, state.random, state.point, state.margin, state.step)
        value, slope, margin = descent(self.loss, batch, state.x)
        state = self._recorded(state, value, slope, margin)
        if turn in self.checkpoints:
            state, slope = self._checked(state, slope, self.checkpoints[turn])
        x = state.x
        there = batch.inside(x + per_input(state.size, x) * steepest(batch.region, slope.unsqueeze(0))[0])
        if turn > 0:
            there = batch.inside(torch.lerp(x, there, self.momentum).add_(x - state.previous, alpha=1 - self.momentum))
        return replace(state, x=there, previous=x, step=state.step + 1)

    def done(self, state: ApgdState) -> bool:
        return state.step >= self.steps * self.restarts

    def _begun(self, batch: Batch, random: Tensor, point: Tensor, margin: Tensor, step: int) -> ApgdState:
        """The state at the beginning of a restart; the best point so far is kept."""
        generator = resumed(random)
        x = batch.inside(batch.gauge.point(batch.gauge.random(generator)))
        worst = torch.full_like(margin, inf)
        return ApgdState(
            x=x,
            previous=x,
            best=x,
            slope=torch.zeros_like(x),
            least=worst,
            loss=worst,
            checked=worst,
            size=torch.full_like(margin, self.size),
            improved=torch.zeros_like(margin),
            halved=torch.ones_like(margin, dtype=torch.bool),
            point=point,
            margin=margin,
            step=step,
            random=generator.get_state(),
        )

    def _recorded(self, state: ApgdState, value: Tensor, slope: Tensor, margin: Tensor) -> ApgdState:
        """The state with the loss (A,), gradient (A, *X) and margin (A,) at its x."""
        x, better, deeper = state.x, value < state.least, margin < state.margin
        return replace(
            state,
            best=taken(x, better, state.best),
            slope=taken(slope, better, state.slope),
            least=torch.minimum(value, state.least),
            improved=state.improved + (value < state.loss),
            loss=value,
            point=taken(x, deeper, state.point),
            margin=torch.minimum(margin, state.margin),
        )

    def _checked(self, state: ApgdState, slope: Tensor, interval: int) -> tuple[ApgdState, Tensor]:
        """The state after a checkpoint: where little improved, steps are halved and begin anew at the best point."""
        slow = state.improved < self.share * interval
        idle = ~state.halved & (state.least == state.checked)
        halve = slow | idle
        state = replace(
            state,
            x=taken(state.best, halve, state.x),
            previous=taken(state.best, halve, state.previous),
            loss=torch.where(halve, state.least, state.loss),
            checked=state.least,
            size=torch.where(halve, state.size / 2, state.size),
            improved=torch.zeros_like(state.improved),
            halved=halve,
        )
        return state, taken(state.slope, halve, slope)


@dataclass(frozen=True, eq=False)
class ApgdState:
    """Where the attack stands.

    Args:
        x, previous: (A, *X), the current point and the one before.
        best, slope, least: the point of least loss of this restart (A, *X), its gradient (A, *X) and its loss (A,).
        loss: (A,), at the point before x.
        checked: (A,), the least loss at the last checkpoint.
        size: (A,), of the next step, in half widths of the region.
        improved: (A,), how often the loss fell since the last checkpoint.
        halved: (A,) bool, whether the steps were halved there.
        point, margin: (A, *X) and (A,), the point of least margin so far.
        step: steps taken.
        random: state of the generator.
    """

    x: Tensor
    previous: Tensor
    best: Tensor
    slope: Tensor
    least: Tensor
    loss: Tensor
    checked: Tensor
    size: Tensor
    improved: Tensor
    halved: Tensor
    point: Tensor
    margin: Tensor
    step: int
    random: Tensor
