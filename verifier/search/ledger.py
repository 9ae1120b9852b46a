"""What every search keeps: open subproblems, margins of closed ones, and candidates for counterexamples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import RLock
from time import monotonic

import torch
from torch import Tensor

from verifier.bounding.ladder import Problem
from verifier.errors import out_of_memory
from verifier.operators import evaluate
from verifier.search.result import Replay, SearchOptions, SearchResult, Standing, Watch
from verifier.search.store import Fields, Store
from verifier.search.targets import Targets
from verifier.workers import Workers

#: a worker's share of a step is at least one part in so many of the usual size: threads of short operations wait for
#: each other
SMALL = 32

#: takes subproblems, and returns what is left of them
Step = Callable[[dict[str, Tensor]], Sequence[Fields]]

#: seconds between two reports
_REPORT_EVERY = 0.1


@dataclass
class Ledger:
    """The books of one search, the only part of it that changes; several threads may write into them.

    Args:
        least: (B,) least margin of any closed subproblem of each property.
        failed: (B,) properties that were not wanted, or have a subproblem that can neither be closed nor split.
        size: subproblems that a step takes; less once memory has run out.
        workers: take a step each, side by side; one once memory has run out.
        watch: told where the search is.
        closed: how many were proved.
        starved: not even one subproblem can be split for want of memory.
        room: subproblems that a step in progress may return.
        lost: subproblems were taken out and are in no book, so nothing counts as proved, now or later.
    """

    problem: Problem
    options: SearchOptions
    replay: Replay
    targets: Targets
    store: Store
    least: Tensor
    failed: Tensor
    size: int
    workers: Workers
    watch: Watch | None = None
    subproblems: int = 0
    closed: int = 0
    falsified: bool = False
    starved: bool = False
    lost: bool = False
    room: int = 0
    reported: float = 0.0
    lock: RLock = field(default_factory=RLock)

    @classmethod
    def of(
        cls,
        problem: Problem,
        wanted: Tensor,
        size: int,
        options: SearchOptions,
        replay: Replay,
        watch: Watch | None = None,
        workers: Workers | None = None,
    ) -> Ledger:
        like = problem.rows.objective.C
        count, failed = like.shape[0], ~wanted.to(like.device)
        targets, store = Targets.of(problem.rows), Store(options.memory)
        least = like.new_full((count,), torch.inf)
        workers = workers or Workers.on(like.device)
        return cls(problem, options, replay, targets, store, least, failed, size, workers, watch)

    @property
    def finished(self) -> bool:
        return self.falsified or len(self.store) == 0

    @property
    def stuck(self) -> bool:
        """Whether no step is left to take."""
        return self.finished or self.starved

    def remaining(self) -> float:
        """What is left to do: every split halves the weight of a subproblem."""
        return float((0.5 ** self.store.numbers()["depth"].double()).sum())

    def count(self, bounded: int = 0, closed: int = 0) -> None:
        """So many subproblems more were bounded, and so many proved."""
        with self.lock:
            self.subproblems += bounded
            self.closed += closed

    def close(self, margins: Tensor, owner: Tensor) -> None:
        """Record margins (N,) of subproblems that were just closed; +inf where there is none."""
        with self.lock:
            self.least.scatter_reduce_(0, owner, margins, "amin")

    def give_up(self, owner: Tensor) -> None:
        """Subproblems of these properties can neither be closed nor split."""
        with self.lock:
            self.failed[owner] = True

    def run(self, step: Step, until: float | None) -> None:
        """Repeat a step until nothing is open, a counterexample is confirmed, memory ends, or the time is over."""
        while not self.stuck and not (until is not None and monotonic() >= until):
            self.advance(step)
            self._report()

    def advance(self, step: Step) -> None:
        """A step of every worker, or of fewer where there is little to do, each on subproblems of its own.

        Where one fails, its subproblems go back; where memory ended, the next ones are smaller and one at a time.
        """
        free = self.store.room  # every split makes two of one
        many = self.workers.count
        batch = self.store.pop(max(1, min(self.size * many, free)))
        lost, self.lost = self.lost, True  # until all of it is in the books again
        count = len(batch["bound"])
        many = min(many, max(1, count // max(1, self.size // SMALL)))
        parts = [{name: value[first::many] for name, value in batch.items()} for first in range(many)]
        self.room = (free + count) // len(parts)
        failures = []
        for part, left in zip(parts, self.workers.outcomes(lambda part: step(dict(part)), parts), strict=True):
            try:
                for fields in left():
                    self.store.push(fields)
            except Exception as error:
                self.store.push(part)
                failures.append(error)
        self.lost = lost
        if failures:
            self._shrink(failures, max(len(part["bound"]) for part in parts))

    def _shrink(self, failures: Sequence[Exception], size: int) -> None:
        """Smaller steps after some for which memory ended; any other failure is not ours to mend."""
        for error in failures:
            if not out_of_memory(error):
                raise error
        self.starved = size == 1 and self.workers.count == 1
        self.size, self.workers = max(1, size // 2), Workers(1)

    def _report(self) -> None:
        now = monotonic()
        if self.watch is not None and now - self.reported > _REPORT_EVERY:
            self.reported = now
            bound = min(self.store.least, float(self.least.min()))
            self.watch(Standing(self.subproblems, self.closed, len(self.store), bound))

    def restart(self, fields: Fields) -> None:
        """Subproblems in place of all that are open; together they cover everything that is wanted."""
        store = Store(self.options.memory)
        store.push(fields)
        self.store = store

    def result(self) -> SearchResult:
        margins, proved = self.least.clone(), ~self.failed
        left = self.store.numbers()
        if left:
            margins.scatter_reduce_(0, left["owner"], left["bound"], "amin")
            proved[left["owner"]] = False
        margins[self.failed] = -torch.inf
        if self.falsified or self.lost:  # the search ended in the middle of a batch, which is in no book
            proved[:], margins[:] = False, -torch.inf
        return SearchResult(margins, proved, self.falsified, self.subproblems, self.starved)

    def try_points(self, points: Tensor, owner: Tensor) -> None:
        """Replay the most promising of points (N, *X) that belong to properties `owner` (N,)."""
        margins = self.targets.values(evaluate(self.problem.graph, points), owner).amin(1)
        least = margins.topk(min(self.options.candidates, len(margins)), largest=False)
        for margin, i in zip(least.values.tolist(), least.indices.tolist(), strict=True):
            if margin <= 0 and self._confirmed(int(owner[i]), points[i]):
                return

    def _confirmed(self, owner: int, point: Tensor) -> bool:
        """Whether a point, or another one before it, is a counterexample."""
        with self.lock:
            self.falsified = self.falsified or self.replay(owner, point)
            return self.falsified
