"""Branch and bound over activations by linear programs: complete for piecewise linear networks that are small.

HiGHS proposes and the dual function disposes. Every subproblem is one warm program; its dual values become a dual
point, and the subproblem is closed when that point proves it in float64, also where HiGHS says that it is empty. A
subproblem whose neurons are all decided is an exact program, so nothing but rounding stays open. Points that look
like counterexamples come from these programs and, before them, from HiGHS's own mixed-integer solver; all of them
are replayed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic

import torch
from torch import Tensor

from verifier.bounding.ladder import Bounds, Problem, reevaluate
from verifier.bounding.lp.duals import Duals, Empty
from verifier.bounding.lp.highs import workers
from verifier.bounding.lp.mip import candidate
from verifier.bounding.lp.program import Program
from verifier.bounding.lp.splits import SplitModel, SplitSolver
from verifier.operators.table import OPERATORS
from verifier.search.branching import Splits, halves, split_points
from verifier.search.ledger import Ledger
from verifier.search.programs import Programs
from verifier.search.result import Replay, SearchOptions, SearchResult, Watch
from verifier.search.subproblem import Batch, Frame, select
from verifier.workers import Workers

#: share of the time that is left, and seconds without a limit, in which HiGHS looks for a counterexample of a root
CANDIDATE_SHARE, CANDIDATE_SECONDS = 0.2, 10.0
#: share of a neuron's distance from its true value that counts though no line of it has a price
LEAST_MASS = 1e-6


class MilpSearch:
    """A search that can be continued: `run` works until a time, the ledger says where it stands.

    Args:
        problem: in float64; regions are boxes.
        root: bounds whose boxes and dual point the search starts from.
        wanted: (B,) properties that are to be decided.
        replay: judges points that look like counterexamples.
        watch: told now and then where the search is.
        make: what solves the subproblems of one polytope.
    """

    def __init__(
        self,
        problem: Problem,
        root: Bounds,
        wanted: Tensor,
        options: SearchOptions,
        replay: Replay,
        watch: Watch | None = None,
        make: Callable[[Program], SplitSolver] = SplitModel,
    ):
        if root.lower.dtype != torch.float64:
            root = reevaluate(problem, root)
        self.ledger = Ledger.of(problem, wanted, 1, options, replay, watch, Workers(workers()))
        self.frame, self.options = Frame.of(problem, root.relaxation.boxes), options
        roots = self.frame.roots(root.dual)
        self._roots = select(roots, wanted.to(roots["owner"].device)[roots["owner"]].nonzero()[:, 0])
        self._tried = 0  # roots that HiGHS was asked for a counterexample of
        self._programs = Programs(self.frame, self._roots, make)
        self.ledger.restart(self._roots)

    def run(self, until: float | None) -> None:
        """Work until all subproblems are closed, a counterexample is confirmed, or the time is over."""
        while self._tried < len(self._roots["bound"]) and not self.ledger.finished:
            if until is not None and monotonic() >= until:
                return
            self._try_root(self._tried, until)
            self._tried += 1
        self.ledger.run(partial(self._step, until=until), until)

    @property
    def subproblems(self) -> int:
        """How many were bounded."""
        return self.ledger.subproblems

    def result(self) -> SearchResult:
        return self.ledger.result()

    def _try_root(self, number: int, until: float | None) -> None:
        root = select(self._roots, torch.tensor([number]))
        view, now = self.frame.view(root), monotonic()
        if bool((self.frame.bound(view)[1] > 0).any()):
            return
        share = (len(self._roots["bound"]) - number) if until is not None else 1
        seconds = CANDIDATE_SECONDS if until is None else CANDIDATE_SHARE * (until - now) / share
        try:
            point = candidate(self._programs.program(view), view.relaxation, now + seconds)
        except Exception:  # of a third party's code; the search does without its candidate
            return
        if point is not None:
            self._try(torch.as_tensor(point), root)

    def _try(self, point: Tensor, batch: Batch) -> None:
        self.ledger.try_points(self._programs.inside(point, batch), batch["owner"])

    @torch.no_grad()
    def _step(self, batch: Batch, until: float | None) -> list[Batch]:
        """Bound one subproblem; close it, or return its halves."""
        view = self.frame.view(batch)
        found = self._programs.ask(batch, view, until)
        if found is None and until is not None and monotonic() >= until:
            return [batch]
        self.ledger.count(bounded=1)
        if found is not None:
            bound, proved, dual = self._programs.prove(view, found)
            if bool(proved):
                self.ledger.close(bound, batch["owner"])
                return []
            if not isinstance(found, Empty):
                batch["bound"] = torch.maximum(batch["bound"], bound)
                self.frame.absorb(batch, dual)
                self._try(torch.as_tensor(found.point), batch)
        return [] if self.ledger.falsified else self._split(batch, None if isinstance(found, Empty) else found)

    def _split(self, batch: Batch, found: Duals | None) -> list[Batch]:
        """Both halves of a subproblem at the neuron that promises most; none where all are decided."""
        points = split_points(self.frame, batch)
        closed = points.isnan()
        if bool(closed.all()):
            self.ledger.give_up(batch["owner"])
            return []
        score = batch["high"] - batch["low"] if found is None else self._scores(found).to(closed.device)
        none = torch.zeros_like(batch["multiplier"])
        column = score.masked_fill(closed, -torch.inf).argmax(1)
        return [halves(batch, column, Splits(points, none, none))]

    def _scores(self, found: Duals) -> Tensor:
        """What each open entry's relaxation costs at the program's own optimum, (1, K).

        Dual values of an activation's lines times the distance of its output there from its true value. Where all
        these distances are zero the optimum is an input of the network; then the wider interval decides.
        """
        parts = []
        for piece in self.frame.pieces:
            score = torch.zeros(len(piece.index), dtype=torch.float64)
            for node in piece.activations:
                if all(node.name in part for part in (found.outputs, found.lower, found.upper)):
                    x = torch.as_tensor(found.inputs[piece.source]).reshape(
                        1, *self.frame.problem.graph.shapes[piece.source]
                    )
                    gap = OPERATORS[node.op].forward(node, x).reshape(-1) - torch.as_tensor(found.outputs[node.name])
                    mass = torch.as_tensor(found.lower[node.name].sum(0) + found.upper[node.name].sum(0))
                    score += ((mass.abs() + LEAST_MASS) * gap.abs()).nan_to_num()[piece.index]
            parts.append(score)
        return torch.cat(parts).unsqueeze(0)
