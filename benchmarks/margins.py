"""Brackets of margins beside exact ones: violations, and how near both ends come.

    python -m benchmarks.margins [--networks digits_mlp,digits_robust] [--inputs 20] [--rows FILE.jsonl] [--seconds 2]

In the norms inf and 1 the exact margin comes from mixed-integer programming (`benchmarks.exact_margins`), for networks
of dense and convolutional layers with ReLU. In the norm 2 there is no such program: the certified ball is sampled for a
point of another class, and ``d_inf <= d_2 <= d_1`` is checked against the exact margins of the others. Rows that
the file holds already are not computed again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from verifier.process import tune

tune()

import numpy as np  # noqa: E402  (torch has to come after the settings)
import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from benchmarks.exact_margins import Layers, exact_margin  # noqa: E402
from benchmarks.machine import describe  # noqa: E402
from verifier.analysis.brackets import Bracket, Metric  # noqa: E402
from verifier.analysis.radius import radii  # noqa: E402
from verifier.graph import load  # noqa: E402
from verifier.graph.ir import Graph  # noqa: E402
from verifier.operators import evaluate, place  # noqa: E402
from verifier.specs.datasets import load_dataset  # noqa: E402
from verifier.specs.robustness import resolve  # noqa: E402

MODELS = Path(__file__).parents[1] / "models"
NORMS = ("inf", "2", "1")
#: what the mixed-integer solver's tolerances may make of an exact margin, relatively
TOLERANCE = 1e-5
SAMPLES = 2000
BATCH = 10

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="digits_mlp,digits_robust")
    parser.add_argument("--inputs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each bracket")
    parser.add_argument("--exact-seconds", type=float, default=60.0, help="for each exact margin")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--rows", type=Path, help="where rows are kept")
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    rows = _known(options.rows)
    for name in options.networks.split(","):
        for row in missing(name, rows, options):
            rows.append(row)
            if options.rows is not None:
                with options.rows.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    show([row for row in rows if row["network"] in options.networks.split(",") and row["index"] < options.inputs])


def _known(path: Path | None) -> list[Row]:
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def missing(name: str, rows: list[Row], options: argparse.Namespace) -> Iterator[Row]:
    """Rows of a network that are not there yet."""
    graph = load(MODELS / f"{name}.onnx")
    data = load_dataset(name.partition("_")[0], options.data_dir)
    layers = Layers.of(graph)
    for norm in NORMS:
        there = {row["index"] for row in rows if (row["network"], row["norm"]) == (name, norm)}
        wanted = [i for i in range(options.inputs) if i not in there]
        for start in range(0, len(wanted), BATCH):
            part = wanted[start : start + BATCH]
            inputs = [np.asarray(data.x[i], dtype=np.float64) for i in part]
            labels = [int(data.y[i]) for i in part]
            found = radii(graph, inputs, labels, norm=norm, timeout=options.seconds, tolerance=options.tolerance)
            for i, x, bracket in zip(part, inputs, found, strict=True):
                exact = None
                if norm != "2" and layers is not None:
                    # a little farther than the witness, so that there is an answer, whatever the solver's tolerances
                    exact = exact_margin(layers, x, norm, 1.01 * bracket.upper, seconds=options.exact_seconds)
                yield row_of(name, i, norm, bracket, exact, counterexamples(graph, x, norm, bracket))


def row_of(name: str, index: int, norm: str, bracket: Bracket, exact: float | None, inside: int) -> Row:
    return {
        "network": name,
        "index": index,
        "norm": norm,
        "lower": bracket.lower,
        "upper": bracket.upper,
        "exact": exact,  # Infinity where the program has no point, None where its time did not suffice
        "closed": bracket.exact,
        "seconds": bracket.seconds,
        "inside": inside,
    }


def counterexamples(graph: Graph, x: np.ndarray, norm: str, bracket: Bracket) -> int:
    """Sampled points of the certified ball that are of another class; there must be none."""
    region = resolve(Metric(norm).ball(x, bracket.label, bracket.lower), graph).properties[0].region
    points = region.sample(SAMPLES, torch.Generator().manual_seed(0))[:, 0]
    return int((evaluate(place(graph), points).flatten(1).argmax(1) != bracket.label).sum())


def violations(rows: list[Row]) -> int:
    """Rows whose bracket does not hold what is known of the margin."""
    exact = {(row["network"], row["index"], row["norm"]): row["exact"] for row in rows if row["exact"] is not None}
    count = 0
    for row in rows:
        key = (row["network"], row["index"])
        if row["norm"] == "2":
            low, high = exact.get((*key, "inf"), 0.0), exact.get((*key, "1"), float("inf"))
        else:
            low = high = exact.get((*key, row["norm"]))
        wrong = row["inside"] > 0
        if low is not None and high is not None:
            wrong = wrong or row["lower"] > high * (1 + TOLERANCE) or row["upper"] < low * (1 - TOLERANCE)
        count += wrong
    return count


def show(rows: list[Row]) -> None:
    table = Table(title="lower <= exact <= upper")
    columns = ("network", "norm", "inputs", "exact known", "violations", "closed", "upper/exact", "lower/exact", "s")
    for column in columns:
        table.add_column(column, justify="left" if column == "network" else "right")
    for name in dict.fromkeys(row["network"] for row in rows):
        for norm in NORMS:
            mine = [row for row in rows if row["network"] == name and row["norm"] == norm]
            if not mine:
                continue
            known = [row for row in mine if row["exact"] is not None]
            others = [row for row in rows if row["network"] == name and row["norm"] != norm and norm == "2"]
            wrong = violations(mine + others) - violations(others) if others else violations(mine)
            finite = [row for row in known if 0 < row["exact"] < float("inf")]
            ratios = [f"{median(r[e] / r['exact'] for r in finite):.4f}" if finite else "-" for e in ("upper", "lower")]
            closed = sum(row["closed"] for row in mine)
            seconds = f"{median(row['seconds'] for row in mine):.2f}"
            table.add_row(name, norm, str(len(mine)), str(len(known)), str(wrong), str(closed), *ratios, seconds)
    console = Console(width=120)
    console.print(table)
    console.print(f"medians; {describe()}")


if __name__ == "__main__":
    main()
