"""What cuts on groups of neurons add on one hard query: the first table of ``python -m benchmarks.krelu``.

Every line but the last two is over the same boxes, CROWN's. Over the same cuts there are two ascents and the linear
program, each with the bound that the dual function gives. Seconds are of CPU, of all threads together: of preparation,
of the longest ascent, of the program. Where only violated cuts are taken, preparation includes the programs whose
optima they cut off.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from rich.table import Table

from benchmarks.eran import pose
from verifier.bounding.ascent import AscentOptions, ascend
from verifier.bounding.dual import Objective, Relaxation, lower_bound
from verifier.bounding.intermediate import IntermediateOptions, Tighten, by_dual, relax_network
from verifier.bounding.krelu import KReluOptions, join_groups
from verifier.bounding.ladder import METHODS, LadderOptions, Problem
from verifier.bounding.lp.method import ProgramPrimal, lp_point, solver_for
from verifier.bounding.separation import with_violated
from verifier.graph import load
from verifier.relaxations.groups import GroupOptions
from verifier.specs.datasets import Dataset
from verifier.specs.robustness import resolve, robustness

FACETS, VIOLATED, CORNERS = "facets", "violated facets", "corners"
#: what is relaxed together: neurons of a group, partition, and what is known of a group; None for single neurons
GROUPS: tuple[tuple[int, int, str] | None, ...] = (
    None,
    (2, 5, FACETS),
    (2, 20, FACETS),
    (2, 20, VIOLATED),
    (3, 10, FACETS),
    (3, 10, CORNERS),
    (3, 22, FACETS),
    (3, 22, VIOLATED),
    (4, 10, CORNERS),
    (5, 10, CORNERS),
)
ITERATIONS = (50, 750)


def tabulate(network: Path, mnist: Dataset, index: int, epsilon: float) -> Table:
    """The bounds of the least row at CROWN's point."""
    graph = load(network)
    spec = robustness(mnist.x[index], int(mnist.y[index]), epsilon=epsilon)
    problem = pose(graph, [resolve(spec, graph).properties[0]], torch.float32)
    METHODS["k-relu"](problem, LadderOptions(), None)  # imports and first allocations
    table = Table(title=f"{network.name}, image {index}, epsilon {epsilon}: one row, float32")
    columns = ("relaxation", "groups", "numbers a row", "preparation (s)", *(f"ascent @{n}" for n in ITERATIONS), "s")
    columns += ("program", "s")
    for column in columns:
        table.add_column(column, justify="right")
    crown = METHODS["crown"](problem, LadderOptions(), None)
    table.add_row("CROWN", "", "", "", f"{float(crown.lower.min()):.3f}")
    worst = int(crown.lower[0].argmin())
    for groups in GROUPS:
        table.add_row(*over_crown_boxes(problem, worst, groups))
    for method in ("alpha-crown", "k-relu"):
        begun = time.process_time()
        bound = METHODS[method](problem, LadderOptions().tightest(), None).lower[0, worst]
        spent = time.process_time() - begun
        table.add_row(f"{method}, own boxes", "", "", "", f"{float(bound):.3f}", "", f"{spent:.2f}")
    return table


def over_crown_boxes(problem: Problem, row: int, groups: tuple[int, int, str] | None) -> tuple[str, ...]:
    """A line of the table: one row of the objective, climbed over CROWN's boxes with cuts of one kind."""
    graph, region, rows = problem.graph, problem.region, problem.rows.objective
    assert rows.offset is not None
    objective = Objective(rows.node, rows.C[:, row : row + 1], rows.offset[:, row : row + 1])
    tighten = by_dual(graph, region, IntermediateOptions())
    begun = time.process_time()
    relaxation = _relaxed(problem, objective, groups, tighten)
    prepared, bounds, seconds = time.process_time() - begun, [], 0.0
    for iterations in ITERATIONS:
        begun = time.process_time()
        climb = AscentOptions(iterations, step=0.1, decay=0.01 ** (1 / iterations), cut_step=0.5, patience=iterations)
        bounds.append(f"{float(ascend(graph, region, relaxation, objective, climb)[0]):.3f}")
        seconds = time.process_time() - begun
    program = ("", "")
    if groups is None or groups[2] != CORNERS:
        begun = time.process_time()
        wanted = torch.ones(1, 1, dtype=torch.bool)
        point, _ = lp_point(graph, region, relaxation, objective, wanted, None, solver_for)
        bound = float(lower_bound(graph, region, relaxation, objective, point))
        program = (f"{bound:.3f}", f"{time.process_time() - begun:.2f}")
    cuts = relaxation.cuts.values()
    numbers = sum(cut.zero(1).numel() for cut in cuts)
    count = sum(cut.zero(1).shape[2] for cut in cuts)
    name = "single neurons" if groups is None else "k = {}, n_s = {}, {}".format(*groups)
    return name, str(count or ""), str(numbers or ""), f"{prepared:.2f}", *bounds, f"{seconds:.2f}", *program


def _relaxed(
    problem: Problem, objective: Objective, groups: tuple[int, int, str] | None, tighten: Tighten
) -> Relaxation:
    """The network relaxed with cuts of one kind."""
    graph, region = problem.graph, problem.region
    if groups is None:
        return relax_network(graph, region, tighten)
    options = KReluOptions(GroupOptions(*groups[:2]), facets=groups[2] != CORNERS)
    if groups[2] != VIOLATED:
        return relax_network(graph, region, tighten, join_groups(graph, region, options))
    primal = ProgramPrimal(graph, region, objective)
    return with_violated(graph, region, relax_network(graph, region, tighten), primal, options)
