"""What came of every query with every tool, kept as soon as it is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, TypeVar

#: how this project's own tool is called in rows and tables
OWN = "verifier"


@dataclass(frozen=True)
class Row:
    """What came of one query with one tool.

    Args:
        verdict: ``sat``, ``unsat``, ``unknown``, ``timeout`` or ``error``.
        seconds: wall time of the whole process.
        engine_seconds: of it, what the engine counts as its own; the rest is process start and reading.
        method: what decided, or the reason for no answer.
        refutes: a ``sat`` whose witness an independent reading confirms although ``unsat`` was expected: the label
            does not belong to these files.
        tool: whose answer it is.
        peak: MiB of memory at most, None where it was not measured.
        subproblems: how many a search bounded, None where that is not known.
    """

    key: str
    family: str
    expected: str
    verdict: str
    seconds: float
    engine_seconds: float | None
    method: str
    refutes: bool = False
    tool: str = OWN
    peak: float | None = None
    subproblems: int | None = None

    @property
    def solved(self) -> bool:
        return self.verdict in ("sat", "unsat") and not self.wrong

    @property
    def wrong(self) -> bool:
        return {self.verdict, self.expected} == {"sat", "unsat"} and not self.refutes


class Keyed(Protocol):
    """A query that rows can name."""

    @property
    def key(self) -> str: ...


Q = TypeVar("Q", bound=Keyed)


def run_all(
    instances: Sequence[Q], tools: Mapping[str, Callable[[Q, float], Row]], timeout: float, jobs: int, out: Path | None
) -> Iterator[Row]:
    """Rows in the order in which they finish; what `out` already holds is not run again.

    All tools come to a query before any comes to the next one.
    """
    done = {(row.tool, row.key): row for row in read_rows(out)} if out else {}
    pairs = [(name, instance) for instance in instances for name in tools]
    yield from (done[name, i.key] for name, i in pairs if (name, i.key) in done)
    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(tools[name], i, timeout) for name, i in pairs if (name, i.key) not in done]
        try:
            for future in as_completed(waiting):
                row = future.result()
                if out:
                    with out.open("a") as file:
                        file.write(json.dumps(asdict(row)) + "\n")
                yield row
        finally:
            pool.shutdown(cancel_futures=True)  # after an error or an interrupt nothing more is started


def read_rows(path: Path) -> list[Row]:
    """Rows of an earlier run."""
    return [Row(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []
