"""What cuts on groups of neurons add on one hard query: an image of MNIST on the 6 x 100 network of the k-ReLU papers.

    python -m benchmarks.krelu [--index 10] [--epsilon 0.026] [--data-dir DIR]

Every row but the last two is over the same boxes, CROWN's; the bound is that of the least row at CROWN's point.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from verifier.process import tune

tune()

import torch  # noqa: E402  (torch has to come after the settings)
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from benchmarks.eran import pose  # noqa: E402
from benchmarks.machine import describe  # noqa: E402
from verifier.bounding.ascent import AscentOptions, ascend  # noqa: E402
from verifier.bounding.dual import Objective  # noqa: E402
from verifier.bounding.intermediate import IntermediateOptions, by_dual, relax_network  # noqa: E402
from verifier.bounding.krelu import KReluOptions, join_groups  # noqa: E402
from verifier.bounding.ladder import METHODS, LadderOptions, Problem  # noqa: E402
from verifier.graph import load  # noqa: E402
from verifier.relaxations.groups import GroupOptions  # noqa: E402
from verifier.specs.datasets import load_dataset  # noqa: E402
from verifier.specs.robustness import resolve, robustness  # noqa: E402

#: what is relaxed together: neurons of a group, partition, facets or corners; None for single neurons
GROUPS: tuple[tuple[int, int, bool] | None, ...] = (
    None,
    (2, 5, True),
    (2, 20, True),
    (3, 10, True),
    (3, 10, False),
    (3, 20, False),
)
ITERATIONS = (50, 200)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=int, default=10)
    parser.add_argument("--epsilon", type=float, default=0.026)
    parser.add_argument(
        "--network", type=Path, default=Path(__file__).parents[2] / "shared" / "eran" / "mnist_6x100.onnx"
    )
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    if not options.network.is_file():
        raise SystemExit(f"{options.network}: not found; give the network with --network")
    graph, mnist = load(options.network), load_dataset("mnist", options.data_dir)
    spec = robustness(mnist.x[options.index], int(mnist.y[options.index]), epsilon=options.epsilon)
    problem = pose(graph, [resolve(spec, graph).properties[0]], torch.float32)
    METHODS["k-relu"](problem, LadderOptions(), None)  # imports and first allocations
    table = Table(title=f"{options.network.name}, image {options.index}, epsilon {options.epsilon}")
    columns = ("relaxation", "groups", "numbers a row", "preparation (s)", *(f"bound @{n}" for n in ITERATIONS), "s")
    for column in columns:
        table.add_column(column, justify="right")
    crown = METHODS["crown"](problem, LadderOptions(), None)
    table.add_row("CROWN", "", "", "", f"{float(crown.lower.min()):.3f}")
    worst = int(crown.lower[0].argmin())
    for groups in GROUPS:
        table.add_row(*over_crown_boxes(problem, worst, groups))
    for method in ("alpha-crown", "k-relu"):
        begun = time.perf_counter()
        bound = METHODS[method](problem, LadderOptions(), None).lower[0, worst]
        table.add_row(
            f"{method}, own boxes", "", "", "", f"{float(bound):.3f}", "", f"{time.perf_counter() - begun:.2f}"
        )
    console = Console(width=110)
    console.print(table)
    console.print(f"float32; s: of the longest ascent, or of all; {describe()}")


def over_crown_boxes(problem: Problem, row: int, groups: tuple[int, int, bool] | None) -> tuple[str, ...]:
    """A line of the table: one row of the objective, climbed over CROWN's boxes with cuts of one kind."""
    graph, region, rows = problem.graph, problem.region, problem.rows.objective
    assert rows.offset is not None
    objective = Objective(rows.node, rows.C[:, row : row + 1], rows.offset[:, row : row + 1])
    tighten = by_dual(graph, region, IntermediateOptions())
    begun = time.perf_counter()
    join = None
    if groups is not None:
        join = join_groups(graph, region, KReluOptions(GroupOptions(*groups[:2]), facets=groups[2]))
    relaxation = relax_network(graph, region, tighten, join)
    prepared, bounds, seconds = time.perf_counter() - begun, [], 0.0
    for iterations in ITERATIONS:
        begun = time.perf_counter()
        climb = AscentOptions(iterations, step=0.1, decay=0.05 ** (1 / iterations), cut_step=0.2, patience=iterations)
        bounds.append(f"{float(ascend(graph, region, relaxation, objective, climb)[0]):.3f}")
        seconds = time.perf_counter() - begun
    cuts = relaxation.cuts.values()
    numbers = sum(cut.zero(1).numel() for cut in cuts)
    count = sum(cut.zero(1).shape[2] for cut in cuts)
    kind = "" if groups is None else "facets" if groups[2] else "corners"
    name = "single neurons" if groups is None else f"k = {groups[0]}, n_s = {groups[1]}, {kind}"
    return name, str(count or ""), str(numbers or ""), f"{prepared:.2f}", *bounds, f"{seconds:.2f}"


if __name__ == "__main__":
    main()
