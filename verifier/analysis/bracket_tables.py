"""Brackets as a table for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from verifier.analysis.brackets import Bracket
from verifier.analysis.measured import Measured

if TYPE_CHECKING:
    from rich.table import Table

_COLUMNS = ("index", "label", "predicted", "certified", "attacked", "gap", "exact", "verified by", "attack", "seconds")
_TEXTS = ("verified by", "attack")


def bracket_table(made: Sequence[Measured]) -> Table:
    """A line for each input (and target), and one for all."""
    from rich import box
    from rich.table import Table

    norm = made[0].spec["norm"] if made else "inf"
    title = f"{len(made)} margins in the norm {norm}: {summary([one.bracket for one in made])}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name in _TEXTS else "right", no_wrap=True)
    for one in made:
        _add(table, one.bracket, str(one.index), str(one.spec["label"]))
        for bracket in one.bracket.classes:
            _add(table, bracket, f"to {bracket.target}", "")
    return table


def summary(brackets: Sequence[Bracket]) -> str:
    """How many are exact, which inputs are misclassified, and the middle of the ends."""
    exact = sum(bracket.exact for bracket in brackets)
    wrong = sum(bracket.correct is False for bracket in brackets)
    words = [f"{exact} exact", f"{wrong} misclassified"]
    if brackets:
        ends = median(b.lower for b in brackets), median(b.upper for b in brackets)
        words.append(f"medians {_number(ends[0])} to {_number(ends[1])}")
    return ", ".join(words)


def _add(table: Table, bracket: Bracket, index: str, label: str) -> None:
    gap = bracket.upper - bracket.lower
    table.add_row(
        index,
        label,
        f"{bracket.label}" if bracket.correct is not False else f"[yellow]{bracket.label}[/]",
        _number(bracket.lower),
        _number(bracket.upper),
        "-" if math.isnan(gap) or math.isinf(gap) else f"{gap:.2g}",
        "[green]yes[/]" if bracket.exact else "no",
        bracket.method or "-",
        bracket.attack or "-",
        f"{bracket.seconds:.2f}",
    )


def _number(value: float) -> str:
    return "inf" if math.isinf(value) else f"{value:.5f}"
