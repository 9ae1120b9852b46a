"""Comparisons as tables for people. rich is imported where a table is made."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING

from verifier.analysis.comparison import Comparison, Entry, Summary, summarise

if TYPE_CHECKING:
    from rich.table import Table

#: layers whose width ratios are shown one by one; of more only the mean
_MOST_LAYERS = 6
#: characters of a line where there is no terminal to ask
_WIDE = 200
_NONE = "-"


def query_table(comparison: Comparison, title: str = "") -> Table:
    """One query: a line for each method, and one for the attack."""
    columns = ["method", "bound", "verified", "gap closed", "width by layer", "area", "seconds", "rows", "memory"]
    entries = comparison.entries
    shown = {
        "joint": any(entry.joint is not None for entry in entries),
        "radius": any(entry.certified_epsilon is not None for entry in entries),
        "boxes": any(entry.boxes != "own" for entry in entries),
        "remark": any(entry.reason is not None for entry in entries),
    }
    table = _table([*columns, *(name for name, wanted in shown.items() if wanted)], title)
    for entry in entries:
        extra = {
            "joint": _number(entry.joint, ".2f"),
            "radius": _number(entry.certified_epsilon, ".4g"),
            "boxes": entry.boxes if entry.bound is not None else _NONE,
            "remark": entry.reason or "",
        }
        table.add_row(
            entry.method,
            _number(entry.bound, "+.4f"),
            _NONE if entry.bound is None else "[green]yes[/]" if entry.verified else "[yellow]no[/]",
            _number(entry.gap_closed, ".2%"),
            _widths(entry),
            _number(entry.area, ".3g"),
            f"{entry.seconds:.2f}",
            _NONE if entry.rows is None else f"{entry.rows:,}",
            _NONE if entry.bound is None else f"{entry.memory / 2**20:.1f} MiB",
            *(value for name, value in extra.items() if shown[name]),
        )
    table.add_section()
    word = "[red]falsified[/]" if comparison.falsified else ""
    table.add_row("attack", _number(comparison.upper, "+.4f"), word, "" if comparison.upper is None else "100.00%")
    return table


def summary_table(comparisons: Sequence[Comparison]) -> Table:
    """All queries: a line for each method."""
    rows = summarise(comparisons)
    radius = any(row.certified_epsilon is not None for row in rows)
    columns = ["method", "verified", "bounded", "mean gap closed", "mean width", "median seconds", "most memory"]
    falsified = sum(comparison.falsified for comparison in comparisons)
    title = f"{len(comparisons)} queries, {falsified} of them falsified by the attack"
    table = _table(columns + ["mean radius"] * radius, title)
    for row in rows:
        table.add_row(*_summary_cells(row), *[_number(row.certified_epsilon, ".4g")] * radius)
    return table


def as_text(comparisons: Sequence[Comparison]) -> str:
    """All tables as plain text."""
    tables = [query_table(comparison, comparison.name) for comparison in comparisons]
    return "\n".join(plain(table) for table in tables + [summary_table(comparisons)] * (len(comparisons) > 1))


def plain(table: Table) -> str:
    """A table as lines of text, without colours, and as wide as it wants to be."""
    from rich.console import Console

    text = StringIO()
    Console(file=text, width=_WIDE, highlight=False, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def _summary_cells(row: Summary) -> list[str]:
    return [
        row.method,
        f"{row.verified}/{row.queries}",
        f"{row.bounded}/{row.queries}",
        _number(row.gap_closed, ".2%"),
        _number(row.width, ".2f"),
        _number(row.seconds, ".2f"),
        f"{row.memory / 2**20:.1f} MiB",
    ]


def _table(columns: Sequence[str], title: str) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title) or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        text = name in ("method", "verified", "width by layer", "boxes", "remark")
        table.add_column(name, justify="left" if text else "right", no_wrap=name != "remark", overflow="fold")
    return table


def _widths(entry: Entry) -> str:
    widths = [layer.width for layer in entry.layers]
    if len(widths) > _MOST_LAYERS:
        return f"{_number(entry.width, '.2f')} (mean of {len(widths)})"
    return " ".join(_number(width, ".2f") for width in widths) or _NONE


def _number(value: float | None, form: str) -> str:
    return _NONE if value is None else format(value, form)
