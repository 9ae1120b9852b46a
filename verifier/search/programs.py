"""Subproblems as warm linear programs: HiGHS proposes a dual point, and the dual function says what it is worth."""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident

import torch
from torch import Tensor

from verifier.bounding.dual import DualPoint
from verifier.bounding.lp.duals import Duals, Empty
from verifier.bounding.lp.network import objective_rows, relaxed_network
from verifier.bounding.lp.program import Program, program
from verifier.bounding.lp.splits import SplitModel, SplitSolver, combination, split_point
from verifier.search.boxes import slack
from verifier.search.subproblem import Batch, Frame, View, select

#: models that are kept at a time, one for each thread and polytope
MOST_MODELS = 64


class Programs:
    """The programs of a frame's subproblems, each solved from the basis of the last one of its polytope.

    Args:
        frame: in float64.
        roots: a subproblem for each polytope, without splits.
        make: what solves the subproblems of one polytope.
    """

    def __init__(self, frame: Frame, roots: Batch, make: Callable[[Program], SplitSolver] = SplitModel):
        self.frame, self.roots, self._make = frame, roots, make
        self._models: dict[tuple[int, int, int], SplitSolver] = {}

    def ask(self, batch: Batch, view: View, until: float | None) -> Duals | None:
        """A solver's answer for one subproblem; a broken solver has none. Every thread has models of its own."""
        key = get_ident(), int(batch["owner"]), int(batch["target"])
        try:
            model = self._models.get(key)  # kept by name: another thread may let all of them go meanwhile
            if model is None:
                model = self._models[key] = self._model(*key[1:])
            return model.bound(view.relaxation, until)
        except Exception:  # of a third party's code; the callers do without an answer
            self._models.pop(key, None)
            return None

    def prove(self, view: View, found: Duals) -> tuple[Tensor, Tensor, DualPoint]:
        """What the dual function says at HiGHS's dual point: bound (1,), whether it counts, and the point."""
        graph, relaxation = self.frame.problem.graph, view.relaxation
        dual, objective = split_point(relaxation, found), combination(view.objective, found)
        one = View(view.region, relaxation, objective, dual)
        bound = self.frame.bound(one)[1][:, 0]
        proved = bound > 0
        if bool(proved):  # the allowance costs a pass
            proved = bound > slack(graph, relaxation, objective, dual)[:, 0]
        if isinstance(found, Empty):
            bound = torch.full_like(bound, torch.inf)  # there is no output whose margin could be small
        return bound, proved, dual

    def program(self, view: View) -> Program:
        """The program of one subproblem, over the box around its region."""
        graph, target = self.frame.problem.graph, objective_rows(self.frame.problem.graph, view.objective)
        return program(relaxed_network(graph, view.relaxation, graph.output), view.region.enclosing_box(), target)

    def inside(self, point: Tensor, batch: Batch) -> Tensor:
        """A program's input (n,) as a point (1, *X) of its subproblem's box, which solvers can leave by rounding."""
        box = self.frame.problem.region.enclosing_box()
        shaped = point.to(box.lower).reshape(1, *box.lower.shape[1:])
        return torch.minimum(torch.maximum(shaped, box.lower[batch["owner"]]), box.upper[batch["owner"]])

    def _model(self, owner: int, target: int) -> SplitSolver:
        """A model for one polytope; all others go where there are too many."""
        if len(self._models) >= MOST_MODELS:
            self._models = {}
        root = (self.roots["owner"] == owner) & (self.roots["target"] == target)
        return self._make(self.program(self.frame.view(select(self.roots, root.nonzero()[:, 0]))))
