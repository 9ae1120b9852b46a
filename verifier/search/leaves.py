"""The end of activation splitting: subproblems in which nothing is left to split, each finished by a linear program.

Where all activations are piecewise linear and decided, the network is affine on the subproblem, so a program over it
is exact: either its dual values prove the subproblem, or its optimum is a counterexample. What rounding leaves between
the two stays open.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import torch

from verifier.bounding.dual import DualPoint
from verifier.bounding.lp.duals import Empty
from verifier.bounding.lp.program import Program
from verifier.bounding.lp.size import MOST_BYTES, estimate
from verifier.bounding.lp.splits import SplitModel, SplitSolver
from verifier.search.ledger import Ledger
from verifier.search.programs import Programs
from verifier.search.subproblem import Batch, Frame, in_precision, margins, select


class Leaves:
    """Closes subproblems that can not be split, or gives them up.

    Args:
        frame: in float64.
        ledger: of the search, in any precision.
        make: what solves the programs.
    """

    def __init__(self, frame: Frame, ledger: Ledger, make: Callable[[Program], SplitSolver] = SplitModel):
        self._ledger = ledger
        fits = estimate(frame.problem.graph).bytes <= MOST_BYTES
        self._programs = Programs(frame, frame.roots(DualPoint()), make) if fits else None

    def finish(self, leaves: Batch, until: float | None) -> Batch:
        """Decide them one by one. Returns those that the time did not suffice for."""
        for number in range(len(leaves["bound"])):
            late = until is not None and monotonic() >= until
            if late or not self._finish(select(leaves, torch.tensor([number])), until):
                return select(leaves, torch.arange(number, len(leaves["bound"])))
            if self._ledger.falsified:
                break
        return select(leaves, torch.arange(0))

    @torch.no_grad()
    def _finish(self, leaf: Batch, until: float | None) -> bool:
        """Close one, find a counterexample in it, or give it up; False where the time ended."""
        found = None
        if self._programs is not None:
            wide = _with_decisions(self._programs.frame, in_precision(leaf, torch.float64))
            view = self._programs.frame.view(wide)
            found = self._programs.ask(wide, view, until)
            if found is None and until is not None and monotonic() >= until:
                return False
            if found is not None:
                bound, proved, _ = self._programs.prove(view, found)
                if bool(proved):
                    self._ledger.close(margins(leaf, bound.to(leaf["bound"].dtype)), leaf["owner"])
                    self._ledger.count(closed=1)
                    return True
                if not isinstance(found, Empty):
                    point = self._programs.inside(torch.as_tensor(found.point), wide)
                    self._ledger.try_points(point.to(leaf["low"]), leaf["owner"])
        if not self._ledger.falsified:
            self._ledger.give_up(leaf["owner"])
        return True


def _with_decisions(frame: Frame, leaf: Batch) -> Batch:
    """A subproblem in which ReLUs that narrowing decided are split: no point beyond can be a counterexample.

    A program takes the limits of inputs from splits alone, and without them its optimum can lie where the network is
    another one.
    """
    sign = leaf["sign"].clone()
    for piece in frame.pieces:
        if piece.activations[0].op == "relu":
            some = sign[:, piece.columns]
            free = some == 0
            some[free & (leaf["low"][:, piece.columns] >= 0)] = 1
            some[free & (leaf["high"][:, piece.columns] <= 0)] = -1
    return {**leaf, "sign": sign}
