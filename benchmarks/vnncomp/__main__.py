"""VNN-COMP queries, one process each: solved, wrong, PAR-2 and start-up per family.

    python -m benchmarks.vnncomp --timeout 20 [--families acasxu,oval21] [--stride 4] [--out rows.jsonl]

With ``--out`` every row is written as soon as it is known, and a second run goes on where the first one stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.machine import describe
from benchmarks.vnncomp.queries import FAMILIES, read_instances
from benchmarks.vnncomp.run import Row, run_all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds for each query")
    parser.add_argument("--families", default=",".join(FAMILIES), help="comma-separated folders of the benchmarks")
    parser.add_argument("--stride", type=int, default=1, help="take every n-th query of a family")
    parser.add_argument("--jobs", type=int, default=1, help="queries at a time; more than one makes times worse")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[3] / "shared" / "vnncomp")
    parser.add_argument("--out", type=Path, help="file of JSON lines to append to and to resume from")
    parser.add_argument("arguments", nargs="*", help="passed on to `verifier verify` (after --)")
    options = parser.parse_args()
    instances = read_instances(options.data, tuple(options.families.split(",")), options.stride)
    rows = run_all(instances, options.timeout, options.jobs, options.out, options.arguments)
    console = Console(width=120)
    table = summary(list(track(rows, "queries", total=len(instances), console=console)), options.timeout)
    console.print(table)
    console.print(f"{options.timeout:g} s a query, {options.jobs} at a time; {describe()}")


def summary(rows: list[Row], timeout: float) -> Table:
    """One line a family, and one for all."""
    table = Table(title="VNN-COMP queries")
    for column in ("family", "solved", "unsat", "sat", "wrong", "errors", "PAR-2 s", "median s", "start-up s"):
        table.add_column(column, justify="left" if column == "family" else "right")
    families = list(dict.fromkeys(row.family for row in rows))
    for family in [*families, "all"]:
        table.add_row(family, *_figures([row for row in rows if family in ("all", row.family)], timeout))
    for row in rows:
        if row.wrong or row.refutes or row.verdict == "error":
            note = "; its witness holds by an independent reading" if row.refutes else ""
            line = f"{row.key}: {row.verdict}, expected {row.expected}: {row.method}{note}"
            table.caption = f"{table.caption}\n{line}" if table.caption else line
    return table


def _figures(rows: list[Row], timeout: float) -> list[str]:
    solved = [row for row in rows if row.solved]
    penalised = [row.seconds if row.solved else 2 * timeout for row in rows]
    start = [row.seconds - row.engine_seconds for row in rows if row.engine_seconds is not None]
    return [
        f"{len(solved)}/{len(rows)}",
        str(sum(row.verdict == "unsat" for row in solved)),
        str(sum(row.verdict == "sat" for row in solved)),
        str(sum(row.wrong for row in rows)),
        str(sum(row.verdict == "error" for row in rows)),
        f"{sum(penalised) / len(penalised):.1f}",
        f"{median(row.seconds for row in rows):.1f}",
        f"{median(start):.1f}" if start else "-",
    ]


if __name__ == "__main__":
    main()
