"""Comparisons as plain data: objects for JSON, rows for CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from io import StringIO
from typing import Any

from verifier.analysis.comparison import Comparison, Entry, summarise

#: columns of a CSV file after those of the query
COLUMNS = (
    *("method", "bound", "verified", "upper_bound", "falsified", "gap_closed", "certified_epsilon", "width"),
    *("area", "joint", "seconds", "rows", "memory", "boxes", "reason"),
)


def as_object(comparison: Comparison) -> dict[str, Any]:
    """One query as JSON has it."""
    found = comparison.counterexample
    return {
        "upper_bound": comparison.upper,
        "falsified": comparison.falsified,
        "counterexample": None if found is None else found.input.reshape(-1).tolist(),
        "reference": comparison.reference,
        "methods": [_entry(entry) for entry in comparison.entries],
    }


def summary_objects(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """The summary as JSON has it."""
    return [asdict(row) for row in summarise(comparisons)]


def as_csv(comparisons: Sequence[Comparison], queries: Sequence[Mapping[str, Any]]) -> str:
    """A line for each query and method; width and area of every layer have columns of their own.

    Args:
        queries: for each comparison, what else identifies it, by column.
    """
    per_layer = _layer_columns(comparisons)
    first = list(dict.fromkeys(name for query in queries for name in query))
    text = StringIO()
    writer = csv.DictWriter(text, [*first, *COLUMNS, *per_layer], restval="", lineterminator="\n")
    writer.writeheader()
    for comparison, query in zip(comparisons, queries, strict=True):
        for entry in comparison.entries:
            row = {**query, "upper_bound": comparison.upper, "falsified": comparison.falsified, **_cells(entry)}
            writer.writerow({name: _plain(value) for name, value in row.items()})
    return text.getvalue()


def _entry(entry: Entry) -> dict[str, Any]:
    return {**asdict(entry), "width": entry.width, "area": entry.area, "joint": entry.joint}


def _cells(entry: Entry) -> dict[str, Any]:
    made = _entry(entry)
    del made["layers"]
    for layer in entry.layers:
        made |= {f"width {layer.label}": layer.width, f"area {layer.label}": layer.area}
    return made


def _layer_columns(comparisons: Sequence[Comparison]) -> list[str]:
    labels = dict.fromkeys(layer.label for c in comparisons for entry in c.entries for layer in entry.layers)
    return [f"{what} {label}" for what in ("width", "area") for label in labels]


def _plain(value: Any) -> Any:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else value
