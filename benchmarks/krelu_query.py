"""What cuts on groups of neurons add on one hard query: the first table of ``python -m benchmarks.krelu``.

Every line but the last two is over the same boxes, CROWN's. Seconds are of the longest ascent, or of all.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from rich.table import Table

from benchmarks.eran import pose
from verifier.bounding.ascent import AscentOptions, ascend
from verifier.bounding.dual import Objective
from verifier.bounding.intermediate import IntermediateOptions, by_dual, relax_network
from verifier.bounding.krelu import KReluOptions, join_groups
from verifier.bounding.ladder import METHODS, LadderOptions, Problem
from verifier.graph import load
from verifier.relaxations.groups import GroupOptions
from verifier.specs.datasets import Dataset
from verifier.specs.robustness import resolve, robustness

#: what is relaxed together: neurons of a group, partition, facets or corners; None for single neurons
GROUPS: tuple[tuple[int, int, bool] | None, ...] = (
    None,
    (2, 5, True),
    (2, 20, True),
    (3, 10, True),
    (3, 10, False),
    (3, 22, True),
)
ITERATIONS = (50, 750)


def tabulate(network: Path, mnist: Dataset, index: int, epsilon: float) -> Table:
    """The bounds of the least row at CROWN's point."""
    graph = load(network)
    spec = robustness(mnist.x[index], int(mnist.y[index]), epsilon=epsilon)
    problem = pose(graph, [resolve(spec, graph).properties[0]], torch.float32)
    METHODS["k-relu"](problem, LadderOptions(), None)  # imports and first allocations
    table = Table(title=f"{network.name}, image {index}, epsilon {epsilon}: one row, float32")
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
        bound = METHODS[method](problem, LadderOptions().tightest(), None).lower[0, worst]
        spent = time.perf_counter() - begun
        table.add_row(f"{method}, own boxes", "", "", "", f"{float(bound):.3f}", "", f"{spent:.2f}")
    return table


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
        climb = AscentOptions(iterations, step=0.1, decay=0.01 ** (1 / iterations), cut_step=0.5, patience=iterations)
        bounds.append(f"{float(ascend(graph, region, relaxation, objective, climb)[0]):.3f}")
        seconds = time.perf_counter() - begun
    cuts = relaxation.cuts.values()
    numbers = sum(cut.zero(1).numel() for cut in cuts)
    count = sum(cut.zero(1).shape[2] for cut in cuts)
    kind = "" if groups is None else "facets" if groups[2] else "corners"
    name = "single neurons" if groups is None else f"k = {groups[0]}, n_s = {groups[1]}, {kind}"
    return name, str(count or ""), str(numbers or ""), f"{prepared:.2f}", *bounds, f"{seconds:.2f}"
