"""What commands show while they work and at their end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


class Status:
    """A line on the terminal that says what is at work; nothing where there is no terminal.

    Args:
        wanted: show it.
    """

    def __init__(self, wanted: bool):
        self._line = None
        if wanted and sys.stderr.isatty():
            from rich.console import Console

            self._line = Console(stderr=True).status("reading")

    def show(self, what: str) -> None:
        if self._line is not None:
            self._line.update(what)

    def __enter__(self) -> Status:
        if self._line is not None:
            self._line.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._line is not None:
            self._line.stop()


def print_table(table: Table) -> None:
    """In colours on a terminal, as plain text elsewhere."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console(highlight=False).print(table)
    else:
        from verifier.analysis.tables import plain

        print(plain(table), flush=True)
