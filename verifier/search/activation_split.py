"""Branch and bound over activations: beta-CROWN (Wang et al. 2021, arXiv 2103.06624) in batches of subproblems."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from verifier.bounding.ascent import ascend
from verifier.bounding.dual import DualPoint, LinearBound
from verifier.bounding.ladder import Bounds, Problem, allowance, reevaluate
from verifier.errors import out_of_memory
from verifier.operators.evaluate import place
from verifier.search.boxes import in_working
from verifier.search.branching import Splits, at_kinks, choose, halves, scores, split_points, splits
from verifier.search.condensed import condensed
from verifier.search.inactive import Remaining
from verifier.search.joint import Joint, find_cuts
from verifier.search.ledger import Ledger
from verifier.search.narrowing import Narrowing
from verifier.search.result import Replay, RootOptions, SearchOptions, Watch
from verifier.search.root import refine
from verifier.search.subproblem import Batch, Frame, View, in_precision, joined, margins, select
from verifier.specs.box import Box, flat_rows

if TYPE_CHECKING:
    from verifier.search.leaves import Leaves

#: a search with less than this share of its work left is not begun again
FAR = 0.25
#: relaxations that cost less than this share of the bound tell nothing about where to split
BLIND = 1e-3
#: subproblems of undecided neurons alone that a step takes at least: products of small matrices want many
MANY = 256


class ActivationSplit:
    """A search that can be continued: `run` works until a time, the ledger says where it stands.

    Args:
        problem: any regions; graph placed.
        exact: the same in float64, in which every closed subproblem is checked.
        root: bounds whose boxes and dual point the search starts from.
        wanted: (B,) properties that are to be decided.
        replay: judges points that look like counterexamples.
        watch: told now and then where the search is.
    """

    def __init__(
        self,
        problem: Problem,
        exact: Problem,
        root: Bounds,
        wanted: Tensor,
        options: SearchOptions,
        replay: Replay,
        watch: Watch | None = None,
    ):
        widest = max(torch.Size(shape).numel() for shape in problem.graph.shapes.values())
        size = max(8, options.subproblem_bytes // (widest * problem.rows.objective.C.element_size()))
        self.ledger = Ledger.of(problem, wanted, size, options, replay, watch)
        self._size = self._given = size  # over all layers, and what the ledger had last unless memory ran out
        self.options = options
        self._problems, self._dual, near = (problem, exact), root.dual, root.relaxation
        root = reevaluate(exact, root)  # in float64, over intervals that are rounded outward
        self._boxes = root.relaxation.boxes
        self._joint: Joint | None = None
        # what cuts are made from takes much memory, and is let go with them
        self._relaxations = None if options.joint is None else (near, root.relaxation)
        margins = exact.rows.margins(root.lower)
        missed = exact.rows.margins(root.lower - allowance(exact, root)) > 0
        owner, target = missed.nonzero().unbind(1)
        self.ledger.close(margins[owner, target].to(problem.rows.objective.C.dtype), owner)
        self._open = ~missed & wanted.unsqueeze(1)
        self._begin()

    def _begin(self) -> None:
        """The roots over the boxes that are known, in place of all that is open."""
        (problem, exact), boxes, dual = self._problems, self._boxes, self._dual
        if self.options.joint is None:  # cuts name neurons by their places
            remaining = Remaining.of(exact.graph, boxes)
            problem, exact = remaining.problem(problem), remaining.problem(exact)
            boxes, dual = remaining.boxes(boxes), remaining.weights(dual)
        like, joint = problem.rows.objective.C, self._joint or Joint({}, {}, dual)
        frame = Frame.of(problem, in_working(boxes, like.dtype, like.device), joint.working)
        in_float64, roots = frame.in_precision(exact, joint.exact), frame.roots(joint.dual)
        self.ledger.restart(select(roots, self._open[roots["owner"], roots["target"]].nonzero()[:, 0]))
        # only now: where memory ended before, what is open still belongs to the frame that it was made for
        self._problems, self._boxes, self._dual = (problem, exact), boxes, dual
        self.frame, self.exact = frame, in_float64
        self._leaves: Leaves | None = None
        self._narrowing: Narrowing | None = None
        self._condense()

    def _condense(self) -> None:
        """Search the undecided neurons alone, where that is less work and there is memory for it."""
        most, frame = self.options.condense, self.frame
        self._certain = self.exact
        try:  # narrowing bounds neurons by their places in all layers
            small = None if most is None or self.options.narrowing is not None else condensed(self.exact, most)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            small = None
        if self.ledger.size == self._given:  # else memory ran out once
            self.ledger.size = self._given = self._size if small is None else max(self._size, MANY)
        if small is None:
            return
        like = frame.problem.rows.objective.C
        cuts = {name: cut.to(like.dtype) for name, cut in small.cuts.items()}
        graph = place(small.problem.graph, like.dtype, like.device)
        objective = replace(frame.problem.rows.objective, node=graph.output)
        problem = replace(frame.problem, graph=graph, rows=replace(frame.problem.rows, objective=objective))
        self.frame, self._certain = replace(small.in_precision(problem, cuts), scales={}), small

    def run(self, until: float | None) -> None:
        """Bound batches until all subproblems are closed, a counterexample is confirmed, or the time is over.

        What is not decided soon begins again over tighter boxes, and once more when the search goes on after a pause
        without having come far.
        """
        after = [options.after for options in (self.options.root, self.options.joint) if options is not None]
        if after:
            soon = monotonic() + min(after)
            self._work(soon if until is None else min(soon, until))
            late = until is not None and monotonic() >= until
            if not late and not self.ledger.stuck and self.ledger.remaining() > FAR * int(self._open.sum()):
                self._refine(until)
        if self.options.narrowing is not None:
            self._narrowing = Narrowing.of(self.frame, self.exact, self.options.narrowing)
        self._work(until)

    def _work(self, until: float | None) -> None:
        self.ledger.run(lambda batch: self.step(batch, until), until)

    def _refine(self, until: float | None) -> None:
        """Begin again over tighter boxes and with cuts."""
        try:
            known = self._joint
            self._find_cuts(until)
            if self.options.root is not None:
                self._boxes = self._refined(self.options.root, until)
            elif self._joint is known:
                return  # nothing is new
            numbers = self.ledger.store.numbers()
            self._open = torch.zeros_like(self._open)
            self._open[numbers["owner"], numbers["target"]] = True
            self._begin()
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise  # else the search goes on where it is

    def _find_cuts(self, until: float | None) -> None:
        """Once, where the time allows it."""
        options, left = self.options.joint, torch.inf if until is None else until - monotonic()
        if options is not None and self._relaxations is not None and left > options.least:
            end = monotonic() + options.share * left
            self._joint = find_cuts(self._problems, self._relaxations, self._dual, options, end)
            self._relaxations = None

    def _refined(self, options: RootOptions, until: float | None) -> dict[str, Box]:
        now = monotonic()
        end = now + (options.seconds if until is None else options.share * (until - now))
        return refine(
            *self._problems, self._boxes, min(self.ledger.size, self._size), options, end, self.options.memory // 4
        )

    def step(self, parents: Batch, until: float | None) -> list[Batch]:
        """Split subproblems and bound both halves of each; returns what stays open."""
        parents = self._narrowed(parents, until)
        stuck = split_points(self.frame, parents).isnan().all(1)
        left = [self._finish(select(parents, stuck.nonzero()[:, 0]), until)] if bool(stuck.any()) else []
        children = self._branch(select(parents, (~stuck).nonzero()[:, 0]))
        if len(children["bound"]) and not self.ledger.falsified:
            left.append(self._bound(children, until))
        return left

    def _narrowed(self, batch: Batch, until: float | None) -> Batch:
        """The subproblems, where splits alone do not close them over tighter boxes; what this closes is left out."""
        narrowing = self._narrowing
        if narrowing is None or not bool((due := narrowing.due(batch)).any()):
            return batch
        rest = select(batch, (~due).nonzero()[:, 0])
        batch, empty = narrowing.narrowed(select(batch, due.nonzero()[:, 0]), until)
        self.ledger.close(torch.zeros_like(batch["bound"]).masked_fill(~empty, torch.inf), batch["owner"])
        self.ledger.count(closed=int(empty.sum()))
        batch = select(batch, (~empty).nonzero()[:, 0])
        return joined([rest, self._bound(batch, until)]) if len(batch["bound"]) else rest

    @torch.no_grad()
    def _branch(self, parents: Batch) -> Batch:
        """Both halves of each parent, at the entry that promises most."""
        if len(parents["bound"]) == 0 or self.ledger.falsified:
            return parents
        view = self.frame.view(parents)
        watch: dict[str, Tensor] = {}
        linear, rows = self.frame.bound(view, watch)
        parents["bound"] = torch.maximum(parents["bound"], rows.amax(1))
        values, moved = self._minimisers(linear, parents)
        at = splits(self.frame, view, watch, parents)
        kinks = at_kinks(self.frame, at.points)
        scored = tuple(scores(self.frame, view, watch, parents, x) for x in (values, kinks))
        blind = scored[0].masked_fill(at.points.isnan(), 0).amax(1) <= BLIND * parents["bound"].abs()
        if bool(blind.any()):
            pushed = self._pushed(view, moved)
            linear, _ = self.frame.bound(pushed, watch)
            values, _ = self._minimisers(linear, parents)
            others = tuple(scores(self.frame, pushed, watch, parents, x) for x in (values, kinks))
            scored = tuple(torch.where(blind.unsqueeze(1), b, a) for a, b in zip(scored, others, strict=True))
        return halves(parents, self._column(parents, scored, at), at)

    def _column(self, parents: Batch, scored: tuple[Tensor, ...], at: Splits) -> Tensor:
        """Where to split each parent, (N,), by the rule that was asked for."""
        if self.options.branching == "filtered":
            return choose(self.frame, parents, scored, at, self.options.branches)
        score = scored[0] if self.options.branching == "scored" else parents["high"] - parents["low"]
        return score.masked_fill(at.points.isnan(), -torch.inf).argmax(1)

    def _finish(self, ended: Batch, until: float | None) -> Batch:
        """Decide subproblems that cannot be split; those for which there was no time come back."""
        if self._leaves is None:
            from verifier.search.leaves import Leaves  # scipy's sparse matrices behind it

            self._leaves = Leaves(self.exact, self.ledger)
        return self._leaves.finish(ended, until)

    def _pushed(self, view: View, moved: dict[str, Tensor]) -> View:
        """Larger multipliers on the splits that the minimiser breaks.

        Where no relaxation costs anything, the subproblem can only be closed by showing that it is empty; then these
        constraints are the objective.
        """
        multipliers = {
            name: value + (moved[name] & (view.relaxation.splits[name].sign != 0)).unsqueeze(1)
            for name, value in view.dual.multipliers.items()
        }
        return replace(view, dual=replace(view.dual, multipliers=multipliers))

    def _bound(self, batch: Batch, until: float | None) -> Batch:
        """Climb in stages; what is closed leaves after each. Returns the subproblems that stay open."""
        self.ledger.count(bounded=len(batch["bound"]))
        for number, stage in enumerate(self.options.stages):
            view = self.frame.view(batch)
            graph = self.frame.problem.graph
            start = view.dual if self.options.warm or number else None
            rows, dual = ascend(graph, view.region, view.relaxation, view.objective, stage, deadline=until, start=start)
            batch = self._settle(batch, rows.amax(1), dual)
            if len(batch["bound"]) == 0:
                break
        return batch

    @torch.no_grad()
    def _settle(self, batch: Batch, bounds: Tensor, dual: DualPoint) -> Batch:
        """Take over bounds (N,) and their dual points, close what they prove, and return the rest."""
        self.frame.absorb(batch, dual)
        batch = {**batch, "bound": torch.maximum(batch["bound"], bounds)}
        hopeful = (bounds > 0).nonzero()[:, 0]
        closed = torch.zeros_like(bounds, dtype=torch.bool)
        if len(hopeful):
            closed[hopeful] = self._proved(select(batch, hopeful))
        self.ledger.close(margins(batch, batch["bound"]).masked_fill(~closed, torch.inf), batch["owner"])
        self.ledger.count(closed=int(closed.sum()))
        return select(batch, (~closed).nonzero()[:, 0])

    def _proved(self, batch: Batch) -> Tensor:
        """(N,) whether the subproblems' own dual points close them in float64, beyond its rounding errors."""
        view = self._certain.view(in_precision(batch, torch.float64))
        return (self._certain.certain(view) > 0).any(1)

    def _minimisers(self, linear: LinearBound, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Replay the points that minimise the linear bounds (for boxes, corners); returns `Frame.evaluate_within`."""
        region = self.frame.problem.region.enclosing_box()
        lower, upper = (end.flatten(1) for end in (region.lower, region.upper))
        owner, A = batch["owner"], flat_rows(linear.A[self.frame.problem.graph.input])
        points = torch.where(A.sum(1) > 0, lower[owner], upper[owner]).reshape(-1, *region.lower.shape[1:])
        self.ledger.try_points(points, owner)
        return self.frame.evaluate_within(batch, points)
