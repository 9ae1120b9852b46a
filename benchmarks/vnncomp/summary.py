"""The rows of a run as a table and as a cactus plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from rich.table import Table

from benchmarks.vnncomp.rows import Row

COLUMNS = ("solved", "unsat", "sat", "wrong", "errors", "PAR-2 s", "median s", "start-up s", "peak MiB")


def tabulate(rows: Sequence[Row], timeout: float) -> Table:
    """One line for every family and tool, then one for every tool over all families; below, what needs a look."""
    table = Table(title="VNN-COMP queries")
    tools = _names(row.tool for row in rows)
    for column in ("family", *(["tool"] if len(tools) > 1 else []), *COLUMNS):
        table.add_column(column, justify="left" if column in ("family", "tool") else "right")
    for family in [*_names(row.family for row in rows), "all"]:
        for tool in tools:
            chosen = [row for row in rows if row.tool == tool and family in ("all", row.family)]
            if chosen:
                table.add_row(family, *([tool] if len(tools) > 1 else []), *_figures(chosen, timeout))
    table.caption = (
        "\n".join(_remark(row) for row in rows if row.wrong or row.refutes or row.verdict == "error") or None
    )
    return table


def par2(rows: Sequence[Row], timeout: float) -> float:
    """Mean of the seconds of solved queries and of twice the limit for all others."""
    return sum(row.seconds if row.solved else 2 * timeout for row in rows) / len(rows)


def _names(names) -> list[str]:
    return list(dict.fromkeys(names))


def _remark(row: Row) -> str:
    note = "; its witness holds by an independent reading" if row.refutes else ""
    return f"{row.tool}, {row.key}: {row.verdict}, expected {row.expected}: {row.method}{note}"


def _figures(rows: Sequence[Row], timeout: float) -> list[str]:
    solved = [row for row in rows if row.solved]
    start = [row.seconds - row.engine_seconds for row in rows if row.engine_seconds is not None]
    peaks = [row.peak for row in rows if row.peak is not None]
    return [
        f"{len(solved)}/{len(rows)}",
        str(sum(row.verdict == "unsat" for row in solved)),
        str(sum(row.verdict == "sat" for row in solved)),
        str(sum(row.wrong for row in rows)),
        str(sum(row.verdict == "error" for row in rows)),
        f"{par2(rows, timeout):.1f}",
        f"{median(row.seconds for row in rows):.1f}",
        f"{median(start):.1f}" if start else "-",
        f"{max(peaks):.0f}" if peaks else "-",
    ]


def plot(rows: Sequence[Row], timeout: float, path: Path) -> None:
    """Cactus plot: how many queries each tool solves when each may take so many seconds."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    tools = _names(row.tool for row in rows)
    total = max(sum(row.tool == tool for row in rows) for tool in tools)
    for tool, dash in zip(tools, _dashes(len(tools)), strict=True):
        seconds = sorted(row.seconds for row in rows if row.tool == tool and row.solved)
        label = f"{tool}: {len(seconds)} of {sum(row.tool == tool for row in rows)}"
        axes.plot(range(1, len(seconds) + 1), seconds, dash, linewidth=1.8, markersize=4, label=label)
    axes.axhline(timeout, color="0.5", linewidth=0.8, linestyle=":")
    axes.annotate("limit", (0, timeout), textcoords="offset points", xytext=(2, 3), color="0.4", fontsize=9)
    axes.set(yscale="log", xlim=(0, total + 1), xlabel="queries solved", ylabel="seconds for each of them, at most")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(alpha=0.3, which="both", linewidth=0.5)
    axes.legend(loc="best", frameon=True)
    axes.set_title(f"VNN-COMP queries, {timeout:g} s each")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _dashes(count: int) -> list[str]:
    """Lines that differ without colour as well."""
    return [("-o", "--s", "-.^", ":D", "-v", "--x")[i % 6] for i in range(count)]
