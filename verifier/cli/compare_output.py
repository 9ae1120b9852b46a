"""What `compare` shows and writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verifier.cli.request import Inputs, Request
from verifier.cli.results import versions

if TYPE_CHECKING:
    from rich.status import Status
    from rich.table import Table

    from verifier.analysis.comparison import Comparison


@dataclass(frozen=True)
class Compared:
    """One query and what the methods made of it.

    Args:
        request: the call that it is part of.
        number: its place among the request's queries.
        label: class of a data set's input.
        sha256: of the network.
        found: the comparison.
    """

    request: Request
    number: int
    label: int | None
    sha256: str | None
    found: Comparison

    def spec(self) -> str | dict[str, Any]:
        """The JSON field ``spec``, as of `verify`."""
        what = self.request.what
        return what.spec(self.number, self.label) if isinstance(what, Inputs) else str(what)

    def name(self) -> str:
        what = self.request.what
        if not isinstance(what, Inputs):
            return Path(what).name
        return f"index {what.indices[self.number]}, label {self.label}, epsilon {what.epsilon:.4g}"

    def title(self, count: int) -> str:
        """Of a picture of so many queries."""
        what, network = self.request.what, self.request.network.name
        if not isinstance(what, Inputs) or count == 1:
            return f"{network}: {self.name()}"
        return f"{network}: {count} inputs of {Path(what.dataset).name}, epsilon {what.epsilon:.4g}"


def document(made: Sequence[Compared]) -> str:
    """The text of ``--json``: ``results``, one query a line, ``summary`` and ``versions``."""
    from verifier.analysis.export import as_object, summary_objects

    results = [
        {
            "query": {"network": str(one.request.network), "sha256": one.sha256, "spec": one.spec()},
            **as_object(one.found),
        }
        for one in made
    ]
    lines = ",\n".join(json.dumps(result, allow_nan=False) for result in results)
    summary = json.dumps(summary_objects([one.found for one in made]), allow_nan=False)
    return f'{{"results": [\n{lines}\n],\n"summary": {summary},\n"versions": {json.dumps(versions())}}}\n'


def csv_text(made: Sequence[Compared]) -> str:
    """The text of ``--csv``."""
    from verifier.analysis.export import as_csv

    return as_csv([one.found for one in made], [_columns(one) for one in made])


def _columns(one: Compared) -> dict[str, Any]:
    spec = one.spec()
    columns: dict[str, Any] = {"network": str(one.request.network)}
    if isinstance(spec, str):
        return columns | {"spec": spec}
    return columns | {name: spec[name] for name in ("dataset", "index", "label", "epsilon", "norm")}


class Screen:
    """Shows the queries of one call: a table of each as soon as it is known, at the end one of all.

    Args:
        answers: print the tables.
        progress: show what is at work, on a terminal.
        total: number of queries.
    """

    def __init__(self, answers: bool, progress: bool, total: int):
        self.answers, self.total, self.number = answers, total, 0
        self.status: Status | None = None
        if progress and sys.stderr.isatty():
            from rich.console import Console

            self.status = Console(stderr=True).status("reading")
            self.status.start()

    def begin(self, number: int) -> None:
        self.number = number

    def method(self, name: str) -> None:
        if self.status is not None:
            self.status.update(f"query {self.number + 1} of {self.total}: {name}")

    def finish(self, one: Compared) -> None:
        if not self.answers:
            return
        from verifier.analysis.tables import query_table

        if self.status is not None:
            self.status.stop()
        _print(query_table(one.found, one.name()))
        if self.status is not None:
            self.status.start()

    def close(self, made: Sequence[Compared]) -> None:
        """The table of all queries."""
        self.stop()
        if self.answers and self.total > 1:
            from verifier.analysis.tables import summary_table

            _print(summary_table([one.found for one in made]))

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the status off the terminal."""
        if self.status is not None:
            self.status.stop()


def _print(table: Table) -> None:
    """In colours on a terminal, as plain text elsewhere."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console(highlight=False).print(table)
    else:
        from verifier.analysis.tables import plain

        print(plain(table), flush=True)
