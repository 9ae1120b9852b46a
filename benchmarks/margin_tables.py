"""Tables of `benchmarks.margin_models`: means over seeds, and what the switch changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe

Row = dict[str, Any]

#: a switched loss, and the one that it switches
PAIRS = (("sovr", "pgd"), ("tsovr", "trades"), ("certified-sovr", "ibp"))
_MARGINS = (
    *("loss", "seeds", "natural %", "robust %", "certified %", "margin", "brittle", "tau certified", "tau attacked"),
    *("AUROC %", "FPR95 %"),
)
_LOGITS = ("loss", "images", "accuracy %", "max logit", "gap", "LM loss", "confidence", "gradient", "peaks of LM")


def show(rows: Sequence[Row]) -> None:
    """Both tables, the differences, and the machine."""
    console = Console(width=165)
    first = rows[0]["setting"]
    dataset, epsilon, images = (first[name] for name in ("dataset", "epsilon", "images"))
    title = f"{dataset}, epochs: {first['epochs']}, width: {first['width']}, epsilon {epsilon:g}, {images} test images"
    console.print(_margin_table(rows, title))
    console.print(_logit_table(rows))
    for line in differences(rows):
        console.print(line, highlight=False, soft_wrap=True)
    wrong = sum(row["contradictions"] for row in rows)
    console.print(f"{wrong} images both certified and broken; means over seeds, from the certified to the attacked end")
    console.print(describe())


def differences(rows: Sequence[Row]) -> Iterator[str]:
    """What a switched loss changes against the one that it switches, seed by seed."""
    for one, other in PAIRS:
        mine = {row["setting"]["seed"]: row for row in rows if row["setting"]["loss"] == one}
        theirs = {row["setting"]["seed"]: row for row in rows if row["setting"]["loss"] == other}
        shared = sorted(mine.keys() & theirs.keys())
        if not shared:
            continue
        parts = []
        for words, get, scale, unit in (
            ("natural accuracy", lambda row: row["natural"], 100, " points"),
            ("robust accuracy", lambda row: row["robust"], 100, " points"),
            ("certified accuracy", lambda row: row["certified"], 100, " points"),
            ("median attacked margin", lambda row: row["margin"][1], 1, ""),
            ("mean LM loss under attack", lambda row: row["logits"]["attacked"]["LM loss"], 1, ""),
        ):
            gains = [scale * (get(mine[seed]) - get(theirs[seed])) for seed in shared]
            parts.append(f"{words} {_signed(gains)}{unit}")
        yield f"{one} less {other} (seeds: {len(shared)}): {', '.join(parts)}"


def _margin_table(rows: Sequence[Row], title: str) -> Table:
    table = Table(*_MARGINS, title=title)
    for loss, same in groups(rows):
        table.add_row(
            loss,
            str(len(same)),
            *(_spread([100 * row[name] for row in same]) for name in ("natural", "robust", "certified")),
            _ends(same, lambda row: row["margin"], "{:.4f}"),
            _ends(same, lambda row: row["brittle"], "{:.0f}"),
            _ends(same, lambda row: row["tau"], "{:+.3f}"),
            _mean([row["tau_attacked"] for row in same], "{:.3f}"),
            _ends(same, lambda row: row["auroc"], "{:.2f}", 100),
            _ends(same, lambda row: row["fpr95"], "{:.2f}", 100),
        )
    return table


def _logit_table(rows: Sequence[Row]) -> Table:
    table = Table(*_LOGITS)
    for loss, same in groups(rows):
        for kind in ("clean", "attacked"):
            found = [row["logits"][kind] for row in same]
            places = "; ".join(", ".join(f"{place:.1f}" for place in one["LM peaks"]) for one in found)
            means = [_mean([one[name] for one in found], "{:.3f}") for name in _LOGITS[3:8]]
            table.add_row(loss, kind, _spread([100 * one["accuracy"] for one in found]), *means, places)
    return table


def groups(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """The rows of every loss, in the order of their first."""
    for loss in dict.fromkeys(row["setting"]["loss"] for row in rows):
        yield loss, [row for row in rows if row["setting"]["loss"] == loss]


def _spread(values: Sequence[float]) -> str:
    """Mean, and standard deviation where there are several."""
    return f"{fmean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def _signed(values: Sequence[float]) -> str:
    return f"{fmean(values):+.3g}" + (f" ± {stdev(values):.2g}" if len(values) > 1 else "")


def _mean(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return form.format(fmean(known)) if known else "-"


def _ends(rows: Sequence[Row], get: Callable[[Row], list[float] | None], form: str, scale: float = 1) -> str:
    """Mean lower and upper ends, of the rows that have them."""
    pairs = [pair for row in rows if (pair := get(row)) is not None]
    if not pairs:
        return "-"
    low, high = (form.format(scale * fmean(ends)) for ends in zip(*pairs, strict=True))
    return low if low == high else f"{low} to {high}"
