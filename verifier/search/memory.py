"""Where memory goes: what share of a limit each part may take."""

from __future__ import annotations

from dataclasses import dataclass, replace

from verifier.bounding.intermediate import IntermediateOptions
from verifier.search.result import SearchOptions

#: of a limit, the share of all open subproblems together; the rest is for work in hand
_STORE = 2
#: of a limit, the share that the rows of one batch may take in the widest layer; a pass needs a few times as much for
#: every layer that it has to keep
_WORK = 64
#: work is halved no further than this many times
_MOST_HALVINGS = 8


@dataclass(frozen=True)
class Memory:
    """A limit in bytes for what is computed with (the packages themselves take about 400 MiB besides), and how often
    the work in hand was halved because there was less than that."""

    limit: int
    halvings: int = 0

    def smaller(self) -> Memory | None:
        """Half of the work in hand; None where nothing is left to halve."""
        return replace(self, halvings=self.halvings + 1) if self.halvings < _MOST_HALVINGS else None

    def work(self, wish: int) -> int:
        """Bytes for the rows of one batch in the widest layer where `wish` would be best."""
        return max(1, min(wish, self.limit // _WORK) >> self.halvings)

    def chunks(self, options: IntermediateOptions) -> IntermediateOptions:
        """Chunks of rows that fit."""
        return replace(options, chunk_bytes=self.work(options.chunk_bytes))

    def search(self, options: SearchOptions, searches: int) -> SearchOptions:
        """Options of one of several searches that share the limit evenly."""
        return replace(
            options,
            memory=min(options.memory, self.limit // _STORE // max(1, searches)),
            batch_bytes=self.work(options.batch_bytes),
            subproblem_bytes=self.work(options.subproblem_bytes),
            intermediate=self.chunks(options.intermediate),
        )
