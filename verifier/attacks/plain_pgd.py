"""Projected gradient descent as published: steps of one size along the steepest descent, from random points.

Madry et al. 2018, "Towards deep learning models resistant to adversarial attacks" (ICLR). Steps are taken in the
region's own geometry, see `verifier.attacks.steps.steepest`. Axes: A inputs, ``*X`` the input.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

from verifier.attacks.batch import Batch, resumed, taken
from verifier.attacks.losses import check_loss, descent
from verifier.attacks.steps import steepest

_REACH = 2.5  # the steps of a restart together, in half widths of the region: enough to cross it, as in the paper


@dataclass(frozen=True)
class PlainPgd:
    """Options of the attack, and the attack.

    Args:
        loss: ``ce``, ``dlr`` or ``margin``, see `verifier.attacks.losses.descent`.
        steps: gradient steps of each restart.
        restarts: each begins at a random point of the region.
        aims: none: any polytope will do.
    """

    loss: str = "ce"
    steps: int = 100
    restarts: int = 1
    aims: tuple[int, ...] = ()

    @property
    def size(self) -> float:
        """Of a step, in half widths of the region."""
        return _REACH / self.steps

    def start(self, batch: Batch, seed: int) -> PlainPgdState:
        """Before the first step.

        Raises:
            InputError: the loss is not defined for the batch.
        """
        check_loss(self.loss, False, batch)
        worst = torch.full((len(batch),), inf, dtype=batch.center.dtype, device=batch.center.device)
        random = torch.Generator().manual_seed(seed).get_state()
        return PlainPgdState(batch.center, batch.center, worst, 0, random)

    def step(self, batch: Batch, state: PlainPgdState) -> PlainPgdState:
        """One gradient and the move along it; after the last move of a restart a look at where it led."""
        turn = state.step % (self.steps + 1)
        if turn == 0:
            generator = resumed(state.random)
            x = batch.inside(batch.gauge.point(batch.gauge.random(generator)))
            state = replace(state, x=x, random=generator.get_state())
        x = state.x
        if turn == self.steps:
            margin, there = batch.margins(batch.outputs(x)), x
        else:
            _, slope, margin = descent(self.loss, batch, x)
            there = batch.inside(x.add(steepest(batch.region, slope.unsqueeze(0))[0], alpha=self.size))
        deeper = margin < state.margin
        point = taken(x, deeper, state.point)
        return replace(state, x=there, point=point, margin=torch.minimum(margin, state.margin), step=state.step + 1)

    def done(self, state: PlainPgdState) -> bool:
        return state.step >= (self.steps + 1) * self.restarts


@dataclass(frozen=True, eq=False)
class PlainPgdState:
    """Where the attack stands.

    Args:
        x: (A, *X), the current point.
        point, margin: (A, *X) and (A,), the point of least margin so far.
        step: steps taken, and looks at where they led.
        random: state of the generator.
    """

    x: Tensor
    point: Tensor
    margin: Tensor
    step: int
    random: Tensor
