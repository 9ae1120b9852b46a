"""What every search keeps: open subproblems, margins of closed ones, and candidates for counterexamples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

import torch
from torch import Tensor

from verifier.bounding.ladder import Problem
from verifier.errors import out_of_memory
from verifier.operators import evaluate
from verifier.search.result import Replay, SearchOptions, SearchResult, Standing, Watch
from verifier.search.store import Fields, Store
from verifier.search.targets import Targets

#: seconds between two reports
_REPORT_EVERY = 0.1


@dataclass
class Ledger:
    """The books of one search, the only part of it that changes.

    Args:
        least: (B,) least margin of any closed subproblem of each property.
        failed: (B,) properties that were not wanted, or have a subproblem that can neither be closed nor split.
        size: subproblems that a step takes; less once memory has run out.
        watch: told where the search is.
        closed: how many were proved.
        starved: not even one subproblem can be split for want of memory.
        lost: subproblems were taken out and are in no book, so nothing counts as proved.
    """

    problem: Problem
    options: SearchOptions
    replay: Replay
    targets: Targets
    store: Store
    least: Tensor
    failed: Tensor
    size: int
    watch: Watch | None = None
    subproblems: int = 0
    closed: int = 0
    falsified: bool = False
    starved: bool = False
    lost: bool = False
    reported: float = 0.0

    @classmethod
    def of(
        cls,
        problem: Problem,
        wanted: Tensor,
        size: int,
        options: SearchOptions,
        replay: Replay,
        watch: Watch | None = None,
    ) -> Ledger:
        like = problem.rows.objective.C
        count, failed = like.shape[0], ~wanted.to(like.device)
        targets, store = Targets.of(problem.rows), Store(options.memory)
        least = like.new_full((count,), torch.inf)
        return cls(problem, options, replay, targets, store, least, failed, size, watch)

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

    def close(self, margins: Tensor, owner: Tensor) -> None:
        """Record margins (N,) of subproblems that were just closed; +inf where there is none."""
        self.least.scatter_reduce_(0, owner, margins, "amin")

    def give_up(self, owner: Tensor) -> None:
        """Subproblems of these properties can neither be closed nor split."""
        self.failed[owner] = True

    def run(self, step: Callable[[dict[str, Tensor]], None], until: float | None) -> None:
        """Repeat a step until nothing is open, a counterexample is confirmed, memory ends, or the time is over.

        Args:
            step: takes subproblems, and pushes what is left of them as its last act.
        """
        while not self.stuck and not (until is not None and monotonic() >= until):
            self.advance(step)
            self._report()

    def advance(self, step: Callable[[dict[str, Tensor]], None]) -> None:
        """One step; where it fails its subproblems go back, and where memory ended the next one is smaller."""
        self.lost = True
        batch = self.store.pop(max(1, min(self.size, self.store.room)))  # a split makes two of one
        try:
            step(dict(batch))
        except BaseException as error:
            self.store.push(batch)
            if not out_of_memory(error):
                self.lost = False
                raise
            self.starved, self.size = len(batch["bound"]) == 1, max(1, len(batch["bound"]) // 2)
        self.lost = False

    def _report(self) -> None:
        now = monotonic()
        if self.watch is not None and now - self.reported > _REPORT_EVERY:
            self.reported = now
            bound = min(self.store.least, float(self.least.min()))
            self.watch(Standing(self.subproblems, self.closed, len(self.store), bound))

    def push(self, fields: Fields) -> None:
        self.store.push(fields)

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
            if margin <= 0 and self.replay(int(owner[i]), points[i]):
                self.falsified = True
                return
