"""Complete verification: the choice between splitting the input and splitting activations, by what is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import monotonic
from typing import Protocol

import torch
from torch import Tensor

from verifier.bounding.ladder import Bounds, Problem
from verifier.search.activation_split import ActivationSplit
from verifier.search.input_split import InputSplit
from verifier.search.ledger import Ledger
from verifier.search.result import Replay, SearchOptions, SearchResult, Watch
from verifier.specs.box import flat
from verifier.specs.region import Box, Region

#: first share of time that each way of splitting gets, in seconds; it doubles from round to round
_FIRST_SLICE = 4.0


class _Splitting(Protocol):
    ledger: Ledger

    def run(self, until: float | None) -> None: ...


def free_dimensions(region: Region) -> float:
    """Coordinates of a box that are not fixed, the most of the batch; infinite for other sets."""
    if not isinstance(region, Box):
        return float("inf")
    return int(flat(region.upper > region.lower).sum(1).max())


class Search:
    """Branch and bound that can be continued: `run` works until a time, `result` says where it stands.

    With few free coordinates the input is split first, and activations in turn with it while neither is done: the
    way that has less left to do gets the next, doubled slice of time.

    Args:
        problem: a batch of properties.
        exact: the same in float64.
        root: bounds of the batch; activation splitting starts from their boxes and dual point.
        wanted: (B,) properties that are to be decided.
        replay: judges points that look like counterexamples.
        watch: told now and then where the way at work is.
    """

    def __init__(
        self,
        problem: Problem,
        exact: Problem,
        root: Bounds,
        wanted: Tensor,
        options: SearchOptions,
        replay: Replay,
        watch: Watch | None = None,
    ):
        self.wanted = wanted = wanted.to(problem.rows.objective.C.device)
        few = free_dimensions(problem.region) <= options.input_dimensions
        if few and options.splitting == "auto":
            options = replace(options, memory=options.memory // 2)  # each way has a store of its own

        def by_input() -> _Splitting:
            return InputSplit(exact, wanted, options, replay, watch)

        def by_activation() -> _Splitting:
            return ActivationSplit(problem, exact, root, wanted, options, replay, watch)

        ways = {"input": [by_input], "activation": [by_activation], "auto": [by_input] * few + [by_activation]}
        self._ways: list[Callable[[], _Splitting]] = ways[options.splitting]
        self._started: list[_Splitting] = []
        self._slice = _FIRST_SLICE

    @property
    def finished(self) -> bool:
        return any(way.ledger.finished and not self._gave_up(way) for way in self._started)

    @property
    def subproblems(self) -> int:
        """How many were bounded."""
        return sum(way.ledger.subproblems for way in self._started)

    def run(self, until: float | None) -> None:
        """Search until everything wanted is decided, no way can go on, or the time is over."""
        while not self.finished and (until is None or monotonic() < until):
            if len(self._started) < len(self._ways):
                self._started.append(self._ways[len(self._started)]())
                way = self._started[-1]
            else:
                able = [way for way in self._started if not way.ledger.stuck]
                if not able:
                    return
                way = min(able, key=lambda way: way.ledger.remaining())
                self._slice *= 2
            stop = None if len(self._ways) == 1 else monotonic() + self._slice
            ends = [end for end in (until, stop) if end is not None]
            way.run(min(ends) if ends else None)

    def result(self) -> SearchResult:
        """The best of all ways for every property."""
        found = [way.ledger.result() for way in self._started]
        if not found:
            margins = torch.full(self.wanted.shape, -torch.inf, dtype=torch.float64)
            return SearchResult(margins, torch.zeros_like(self.wanted), False, 0)
        return SearchResult(
            margins=torch.stack([r.margins.double() for r in found]).amax(0),
            proved=torch.stack([r.proved for r in found]).any(0) & self.wanted,
            falsified=any(r.falsified for r in found),
            subproblems=self.subproblems,
            starved=all(r.starved for r in found),
        )

    def _gave_up(self, way: _Splitting) -> bool:
        ledger = way.ledger
        return (ledger.lost or bool((ledger.failed & self.wanted).any())) and not ledger.falsified
