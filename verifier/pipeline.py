"""From a network and a property to a verdict: parity, bounds, attack, tighter bounds, and the evidence of each.

`verify` climbs a ladder of methods from cheap to tight and stops at the first answer. A property counts as proved
when its bound clears an allowance for rounding; a float32 bound that is positive but does not is evaluated again in
float64. It counts as refuted when onnxruntime, run on the original file, returns an unsafe output.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from verifier.attacks.parity import check_parity
from verifier.attacks.pgd import attack
from verifier.attacks.replay import Replayer, replay
from verifier.bounding.ladder import Bounds, LadderOptions, Problem, certify
from verifier.bounding.rows import stack_rows
from verifier.errors import out_of_memory
from verifier.graph.ir import Graph
from verifier.operators import find_device, place, require_bound_rules
from verifier.operators.cost import multiply_adds
from verifier.operators.tail import to_logits
from verifier.schedule import (
    ATTACK,
    ATTACK_AGAIN,
    LINEAR_PROGRAMS,
    MILP,
    SEARCH,
    VerifyOptions,
    attack_until,
    bounding,
    ladder_of,
    require_programs,
    rung_until,
    search_until,
    worthwhile,
    worthwhile_search,
)
from verifier.search.branch_and_bound import Search, free_dimensions
from verifier.search.memory import Memory
from verifier.search.result import Standing, Watch
from verifier.specs.property import Property, Query
from verifier.specs.region import stack
from verifier.specs.robustness import Spec, resolve
from verifier.verdict import Counterexample, Falsified, Proof, Reason, Stage, Undecided, Verdict, Verified
from verifier.workers import full_precision, one_each

#: networks up to this many multiply-adds are bounded in float64 throughout: there arithmetic is not what takes time
FLOAT64_UP_TO = 100_000
#: points that onnxruntime may refuse as counterexamples before a search is given up
REFUSALS = 1000
#: rounds of the long attack
MORE_ROUNDS = 3
#: numbers that one batch of properties may hold in its widest layer
BATCH_NUMBERS = 1 << 23

if TYPE_CHECKING:
    from verifier.search.milp import MilpSearch

Progress = Callable[[Stage], None]


def verify(
    graph: Graph, prop: Spec, *, progress: Progress | None = None, watch: Watch | None = None, **options
) -> Verdict:
    """Prove that a network meets a property, or show an input that breaks it.

    Args:
        graph: from `verifier.load`. A graph without a file can be verified but not falsified.
        prop: from `verifier.robustness` or `verifier.read_vnnlib`, or a `Property`.
        progress: called after each stage.
        watch: called now and then during a search.
        options: fields of `VerifyOptions`, by name.

    Returns:
        `Verified` with its proofs, `Falsified` with a replayed counterexample, or `Undecided` with a reason.

    Raises:
        InputError: the property does not fit the network, an operator has no bound rule, or the network as read does
            not compute what onnxruntime computes.
    """
    with one_each(), full_precision():
        return _Run(graph, prop, VerifyOptions(**options), progress, watch).verdict()


def bounds(graph: Graph, prop: Spec, method: str = "crown", **options) -> list[Tensor]:
    """Certified margins of every property by one method, without attack or search.

    Args:
        graph, prop, options: as of `verify`.
        method: a key of `verifier.bounding.ladder.METHODS`.

    Returns:
        For each property of the query the (P,) lower bounds of the margins to its P unsafe polytopes; a positive
        entry says that the polytope cannot be reached.
    """
    margins: list[Tensor] = []
    for found in evidence(graph, prop, method, **options):
        rows = found.margins()
        margins += [row[:count] for row, count in zip(rows, found.problem.rows.polytopes, strict=True)]
    return margins


@dataclass(frozen=True)
class Evidence:
    """What one method found for a batch of the query's properties.

    Args:
        working: as the method left it, in its precision.
        problem, bounds: what counts: the same, or again in float64 (see `certify`).
        proved: (B,) which properties they prove.
    """

    working: Bounds
    problem: Problem
    bounds: Bounds
    proved: Tensor

    def margins(self) -> Tensor:
        """Certified margins (B, P) of all polytopes; what rounding could undo is worth zero, and where a property has
        fewer polytopes than others, the rest is never below its least one."""
        rows = self.problem.rows.margins(self.bounds.lower)
        return torch.where(self.proved.unsqueeze(1), rows, rows.clamp(max=0))


def evidence(
    graph: Graph, prop: Spec, method: str = "crown", over: Sequence[Evidence] | None = None, **options
) -> list[Evidence]:
    """The bounds of one method with what stands behind them: relaxations and dual points.

    Args:
        graph, prop, method, options: as of `bounds`.
        over: what another method found for the same query, with the same options: its boxes are taken.
    """
    taken: list[Evidence] = []
    with one_each(), full_precision():
        run = _Run(graph, prop, VerifyOptions(method=method, **options), None, None)
        for number, numbers in enumerate(run.groups(range(len(run.query.properties)))):
            batch, ladder = run.batch(numbers), run.ladder()
            if over is not None:
                ladder = replace(ladder, over=over[number].working.relaxation)
            found = bounding(method)(batch.problem, ladder, run.deadline)
            taken.append(Evidence(found, *run.certified(batch, found)))
    return taken


@dataclass(frozen=True)
class _Batch:
    """Some properties of the query, by number, as one problem."""

    numbers: tuple[int, ...]
    problem: Problem


class _Run:
    """One call of `verify`: the query on the logits, what is still open, and what has been proved."""

    def __init__(
        self, graph: Graph, prop: Spec, options: VerifyOptions, progress: Progress | None, watch: Watch | None
    ):
        self.started = monotonic()
        self.options, self.progress, self.watch = options, progress, watch
        self.memory, self.starved = Memory(options.memory), False
        self.deadline = None if options.timeout is None else self.started + options.timeout
        self.rungs = ladder_of(options.method, options.rungs)
        self.original, self.original_query = graph, resolve(prop, graph)
        self.graph, self.query = to_logits(graph, self.original_query)
        require_bound_rules(self.graph)
        self.device = find_device(options.device)
        small = options.method in (*LINEAR_PROGRAMS, MILP) or multiply_adds(self.graph) <= FLOAT64_UP_TO
        self.dtype = options.dtype or (torch.float64 if small else torch.float32)
        self.placed = place(self.graph, self.dtype, self.device)
        require_programs(self.rungs, self.query, self.placed, options.memory)
        limit = options.search.input_dimensions  # up to it a search splits the input first
        self.few_inputs = all(free_dimensions(prop.region) <= limit for prop in self.query.properties)
        self.margins = [-math.inf] * len(self.query.properties)
        self.open = list(range(len(self.query.properties)))
        self.proofs: list[Proof] = []
        self.disagreed = False  # a point seemed to break the property, but not in onnxruntime
        self.stages: list[Stage] = []
        self.method = self.rungs[0]
        self.evidence: list[tuple[_Batch, Bounds]] = []  # of the last rung, where a search starts
        self.searches: list[tuple[_Batch, Search | MilpSearch]] = []
        self.confirmed: list[Counterexample] = []  # by the searches
        self.refused = 0  # points of the searches that seemed to break the property, but were not confirmed

    def verdict(self) -> Verdict:
        replayer = counterexample = None
        with self.sparing():
            replayer = None if self.original.file is None else Replayer(self.original)
            if replayer is not None:
                for prop in self.original_query.properties[:1]:
                    check_parity(replayer, prop.region, seed=self.options.seed)
            counterexample = self.climb_ladder(replayer)
        seconds = monotonic() - self.started
        common = (self.bound(), self.method, tuple(self.stages), seconds, self.subproblems())
        if counterexample is not None:
            return Falsified(*common, counterexample=counterexample)
        if not self.open:
            return Verified(*common, certificate=tuple(self.proofs))
        reason = Reason.MEMORY if self.starved else Reason.METHOD_INCOMPLETE
        if self.disagreed or self.refused:
            reason = Reason.NO_FILE if replayer is None else Reason.NUMERICAL_DISAGREEMENT
        return Undecided(*common, reason=Reason.TIMEOUT if self.late() else reason)

    @contextmanager
    def sparing(self) -> Iterator[None]:
        """Work without which one can go on: if memory runs out in it, that is noted and not raised."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            self.starved = True

    def climb_ladder(self, replayer: Replayer | None) -> Counterexample | None:
        """All rungs, until one of them decides or the time is over."""
        counterexample = None
        rungs = worthwhile(self.rungs, self.graph, self.few_inputs, self.options.search.splitting)
        for number, name in enumerate(rungs):
            if self.late():
                break
            with self.sparing():
                counterexample = self.stage(name, replayer, more=number + 1 < len(rungs))
            if counterexample is not None or not self.open:
                break
        return counterexample

    def stage(self, name: str, replayer: Replayer | None, more: bool) -> Counterexample | None:
        """One rung, or the attack; records itself. `more` says whether others follow."""
        begun, counterexample = monotonic(), None
        if name in (ATTACK, ATTACK_AGAIN):
            counterexample = self.attack(name, replayer) if replayer is not None else None
            self.method = name if counterexample is not None else self.method
        elif name in (SEARCH, MILP):
            self.method = name
            counterexample = self.search(replayer, more)
        else:
            self.method = name
            self.climb(name)
        self.stages.append(Stage(name, monotonic() - begun, self.bound(), self.count_open()))
        if self.progress is not None:
            self.progress(self.stages[-1])
        return counterexample

    def climb(self, name: str) -> None:
        """Bound everything that is open by one method."""
        still_open: list[int] = []
        before, self.evidence = {batch.numbers: (batch, found) for batch, found in self.evidence}, []
        waiting = self.groups(self.open)
        while waiting:
            numbers = waiting.pop(0)
            if self.late():
                still_open += numbers
                continue
            try:
                batch = self.batch(numbers)
                known = before[numbers][1].relaxation if numbers in before else None
                found = bounding(name)(
                    replace(batch.problem, known=known), self.ladder(), rung_until(name, self.rungs, self.deadline)
                )
                still_open += self.settle(name, batch, found)
                self.evidence.append((batch, found))
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                smaller = self.smaller(numbers)
                waiting = smaller + waiting
                if not smaller:
                    still_open += numbers
                    self.evidence += [before[numbers]] if numbers in before else []
        self.open = still_open

    def smaller(self, numbers: tuple[int, ...]) -> list[tuple[int, ...]]:
        """What to try where memory did not suffice for a batch; nothing if that was the least."""
        memory, half = self.memory.smaller(), len(numbers) // 2
        self.starved, self.memory = self.starved or memory is None, memory or self.memory
        if memory is None:
            return []
        return [numbers[:half], numbers[half:]] if half else [numbers]

    def ladder(self) -> LadderOptions:
        """Options of the rungs, within the memory that there is."""
        ladder = self.options.ladder
        return replace(ladder, intermediate=self.memory.chunks(ladder.intermediate))

    def search(self, replayer: Replayer | None, more: bool) -> Counterexample | None:
        """Branch and bound on everything that is open; the time is shared evenly by the batches."""
        if not self.searches:
            self.searches = [(batch, self._start_search(batch, found, replayer)) for batch, found in self.evidence]
        for left, (batch, search) in zip(range(len(self.searches), 0, -1), self.searches, strict=True):
            with self.sparing():
                search.run(search_until(self.deadline, left, more))
            if self.confirmed:
                return self.confirmed[0]
            result = search.result()
            self.starved = self.starved or result.starved
            for number, margin, done in zip(
                batch.numbers, result.margins.tolist(), result.proved.tolist(), strict=True
            ):
                if number in self.open:
                    self.margins[number] = max(self.margins[number], margin if done else min(margin, 0.0))
            proved = {number for number, done in zip(batch.numbers, result.proved.tolist(), strict=True) if done}
            self.open = [number for number in self.open if number not in proved]
        return None

    def _start_search(self, batch: _Batch, found: Bounds, replayer: Replayer | None) -> Search | MilpSearch:
        def judge(number: int, x: Tensor) -> bool:
            """Whether the search may stop: at a counterexample, or where points that seem to be one prove that it
            cannot end in a proof either."""
            which = batch.numbers[number]
            if replayer is not None:
                point = x.double().cpu().numpy()
                counterexample = replay(replayer, self.original_query.properties[which], point, which)
                if counterexample is not None:
                    self.confirmed.append(counterexample)
                    return True
            self.refused += 1
            return self.refused >= (REFUSALS if replayer is not None else 1)

        def tell(standing: Standing) -> None:
            if self.watch is not None:
                self.watch(replace(standing, subproblems=self.subproblems()))

        wanted = torch.tensor([number in self.open for number in batch.numbers])
        exact = batch.problem if self.dtype == torch.float64 else self.problem(batch.numbers, torch.float64)
        options = self.memory.search(
            worthwhile_search(self.options.search, self.graph, self.few_inputs), len(self.evidence)
        )
        if MILP in self.rungs:
            from verifier.search.milp import MilpSearch  # scipy's sparse matrices behind it

            return MilpSearch(exact, found, wanted, options, judge, tell)
        return Search(batch.problem, exact, found, wanted, options, judge, tell)

    def settle(self, name: str, batch: _Batch, found: Bounds) -> list[int]:
        """Record margins, keep proofs, and return the numbers that stay open."""
        problem, found, proved = self.certified(batch, found)
        least = problem.rows.margins(found.lower).amin(1).tolist()
        for number, margin, done in zip(batch.numbers, least, proved.tolist(), strict=True):
            if not math.isnan(margin):  # a margin that rounding could undo is worth no more than zero
                self.margins[number] = max(self.margins[number], margin if done else min(margin, 0.0))
        if bool(proved.any()):
            self.proofs.append(Proof.of(name, problem, found))
        return [number for number, done in zip(batch.numbers, proved.tolist(), strict=True) if not done]

    def certified(self, batch: _Batch, found: Bounds) -> tuple[Problem, Bounds, Tensor]:
        """See `certify`."""
        return certify(batch.problem, found, lambda: self.problem(batch.numbers, torch.float64))

    def attack(self, name: str, replayer: Replayer) -> Counterexample | None:
        options = replace(self.options.attack, rounds=1, seed=self.options.seed)
        if name == ATTACK_AGAIN:
            options = replace(options, rounds=MORE_ROUNDS, seed=self.options.seed + 1)
        targets = Query(tuple(self.query.properties[i] for i in self.open), self.query.name)
        found = attack(self.placed, targets, options, replayer, attack_until(self.deadline))
        if not isinstance(found, Counterexample):
            self.disagreed = self.disagreed or found.margin <= 0
            return None
        return replace(found, property=self.open[found.property])

    def groups(self, numbers: Sequence[int]) -> list[tuple[int, ...]]:
        """Properties in batches that fit memory."""
        widest = max(math.prod(shape) for shape in self.graph.shapes.values())
        rows = max((sum(len(p.d) for p in self.query.properties[i].unsafe) for i in numbers), default=1)
        room = self.memory.work(BATCH_NUMBERS * self.dtype.itemsize) // self.dtype.itemsize
        size = max(1, room // (widest * max(1, rows)))
        return [tuple(numbers[start : start + size]) for start in range(0, len(numbers), size)]

    def batch(self, numbers: tuple[int, ...]) -> _Batch:
        return _Batch(numbers, self.problem(numbers, self.dtype))

    def problem(self, numbers: Sequence[int], dtype: torch.dtype) -> Problem:
        properties: list[Property] = [self.query.properties[i] for i in numbers]
        region = stack([prop.region for prop in properties]).to(dtype, self.device)
        graph = self.placed if dtype == self.dtype else place(self.graph, dtype, self.device)
        return Problem(graph, region, stack_rows(self.graph, properties, dtype, self.device))

    def bound(self) -> float | None:
        least = min(self.margins)
        return least if math.isfinite(least) else None

    def subproblems(self) -> int:
        return sum(search.subproblems for _, search in self.searches)

    def count_open(self) -> int:
        return sum(len(self.query.properties[i].unsafe) for i in self.open)

    def late(self) -> bool:
        return self.deadline is not None and monotonic() > self.deadline
