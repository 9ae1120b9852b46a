"""The methods triangle-lp and k-relu-lp: the optimum of a relaxation, found by a solver and proved by the dual."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from verifier.bounding.ascent import AscentOptions, ascend
from verifier.bounding.dual import DualPoint, Objective, Relaxation, lower_bound
from verifier.bounding.ladder import Bounds, LadderOptions, Problem, crown, k_relu, with_intervals
from verifier.bounding.lp.duals import Duals, MakeSolver, Solver, ask, dual_point, join, stack
from verifier.bounding.lp.highs import HighsModel
from verifier.bounding.lp.model import ConvexModel
from verifier.bounding.lp.network import Affine, RelaxedNetwork, objective_rows, one_element, relaxed_network
from verifier.bounding.lp.program import program
from verifier.bounding.lp.size import require_size
from verifier.graph.ir import Graph
from verifier.specs.region import Box, Region


def solver_for(network: RelaxedNetwork, region: Region, rows: Affine) -> Solver:
    """A warm HiGHS model over a box, else cvxpy's."""
    if isinstance(region, Box):
        return HighsModel(program(network, region), rows)
    return ConvexModel(network, region, rows)


def triangle_lp(
    problem: Problem, options: LadderOptions, deadline: float | None = None, make: MakeSolver = solver_for
) -> Bounds:
    """The triangle program over CROWN's boxes, for one batch element after the other.

    Args:
        make: what solves.

    Raises:
        InputError: the network is too large.
    """
    require_size(problem.graph)
    relaxation = crown(problem, options, deadline).relaxation
    return optimise(problem, relaxation, options.final, deadline, make, options.tell)


def k_relu_lp(
    problem: Problem, options: LadderOptions, deadline: float | None = None, make: MakeSolver = solver_for
) -> Bounds:
    """The triangle program with k-ReLU's cuts as rows (Singh et al. 2019, NeurIPS), over k-ReLU's boxes.

    Over the same boxes its cuts are those that ``k-relu`` climbs on, where that needs any. Only facets can be rows:
    where the options ask for hulls by their corners, it is the triangle program.

    Raises:
        InputError: the network is too large.
    """
    require_size(problem.graph)
    cases = None if options.joint.cases is None else replace(options.joint.cases, leaves=0)  # no program knows trees
    joint = replace(options.joint, cases=cases, kept=1.0)  # programs take more of the time than an ascent
    relaxation = k_relu(problem, replace(options, joint=joint), deadline).relaxation
    return optimise(problem, relaxation, options.joint_final, deadline, make, options.tell)


def optimise(
    problem: Problem,
    relaxation: Relaxation,
    ascent: AscentOptions,
    deadline: float | None = None,
    make: MakeSolver = solver_for,
    tell: Callable[[str], None] | None = None,
) -> Bounds:
    """Bounds of all rows at the solver's dual points, or at CROWN's where those are better.

    Where the solver leaves a row of a property without an answer, ascent takes its place.
    """
    graph, region, objective = problem.graph, problem.region, problem.rows.objective
    dual, missing = lp_point(graph, region, relaxation, objective, problem.rows.owner >= 0, deadline, make, tell)
    if bool(missing.any()):
        plain, other = ascend(graph, region, relaxation, objective, ascent, deadline=deadline)
    else:
        plain, other = lower_bound(graph, region, relaxation, objective), DualPoint()
    found = lower_bound(graph, region, relaxation, objective, dual)
    better = found > plain
    return with_intervals(problem, relaxation, torch.where(better, found, plain), join(relaxation, better, dual, other))


def lp_point(
    graph: Graph,
    region: Region,
    relaxation: Relaxation,
    objective: Objective,
    wanted: Tensor,
    deadline: float | None,
    make: MakeSolver,
    tell: Callable[[str], None] | None = None,
) -> tuple[DualPoint, Tensor]:
    """The dual point that solvers propose for an objective's rows.

    Args:
        wanted: (B, S) rows to solve for; others keep CROWN's weights.
        tell: told before each program which one it is.

    Returns:
        The point, and (B, S) the wanted rows without an answer.
    """
    points, missing = [], torch.zeros_like(wanted)
    number, count = 0, int(wanted.sum())
    for b in range(wanted.shape[0]):
        one = one_element(graph, relaxation, b)
        found: list[Duals | None] = [None] * wanted.shape[1]
        if deadline is None or monotonic() < deadline:
            rows = objective_rows(graph, element_of(objective, b))
            solver = make(relaxed_network(graph, one, objective.node), region.select(torch.tensor([b])), rows)
            for s in wanted[b].nonzero()[:, 0].tolist():
                number += 1
                if tell is not None:
                    tell(f"program {number} of {count}")
                found[s] = ask(solver, s, deadline)
        missing[b] = wanted[b] & torch.tensor([answer is None for answer in found], device=wanted.device)
        points.append(dual_point(one, found))
    return stack(points), missing


@dataclass(frozen=True)
class ProgramPrimal:
    """The optima of programs for an objective's rows, as a primal point (see `verifier.bounding.separation`).

    Args:
        deadline: `time.monotonic` value at which solving ends.
        make: what solves.
    """

    graph: Graph
    region: Region
    objective: Objective
    deadline: float | None = None
    make: MakeSolver = solver_for

    def __call__(self, relaxation: Relaxation) -> dict[str, tuple[Tensor, Tensor]] | None:
        """Outputs and inputs (B, S, n) of all activations below; None where a solver has no answer to some row."""
        C, elements = self.objective.C, []
        for b in range(self.region.enclosing_box().batch):
            one = one_element(self.graph, relaxation, b)
            network = relaxed_network(self.graph, one, self.objective.node)
            rows = objective_rows(self.graph, element_of(self.objective, b))
            solver = self.make(network, self.region.select(torch.tensor([b])), rows)
            found = [ask(solver, s, self.deadline) for s in range(C.shape[1])]
            answers = [answer for answer in found if answer is not None and answer.inputs]
            if len(answers) < len(found):
                return None
            elements.append((network.layers, answers))

        def values(side: Literal["outputs", "inputs"], name: str) -> Tensor:
            parts = [np.stack([getattr(answer, side)[name] for answer in answers]) for _, answers in elements]
            return torch.as_tensor(np.stack(parts)).to(C)

        layers = elements[0][0]
        return {layer.node: (values("outputs", layer.node), values("inputs", layer.source)) for layer in layers}


def element_of(objective: Objective, element: int) -> Objective:
    """One batch element's rows."""

    def part(value: Tensor) -> Tensor:
        return value if value.shape[0] == 1 else value[element : element + 1]

    return Objective(objective.node, part(objective.C), None if objective.offset is None else part(objective.offset))
