"""Attacks one after the other on a batch, each on the inputs that still stand.

AutoAttack's standard composition is APGD on the cross-entropy, targeted APGD on the difference of logits ratio,
targeted FAB, and Square (Croce and Hein 2020). Axes: B inputs of the batch, A of them still open, ``*X`` the input.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Protocol

import torch
from torch import Tensor

from verifier.attacks.apgd import Apgd
from verifier.attacks.batch import Batch, select
from verifier.attacks.fab import Fab
from verifier.attacks.losses import check_loss
from verifier.attacks.plain_pgd import PlainPgd
from verifier.attacks.square import Square
from verifier.errors import InputError

NAMES = ("pgd-plain", "apgd", "fab", "square", "ensemble")
#: names of the losses that APGD can be told to descend
LOSSES = ("auto", "ce", "dlr", "margin")

#: steps of an attack between two looks at what it has broken: a look and what leaves the batch then cost about a step
_LOOK_EVERY = 8

#: classes that all attacks of the standard composition are defined for
FEWEST_CLASSES = 4

#: ``(number of the input, x (*X), number of the attack) -> bool``: whether a point that seems to break the input's
#: property does; the centre has number 0, the first attack 1
Accept = Callable[[int, Tensor, int], bool]


class State(Protocol):
    """What every attack's state has: the best points (A, *X), their margins (A,), and the steps taken."""

    @property
    def point(self) -> Tensor: ...
    @property
    def margin(self) -> Tensor: ...
    @property
    def step(self) -> int: ...


class Attack(Protocol):
    """An attack on a batch. The same batch, seed and steps lead to the same state, wherever it was kept meanwhile.

    ``aims`` are ranks of polytopes: where there are any, the batch has a row for each input and aim (`Batch.aimed`).
    """

    @property
    def aims(self) -> tuple[int, ...]: ...
    def start(self, batch: Batch, seed: int) -> Any: ...
    def step(self, batch: Batch, state: Any) -> Any: ...
    def done(self, state: Any) -> bool: ...


@dataclass(frozen=True)
class Budget:
    """How hard to try.

    Args:
        steps: gradient steps of each run of PGD, APGD and FAB.
        restarts: of each of these.
        queries: steps of Square.
        targets: polytopes (for robustness: classes), nearest first, that are aimed at one by one.
    """

    steps: int = 100
    restarts: int = 1
    queries: int = 5000
    targets: int = 9


def compose(
    name: str, loss: str, batch: Batch, budget: Budget = Budget(), together: int | None = None
) -> tuple[Attack, ...]:
    """The attacks that a name stands for.

    Args:
        name: one of `NAMES`.
        loss: one of `LOSSES`. ``auto`` is cross-entropy and DLR where properties are about classes, else the margin.
        together: polytopes that are aimed at side by side; None for all. More take fewer passes and more memory.

    Raises:
        InputError: a name is not known, or a loss is not defined for the batch.
    """
    if name not in NAMES:
        raise InputError("--attack", f"{name!r} is not known", f"choose one of pgd, {', '.join(NAMES)}")
    if loss not in LOSSES:
        raise InputError("--loss", f"{loss!r} is not known", f"choose one of {', '.join(LOSSES)}")
    count = min(budget.targets, int(batch.goal.count.max()))
    together = max(1, count if together is None else together)
    groups = [tuple(range(first, min(first + together, count))) for first in range(0, count, together)]
    auto = "ce" if batch.classes is not None else "margin"
    first = auto if loss == "auto" else loss
    aimed = "dlr" if first == "ce" and loss == "auto" else first
    losses = (first, aimed) if name == "apgd" and aimed != first else (first,)
    apgd: list[Apgd] = [Apgd(each, (), budget.steps, budget.restarts) for each in losses]
    if aimed == "dlr" or (aimed == "margin" and count > 1):  # of a single polytope the margin needs no aim
        apgd += [Apgd(aimed, aims, budget.steps, budget.restarts) for aims in groups]
    fab = [Fab(budget.steps, budget.restarts, aims) for aims in groups]
    if name in ("apgd", "ensemble"):
        for each in apgd:
            check_loss(each.loss, bool(each.aims), batch)
    square, plain = Square(budget.queries), PlainPgd(first, budget.steps, budget.restarts)
    parts: dict[str, Sequence[Attack]] = {"pgd-plain": [plain], "apgd": apgd, "fab": fab, "square": [square]}
    return tuple(parts[name]) if name in parts else (*apgd, *fab, square)


def title(attack: Attack) -> str:
    """What an attack is called: ``apgd-ce``, ``apgd-dlr-t`` (aimed at one polytope after the other), ``fab-t``."""
    loss = (attack.loss,) if isinstance(attack, Apgd | PlainPgd) else ()
    name = "pgd-plain" if isinstance(attack, PlainPgd) else type(attack).__name__.lower()
    return "-".join((name, *loss, *(("t",) if attack.aims else ())))


@dataclass(frozen=True)
class Ensemble:
    """Attacks, and the order in which they are made.

    Args:
        attacks: one or more.
        owner: for each input the number of what it belongs to; where one input is broken, others of the same owner
            need not be. None where each stands for itself.
    """

    attacks: tuple[Attack, ...]
    owner: tuple[int, ...] | None = None

    def start(self, batch: Batch, seed: int, accept: Accept, deadline: float | None = None) -> EnsembleState:
        """Before the first step; inputs whose centre is accepted are broken."""
        margin = batch.margins(batch.outputs(batch.center))
        none = torch.full((len(batch),), -1, device=margin.device)
        refused, everything = torch.full_like(margin, inf), torch.arange(len(batch), device=margin.device)
        state = EnsembleState(0, None, everything, batch.center, margin, refused, none, 0, seed)
        return self._settled(state, margin, batch.center, accept, 0, deadline)

    def rows(self, batch: Batch, state: EnsembleState) -> Batch:
        """What the attack at work is given: of all inputs those that stand, once for each of its aims."""
        return batch.select(state.open).aimed(self.attacks[state.phase].aims)

    def step(self, batch: Batch, state: EnsembleState, accept: Accept, deadline: float | None = None) -> EnsembleState:
        """One step of the attack at work.

        Args:
            batch: `rows` of the whole one.
            deadline: value of `time.monotonic` from which on no point is judged.
        """
        attack, inner = self.attacks[state.phase], state.inner
        inner = attack.start(batch, state.seed + state.phase) if inner is None else attack.step(batch, inner)
        state = replace(state, inner=inner, steps=state.steps + 1)
        done = attack.done(inner)
        if done or inner.step % _LOOK_EVERY == 0:
            best = self._best(inner, len(state.open))
            state = self._settled(state, *best, accept, state.phase + 1, deadline)
        if not done:
            return state
        return replace(self._merged(state), inner=None, phase=state.phase + 1)

    def done(self, state: EnsembleState) -> bool:
        return state.phase >= len(self.attacks) or len(state.open) == 0

    def run(
        self,
        batch: Batch,
        seed: int = 0,
        accept: Accept = lambda number, x, phase: True,
        deadline: float | None = None,
        state: EnsembleState | None = None,
    ) -> EnsembleState:
        """All steps.

        Args:
            accept: judges points with a margin <= 0.
            deadline: value of `time.monotonic` at which to stop; no step begins that, like the last, would end later.
            state: where to go on; None to begin.
        """
        state = self.start(batch, seed, accept, deadline) if state is None else state
        at, left, seconds = None, batch, 0.0
        while not self.done(state) and not _late(deadline, seconds):
            began = time.monotonic()
            if at != (state.phase, len(state.open)):
                at, left = (state.phase, len(state.open)), self.rows(batch, state)
            state = self.step(left, state, accept, deadline)
            seconds = time.monotonic() - began
        return self._merged(state)

    @staticmethod
    def _best(inner: State, count: int) -> tuple[Tensor, Tensor]:
        """The least margin (A,) of each of so many open inputs among its rows, and the point (A, *X)."""
        margin, point = inner.margin, inner.point
        if len(margin) == count:
            return margin, point
        margin, which = margin.reshape(count, -1).min(1)
        return margin, point.reshape(count, -1, *point.shape[1:])[torch.arange(count, device=margin.device), which]

    def _settled(
        self,
        state: EnsembleState,
        margin: Tensor,
        point: Tensor,
        accept: Accept,
        number: int,
        deadline: float | None,
    ) -> EnsembleState:
        """The state once points (A, *X) with margins (A,) <= 0 are judged, and without the inputs that they break."""
        if not bool((margin <= 0).any()):
            return state
        hopeful = ((margin <= 0) & (margin < state.refused[state.open])).nonzero().squeeze(1)
        if len(hopeful) == 0:
            return state
        state = self._merged(state)
        broken, refused = state.broken.clone(), state.refused.clone()
        for place, input_number in zip(hopeful.tolist(), state.open[hopeful].tolist(), strict=True):
            if broken[input_number] >= 0:  # another one of its owner was broken just now
                continue
            if _late(deadline):  # a replay of a large network takes its time, and there may be a thousand
                break
            if accept(input_number, point[place], number):
                broken[self._related(input_number, broken)] = number
            else:
                refused[input_number] = margin[place]
        state = replace(state, broken=broken, refused=refused)
        stays = (broken[state.open] < 0).nonzero().squeeze(1)
        inner = None
        if state.inner is not None and len(stays) > 0:
            count = len(state.inner.margin) // len(state.open)  # rows of each input
            rows = stays.unsqueeze(1) * count + torch.arange(count, device=stays.device)
            inner = select(state.inner, rows.flatten())
        return replace(state, inner=inner, open=state.open[stays])

    def _related(self, number: int, like: Tensor) -> Tensor:
        """Numbers of the inputs that have the same owner."""
        if self.owner is None:
            return torch.tensor([number], device=like.device)
        same = [i for i, owner in enumerate(self.owner) if owner == self.owner[number]]
        return torch.tensor(same, device=like.device)

    def _merged(self, state: EnsembleState) -> EnsembleState:
        """The state with the best points of the attack at work among those of all."""
        if state.inner is None or len(state.open) == 0:
            return state
        least, best = self._best(state.inner, len(state.open))
        better = (least < state.margin[state.open]).nonzero().squeeze(1)
        if len(better) == 0:
            return state
        margin, point, where = state.margin.clone(), state.point.clone(), state.open[better]
        margin[where], point[where] = least[better], best[better]
        return replace(state, margin=margin, point=point)


def _late(deadline: float | None, seconds: float = 0.0) -> bool:
    """Whether something that takes so many seconds would end after the deadline."""
    return deadline is not None and time.monotonic() + seconds >= deadline


@dataclass(frozen=True, eq=False)
class EnsembleState:
    """Where the attacks stand.

    Args:
        phase: number of the attack at work.
        inner: its state, on the rows of the open inputs; None before it begins.
        open: (A,) int64, numbers of the inputs that still stand.
        point, margin: (B, *X) and (B,), the points of least margin.
        refused: (B,), the least margin of a point that was not accepted.
        broken: (B,) int64, what broke each input: 0 its centre, 1 the first attack, and so on; -1 where it stands.
        steps: taken by all attacks.
        seed: of the first attack; each further one has the next number.
    """

    phase: int
    inner: Any | None
    open: Tensor
    point: Tensor
    margin: Tensor
    refused: Tensor
    broken: Tensor
    steps: int
    seed: int
