"""What every search keeps: open subproblems, margins of closed ones, and candidates for counterexamples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

import torch
from torch import Tensor

from verifier.bounding.ladder import Problem
from verifier.operators import evaluate
from verifier.search.result import Replay, SearchOptions, SearchResult
from verifier.search.store import Fields, Store
from verifier.search.targets import Targets


@dataclass
class Ledger:
    """The books of one search, the only part of it that changes.

    Args:
        least: (B,) least margin of any closed subproblem of each property.
        failed: (B,) properties that were not wanted, or have a subproblem that can neither be closed nor split.
    """

    problem: Problem
    options: SearchOptions
    replay: Replay
    targets: Targets
    store: Store
    least: Tensor
    failed: Tensor
    subproblems: int = 0
    falsified: bool = False

    @classmethod
    def of(cls, problem: Problem, wanted: Tensor, options: SearchOptions, replay: Replay) -> Ledger:
        like = problem.rows.objective.C
        count, failed = like.shape[0], ~wanted.to(like.device)
        targets, store = Targets.of(problem.rows), Store(options.memory)
        return cls(problem, options, replay, targets, store, like.new_full((count,), torch.inf), failed)

    @property
    def finished(self) -> bool:
        return self.falsified or len(self.store) == 0

    def remaining(self) -> float:
        """What is left to do: every split halves the weight of a subproblem."""
        return float((0.5 ** self.store.numbers()["depth"].double()).sum())

    def close(self, margins: Tensor, owner: Tensor) -> None:
        """Record margins (N,) of subproblems that were just closed; +inf where there is none."""
        self.least.scatter_reduce_(0, owner, margins, "amin")

    def give_up(self, owner: Tensor) -> None:
        """Subproblems of these properties can neither be closed nor split."""
        self.failed[owner] = True

    def run(self, step: Callable[[], None], until: float | None) -> None:
        """Repeat a step until nothing is open, a counterexample is confirmed, or the time is over.

        A step takes subproblems out; if it is interrupted they are lost, so then nothing counts as proved any more.
        """
        try:
            while not self.finished and not (until is not None and monotonic() >= until):
                step()
        except BaseException:
            self.failed[:] = True
            raise

    def push(self, fields: Fields) -> None:
        self.store.push(fields)

    def result(self) -> SearchResult:
        margins, proved = self.least.clone(), ~self.failed
        left = self.store.numbers()
        if left:
            margins.scatter_reduce_(0, left["owner"], left["bound"], "amin")
            proved[left["owner"]] = False
        margins[self.failed] = -torch.inf
        if self.falsified:  # the search ended in the middle of a batch, which is in no book
            proved[:], margins[:] = False, -torch.inf
        return SearchResult(margins, proved, self.falsified, self.subproblems)

    def try_points(self, points: Tensor, owner: Tensor) -> None:
        """Replay the most promising of points (N, *X) that belong to properties `owner` (N,)."""
        margins = self.targets.values(evaluate(self.problem.graph, points), owner).amin(1)
        least = margins.topk(min(self.options.candidates, len(margins)), largest=False)
        for margin, i in zip(least.values.tolist(), least.indices.tolist(), strict=True):
            if margin <= 0 and self.replay(int(owner[i]), points[i]):
                self.falsified = True
                return
