"""Attacks on many queries at once: falsified, with a replayed counterexample, or undecided."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verifier.attacks import pgd
from verifier.attacks.batch import Batch
from verifier.attacks.ensemble import FEWEST_CLASSES, Budget, Ensemble, compose, title
from verifier.attacks.objective import margins
from verifier.attacks.parity import check_parity
from verifier.attacks.replay import Replayer, replay
from verifier.errors import out_of_memory
from verifier.graph.ir import Graph
from verifier.operators import evaluate, find_device, place
from verifier.operators.cost import multiply_adds, placement
from verifier.operators.tail import to_logits
from verifier.specs.property import Query
from verifier.specs.robustness import Robustness, Spec, resolve_all
from verifier.verdict import Counterexample, Falsified, Reason, Stage, Undecided

PGD = "pgd"
#: what broke a query whose own input breaks it
INPUT = "input"
#: multiply-adds that one forward pass of a batch may cost, about, and the most inputs of one
_WORK, _MOST = 4e9, 1024
#: numbers of all inputs of a batch, which attacks pass over many times a step
_NUMBERS = 1 << 22
#: a margin of so much, relative to the outputs, may be an error of rounding
_NEARLY = 1e-3

Found = Falsified | Undecided
#: called with the number of a query and its verdict, as soon as that is known
Progress = Callable[[int, Found], None]


@dataclass(frozen=True)
class AttackOptions:
    """How to attack.

    Args:
        attack: ``pgd`` or one of `verifier.attacks.ensemble.NAMES`.
        loss: what APGD descends, one of `verifier.attacks.ensemble.LOSSES`.
        budget: steps and targets of the attacks but pgd.
        pgd: options of pgd.
        timeout: seconds for all queries together, or None; seen between steps and between replays.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        dtype: precision of the attack.
        seed: of everything random.
    """

    attack: str = "ensemble"
    loss: str = "auto"
    budget: Budget = field(default_factory=Budget)
    pgd: pgd.PgdOptions = field(default_factory=pgd.PgdOptions)
    timeout: float | None = None
    device: str = "auto"
    dtype: torch.dtype = torch.float32
    seed: int = 0


def attack(
    graph: Graph,
    specs: Sequence[Spec],
    options: AttackOptions = AttackOptions(),
    starts: Sequence[Any] | None = None,
    progress: Progress | None = None,
) -> list[Found]:
    """Look for an input that breaks each of several specifications of one network, all in one batch.

    Args:
        graph: from `verifier.load`, read from a file.
        specs: as of `verifier.verify`.
        options: how to attack.
        starts: for each specification an input (*X) to look at first, such as the one it is about.
        progress: told of every verdict.

    Returns:
        For each specification `Falsified`, with a counterexample that onnxruntime confirmed on the original file, or
        `Undecided`. The method of the first is the attack that found it, or ``input`` for a start.

    Raises:
        InputError: a specification does not fit the network, an attack is not known or not defined for it, the
            network was not read from a file, or does not compute what onnxruntime computes.
    """
    run = _Run(graph, specs, options, progress)
    run.try_inputs(starts)
    if options.attack == PGD:
        run.by_pgd()
    else:
        run.by_batches()
    return run.verdicts()


class _Run:
    """One call of `attack`: the queries on the logits, and the counterexamples so far."""

    def __init__(self, graph: Graph, specs: Sequence[Spec], options: AttackOptions, progress: Progress | None):
        self.began, self.options, self.progress = time.monotonic(), options, progress
        self.deadline = None if options.timeout is None else self.began + options.timeout
        self.replayer = Replayer(graph)
        self.original = resolve_all(specs, graph)
        pairs = [to_logits(graph, query) for query in self.original]
        self.queries: list[Query] = [query for _, query in pairs]
        self.graph = place(pairs[0][0] if pairs else graph, options.dtype, find_device(options.device))
        for query in self.original[:1]:
            check_parity(self.replayer, query.properties[0].region, seed=options.seed)
        self.classifies = all(isinstance(spec, Robustness) for spec in specs)
        self.starts: dict[int, np.ndarray] = {}
        self.found: dict[int, Falsified] = {}
        self.refused: set[int] = set()

    def judge(self, number: int, prop: int, x: Any, method: str) -> bool:
        """Whether x (*X) breaks a property of a query in onnxruntime; then that is its verdict."""
        point = x.double().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x, dtype=np.float64)
        counterexample = replay(self.replayer, self.original[number].properties[prop], point, prop)
        if counterexample is None:
            self.refused.add(number)
            return False
        self.settle(number, counterexample, method)
        return True

    def settle(self, number: int, counterexample: Counterexample, method: str) -> None:
        seconds = time.monotonic() - self.began
        stages = (Stage(method, seconds, None, 0),)
        self.found[number] = Falsified(None, method, stages, seconds, counterexample=counterexample)
        if self.progress is not None:
            self.progress(number, self.found[number])

    def try_inputs(self, starts: Sequence[Any] | None) -> None:
        """Look at the inputs that were given: all in the engine, in onnxruntime those that come near a violation."""
        shape, (dtype, device) = self.graph.input_shape, placement(self.graph)
        points = [np.asarray(start, dtype=np.float64).reshape(shape) for start in starts or ()]
        self.starts = dict(enumerate(points))
        for first in range(0, len(points), self.most()):
            if self.late():
                break
            part = points[first : first + self.most()]
            with torch.no_grad():
                outputs = (
                    evaluate(self.graph, torch.from_numpy(np.stack(part)).to(device, dtype)).double().cpu().numpy()
                )
            for number, prop in self.hopeful(first, outputs.reshape(len(part), -1)):
                if number not in self.found and not self.late():
                    self.judge(number, prop, points[number], INPUT)
        self.refused.clear()  # that an input is no counterexample is no disagreement

    def hopeful(self, first: int, outputs: np.ndarray) -> list[tuple[int, int]]:
        """Which properties, as (query, property), outputs (N, Y) of the queries from the first on come near to break.

        Queries that share their polytopes, as those of one label do, are looked at together.
        """
        alike: dict[int, list[tuple[int, int]]] = {}
        for number in range(first, first + len(outputs)):
            for p, prop in enumerate(self.queries[number].properties):
                alike.setdefault(id(prop.unsafe), []).append((number, p))
        near = []
        for pairs in alike.values():
            number, p = pairs[0]
            y = outputs[[number - first for number, _ in pairs]]
            clear = margins(self.queries[number].properties[p].unsafe, y) > _NEARLY * (1 + np.abs(y).max(1))
            near += [pair for pair, is_clear in zip(pairs, clear, strict=True) if not is_clear]  # NaN is not clear
        return sorted(near)

    def by_pgd(self) -> None:
        """One query after the other, with many restarts each."""
        for number, query in enumerate(self.queries):
            if number in self.found or self.late():
                continue
            chosen = replace(self.options.pgd, seed=self.options.seed)
            original = Query(self.original[number].properties, query.name)
            result = pgd.attack(self.graph, original, chosen, self.replayer, self.deadline)
            if isinstance(result, Counterexample):
                self.settle(number, result, PGD)
            elif result.margin <= 0:
                self.refused.add(number)

    def by_batches(self) -> None:
        """All properties of all queries, as many at a time as fit."""
        waiting = [(i, p) for i, query in enumerate(self.queries) for p in range(len(query.properties))]
        size = self.most()
        while waiting and not self.late():
            part = [pair for pair in waiting[:size] if pair[0] not in self.found]
            try:
                if part:
                    self.batch(part)
                waiting = waiting[size:]
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error) or size == 1:
                    raise
                size = max(1, size // 4)

    def most(self) -> int:
        """How many inputs may go through the network at once."""
        numbers = prod(self.graph.input_shape)
        return max(1, min(_MOST, _NUMBERS // max(1, numbers), int(_WORK / max(1, multiply_adds(self.graph)))))

    def batch(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Attack some properties, given as (query, property)."""
        center = None
        if all(i in self.starts for i, _ in pairs):
            center = torch.from_numpy(np.stack([self.starts[i] for i, _ in pairs]))
        batch = Batch.of(self.graph, [self.queries[i].properties[p] for i, p in pairs], center=center)
        together = max(1, self.most() // len(pairs))
        attacks = compose(self.options.attack, self.loss(batch), batch, self.options.budget, together)
        names = (INPUT, *map(title, attacks))

        def accept(place: int, x: Tensor, phase: int) -> bool:
            return self.judge(*pairs[place], x, names[phase])

        Ensemble(attacks, tuple(i for i, _ in pairs)).run(batch, self.options.seed, accept, self.deadline)

    def loss(self, batch: Batch) -> str:
        """The loss that was asked for; where none was, a file that compares few classes takes the margin."""
        few = batch.classes is not None and batch.goal.outputs < FEWEST_CLASSES
        return "margin" if self.options.loss == "auto" and few and not self.classifies else self.options.loss

    def late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def verdicts(self) -> list[Found]:
        seconds, reason = time.monotonic() - self.began, Reason.TIMEOUT if self.late() else Reason.METHOD_INCOMPLETE
        found: list[Found] = []
        for number in range(len(self.queries)):
            if number in self.found:
                found.append(self.found[number])
                continue
            why = Reason.NUMERICAL_DISAGREEMENT if number in self.refused else reason
            name = self.options.attack
            undecided = Undecided(None, name, (Stage(name, seconds, None, 1),), seconds, reason=why)
            found.append(undecided)
            if self.progress is not None:
                self.progress(number, undecided)
        return found
