"""Branch and bound over the input: boxes are bounded in batches, cut, and halved where the bounds are most sensitive.

Wins where few coordinates are free (Wang et al. 2018, arXiv 1804.10829; nnenum, Bak 2021).
Axes: N boxes of a batch, P polytopes, S rows, n free coordinates.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from verifier.bounding.dual import DualPoint, Objective, Relaxation, fixed_point, linear_bound
from verifier.bounding.forms import AffineForms
from verifier.bounding.intermediate import Steps, by_dual, interval_only, outward_in, relax_network
from verifier.bounding.ladder import Problem
from verifier.search.boxes import Boxes, inheriting, slack, sources
from verifier.search.contract import Planes, contract
from verifier.search.ledger import Ledger
from verifier.search.result import Replay, SearchOptions, Watch
from verifier.specs.box import flat, flat_rows
from verifier.specs.region import Box

#: boxes are halved several times at once while fewer than this share of a batch are open
_FILL = 0.5
#: halvings before boxes of affine forms are tightened further: larger sets are hardly ever proved, so after the first
#: one, which shows where to halve, they are not even bounded
FORMS_ALONE = 2
#: which part of the memory the generators of one node may take
FORMS_SHARE = 16


class InputSplit:
    """A search that can be continued: `run` works until a time, `result` says where it stands.

    Args:
        problem: regions are boxes; graph placed.
        wanted: (B,) properties that are to be decided.
        replay: judges points that look like counterexamples.
        watch: told now and then where the search is.
    """

    def __init__(
        self, problem: Problem, wanted: Tensor, options: SearchOptions, replay: Replay, watch: Watch | None = None
    ):
        self.graph, self.sources = problem.graph, sources(problem.graph)
        self.ledger = Ledger.of(problem, wanted, _batch_size(problem, options), options, replay, watch)
        self.targets, self.options = self.ledger.targets, options
        box = problem.region.enclosing_box()
        self.shape = box.lower.shape[1:]
        sizes = sum(torch.Size(self.graph.shapes[name]).numel() for name in self.sources)
        owner = wanted.nonzero()[:, 0].to(box.lower.device)
        like, count = box.lower, len(owner)
        self.ledger.restart(
            {
                "lower": flat(box.lower)[owner],
                "upper": flat(box.upper)[owner],
                "bound": like.new_full((count,), -torch.inf),
                "depth": torch.zeros(count, dtype=torch.int32, device=like.device),
                "owner": owner,
                "open": self.targets.present[owner],
                "known_lower": like.new_full((count, sizes), -torch.inf),
                "known_upper": like.new_full((count, sizes), torch.inf),
            }
        )

    @torch.no_grad()
    def run(self, until: float | None) -> None:
        """Bound batches of boxes until all are closed, a counterexample is confirmed, or the time is over."""
        self.ledger.run(lambda batch: self.step(batch, until), until)

    def step(self, batch: dict[str, Tensor], until: float | None) -> list[dict[str, Tensor]]:
        """Bound boxes and cut off what is excluded; returns the halves of what stays open."""
        region = Box(*(batch[end].reshape(-1, *self.shape) for end in ("lower", "upper")))
        relaxation = self._relax(batch, region, until)
        objective = self.targets.objective(batch["owner"])
        bound = linear_bound(self.graph, relaxation.envelopes, objective)
        self.ledger.count(bounded=region.batch)
        A = flat_rows(bound.A[self.graph.input]).expand(region.batch, -1, -1)
        rows = bound.constant + region.minimum(A)
        allowed = slack(self.graph, relaxation, objective, DualPoint())
        owner = batch["owner"]
        margins = self.targets.margins(rows, owner)
        cleared = self.targets.margins(rows - allowed, owner) > 0
        open_ = batch["open"] & ~cleared
        self._close(batch["open"] & cleared, margins, owner)
        planes = Planes(A, bound.constant.expand_as(rows), allowed, self.targets.member[owner])
        lower, upper, left = contract(batch["lower"], batch["upper"], planes, open_)
        self._close(open_ & ~left, self.targets.margins(allowed, owner), owner)
        keep = left.any(1).nonzero()[:, 0]
        self.ledger.count(closed=region.batch - len(keep))
        if len(keep) == 0:
            return []
        best = margins.masked_fill(~left, torch.inf).amin(1)
        children = {
            "lower": lower,
            "upper": upper,
            "bound": torch.maximum(batch["bound"], best),
            "depth": batch["depth"],
            "owner": owner,
            "open": left,
            "known_lower": self._gather(relaxation.boxes, "lower"),
            "known_upper": self._gather(relaxation.boxes, "upper"),
        }
        children = {name: value[keep] for name, value in children.items()}
        score = self._sensitivity(relaxation, owner, self._worst_row(rows, margins, left, owner))[keep]
        self._try_points(A[keep], children)
        return [] if self.ledger.falsified else [self._split(children, score)]

    def _relax(self, batch: dict[str, Tensor], region: Box, until: float | None) -> Relaxation:
        """The network over each box: what the parent knew is the start, unstable neurons are bounded anew."""
        known: dict[str, Box] = {}
        start = 0
        for name in self.sources:
            shape = self.graph.shapes[name]
            stop = start + torch.Size(shape).numel()
            ends = (batch[key][:, start:stop].reshape(-1, *shape) for key in ("known_lower", "known_upper"))
            known[name], start = Box(*ends), stop
        tighten = by_dual(self.graph, region, self.options.intermediate, until)
        if not self.options.forms:
            return relax_network(self.graph, region, inheriting(known, tighten), push=outward_in(self.graph))
        forms = AffineForms(self.graph, region, self.options.memory // FORMS_SHARE)
        if int(batch["depth"].max()) < FORMS_ALONE:
            return relax_network(self.graph, region, inheriting(known, interval_only), push=forms.push)

        def tighten_loose(name: str, relaxation: Relaxation, wanted: Callable[[Box], Tensor]) -> tuple[Box, Steps]:
            return tighten(name, relaxation, lambda box: wanted(box) & forms.loose(name))

        return relax_network(self.graph, region, inheriting(known, tighten_loose), push=forms.push)

    def _gather(self, boxes: Boxes, end: str) -> Tensor:
        ends = [flat(getattr(boxes[name], end)) for name in self.sources]
        return torch.cat(ends, 1) if ends else flat(next(iter(boxes.values())).lower)[:, :0]

    def _close(self, closed: Tensor, margins: Tensor, owner: Tensor) -> None:
        """Record the margins (N, P) of the polytopes that were just excluded."""
        least = margins.masked_fill(~closed, torch.inf).amin(1)
        self.ledger.close(least, owner)

    def _sensitivity(self, relaxation: Relaxation, owner: Tensor, row: Tensor) -> Tensor:
        """How steep row `row` (N,) can be along each coordinate, (N, n): the steepest of several linear bounds.

        Both sides of the row under the flattest and under the steepest lower lines; the sensitivity of one bound
        alone misses coordinates whose influence its relaxation has lost (as smear in Wang et al. 2018).
        """
        objective = self.targets.objective(owner)
        C = objective.C.expand(len(row), *objective.C.shape[1:])[torch.arange(len(row)), row].unsqueeze(1)
        both = Objective(objective.node, torch.cat([C, -C], 1))
        steepest = C.new_zeros(len(row), 1)
        for slopes in ("zero", "one"):
            dual = fixed_point(relaxation.envelopes, slopes)
            A = linear_bound(self.graph, relaxation.envelopes, both, dual).A[self.graph.input]
            steepest = torch.maximum(steepest, flat_rows(A).abs().amax(1))
        return steepest

    def _worst_row(self, rows: Tensor, margins: Tensor, open_: Tensor, owner: Tensor) -> Tensor:
        """The row (N,) that is nearest to excluding the polytope which is furthest from being excluded."""
        worst = margins.masked_fill(~open_, torch.inf).argmin(1)
        return rows.masked_fill(~self.targets.member[owner, worst], -torch.inf).argmax(1)

    def _try_points(self, A: Tensor, children: dict[str, Tensor]) -> None:
        """Centres and the corners that minimise the linear bounds."""
        lower, upper, owner = children["lower"], children["upper"], children["owner"]
        direction = torch.where(self.targets.member[owner].any(1).unsqueeze(2), A, torch.zeros_like(A)).sum(1)
        points = torch.cat([torch.where(direction > 0, lower, upper), (lower + upper) / 2])
        self.ledger.try_points(points.reshape(-1, *self.shape), owner.repeat(2))

    def _split(self, children: dict[str, Tensor], score: Tensor) -> dict[str, Tensor]:
        """Halve every box along its most sensitive coordinate, several times where few are open or forms too wide."""
        while True:
            lower, upper = children["lower"], children["upper"]
            middle = (lower + upper) / 2
            score_now = (score * (upper - lower)).masked_fill((middle <= lower) | (middle >= upper), -1)
            best = score_now.max(1)
            splittable = best.values >= 0  # a score that overflowed is not a number, and no box may be lost by it
            self.ledger.give_up(children["owner"][~splittable])
            keep = splittable.nonzero()[:, 0]
            dim = best.indices[keep].unsqueeze(1)
            halves = {name: value[keep].repeat(2, *(1,) * (value.dim() - 1)) for name, value in children.items()}
            at = middle[keep].gather(1, dim)
            count = len(keep)
            halves["upper"][:count].scatter_(1, dim, at)
            halves["lower"][count:].scatter_(1, dim, at)
            halves["depth"] += 1
            children, score = halves, score[keep].repeat(2, 1)
            enough = 4 * count + len(self.ledger.store) > self.ledger.size * _FILL * 2
            hopeless = self.options.forms and bool((halves["depth"] < FORMS_ALONE).any())
            if (enough and not hopeless) or 4 * count > self.ledger.room or count == 0:
                return children


def _batch_size(problem: Problem, options: SearchOptions) -> int:
    widest = max(torch.Size(shape).numel() for shape in problem.graph.shapes.values())
    rows = max(8, problem.rows.objective.C.shape[1])
    numbers = options.batch_bytes // problem.rows.objective.C.element_size()
    return max(1, numbers // (widest * rows))
