"""The rungs of bounding: named methods from cheapest to tightest, each a choice of dual points.

Every rung returns `Bounds` with the dual point behind them; `reevaluate` checks such bounds again in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic
from types import MappingProxyType

import torch
from torch import Tensor

from verifier.bounding.ascent import AscentOptions, ascend
from verifier.bounding.case_boxes import by_cases, climbed, without_cuts
from verifier.bounding.case_rows import by_row_cases
from verifier.bounding.cases import CaseOptions, can_be_split, case_bounds, case_scale
from verifier.bounding.dual import AnyPoint, CasePoint, DualPoint, Objective, Relaxation, WindowPoint, lower_bound
from verifier.bounding.intermediate import (
    IntermediateOptions,
    Join,
    Tighten,
    by_dual,
    by_steps,
    interval_only,
    outward_in,
    relax_network,
    standing,
)
from verifier.bounding.interval import interval_relaxation
from verifier.bounding.krelu import KReluOptions, by_dual_with_cuts, join_again, join_groups
from verifier.bounding.rounding import rounding_scale, roundings
from verifier.bounding.rows import Rows
from verifier.bounding.worth import worth_of
from verifier.graph.ir import Graph
from verifier.operators import place
from verifier.relaxations.cuts import JointBound
from verifier.specs.region import Region

#: operators behind which cases close little
CONVOLUTIONS = ("conv", "conv_transpose")
#: a further pass by cases comes only where so many times what the last one took is left
TIMES_LEFT = 4
#: and only where the margin is no further from zero than so many times what the last one gained
TIMES_GAINED = 10


@dataclass(frozen=True)
class Problem:
    """A batch of properties on one device: placed graph, regions (batch B), rows (B, S).

    Args:
        known: what a rung before has found of the same batch: methods go on from its boxes and the steps behind them.
    """

    graph: Graph
    region: Region
    rows: Rows
    known: Relaxation | None = None

    def select(self, index: Tensor) -> Problem:
        """The properties at int64 indices."""
        return Problem(self.graph, self.region.select(index), self.rows.select(index))

    def in_float64(self) -> Problem:
        """The same numbers in float64, which tells whether more would be proved there. It is no proof itself: of the
        original network's weights some are rounded where it was placed in float32."""
        objective, device = self.rows.objective, self.rows.objective.C.device
        offset = None if objective.offset is None else objective.offset.double()
        rows = replace(self.rows, objective=Objective(objective.node, objective.C.double(), offset))
        return Problem(place(self.graph, torch.float64, device), self.region.to(torch.float64, device), rows)


@dataclass(frozen=True)
class LadderOptions:
    """How the rungs work.

    Args:
        intermediate: boxes of CROWN and alpha-CROWN; the ascent in it is alpha-CROWN's alone.
        final: the ascent on the property's rows.
        joint: cuts on groups of neurons (k-ReLU).
        joint_intermediate, joint_final: boxes of k-ReLU where cuts tighten them, and its ascent on the property's rows.
        over: a relaxation of the same problem whose boxes every method takes; None for boxes of its own.
        tell: told how far a rung is that takes long, such as ``program 3 of 9``.
    """

    intermediate: IntermediateOptions = field(
        default_factory=lambda: IntermediateOptions(ascent=AscentOptions(iterations=8, step=0.4, decay=0.7))
    )
    final: AscentOptions = field(default_factory=AscentOptions)
    joint: KReluOptions = field(default_factory=KReluOptions)
    joint_intermediate: IntermediateOptions = field(
        default_factory=lambda: IntermediateOptions(
            ascent=AscentOptions(iterations=15, step=0.25, decay=0.87, cut_step=0.3)
        )
    )
    joint_final: AscentOptions = field(
        default_factory=lambda: AscentOptions(iterations=100, step=0.1, decay=0.97, cut_step=1.0, patience=30)
    )
    over: Relaxation | None = None
    tell: Callable[[str], None] | None = None

    def tightest(self) -> LadderOptions:
        """The same without an early end of the ascent on the property's rows."""
        final, joint_final = replace(self.final, whole=True), replace(self.joint_final, whole=True)
        return replace(self, final=final, joint_final=joint_final)

    def relax(self, problem: Problem, tighten: Tighten, join: Join | None = None) -> Relaxation:
        """A problem relaxed over the boxes that `tighten` makes, or over those that are given."""
        tighten = tighten if self.over is None else standing(self.over)
        return relax_network(problem.graph, problem.region, tighten, join)


@dataclass(frozen=True)
class Bounds:
    """Lower bounds of the rows, with what proves them.

    Args:
        lower: (B, S) bound of every row.
        by_interval: (B, S) rows whose bound is the intervals' (`Relaxation` without envelopes), which can beat the
            lines; all others are the dual point's.
        relaxation, dual: what the dual function was evaluated at.
        trees: that the rows' bounds come from; None where they are the dual point's, from which trees grow.
    """

    lower: Tensor
    by_interval: Tensor
    relaxation: Relaxation
    dual: DualPoint
    trees: CasePoint | None = None


def ibp(problem: Problem, options: LadderOptions, deadline: float | None = None) -> Bounds:
    """Interval bound propagation (Gowal et al. 2018), last layers merged with the rows."""
    if options.over is None:
        relaxation = interval_relaxation(problem.graph, problem.region)
    else:
        relaxation = replace(options.over, envelopes={})
    return with_intervals(problem, relaxation, None, DualPoint())


def crown_ibp(problem: Problem, options: LadderOptions, deadline: float | None = None) -> Bounds:
    """Interval boxes, one backward pass (Zhang et al. 2019, arXiv 1906.06316)."""
    return _backward(problem, options.relax(problem, interval_only))


def crown(problem: Problem, options: LadderOptions, deadline: float | None = None) -> Bounds:
    """Backward passes for every unstable neuron and for the rows (Zhang et al. 2018)."""
    intermediate = replace(options.intermediate, ascent=None)
    tighten = by_dual(problem.graph, problem.region, intermediate, deadline, problem.known)
    return _backward(problem, options.relax(problem, tighten))


def alpha_fixed(problem: Problem, options: LadderOptions, deadline: float | None = None) -> Bounds:
    """Ascent on the property's rows only, over CROWN's boxes."""
    relaxation = crown(problem, options, deadline).relaxation if problem.known is None else problem.known
    return climb(problem, relaxation, options.final, deadline)


def alpha_crown(problem: Problem, options: LadderOptions, deadline: float | None = None) -> Bounds:
    """Ascent on the line weights of the boxes' rows, then on those of the property's rows (Xu et al. 2021)."""
    tighten = by_dual(problem.graph, problem.region, options.intermediate, deadline, problem.known)
    return climb(problem, options.relax(problem, tighten), options.final, deadline)


def k_relu(problem: Problem, options: LadderOptions, deadline: float | None = None) -> Bounds:
    """Ascent on line weights and on multipliers of cuts on groups of neurons (Singh et al. 2019, NeurIPS).

    It goes on from the boxes that are known, or from alpha-CROWN's, so that it is not looser. Case distinctions for the
    property's rows come first: they are quick. What they leave open gets tighter boxes, by case distinctions where all
    layers are dense and else by cuts. Unless told to go the whole way it ends with the first bounds that prove the
    property.
    """
    graph, region, joint = problem.graph, problem.region, options.joint
    known = None if problem.known is None else without_cuts(problem.known)
    cases = joint.cases if options.over is None and any(map(can_be_split, graph.nodes)) else None
    dense = cases is not None and not any(node.op in CONVOLUTIONS for node in graph.nodes)
    if options.over is None and (known is None or not known.envelopes or (dense and not climbed(known))):
        known = options.relax(problem, by_dual(graph, region, options.intermediate, deadline, known))
    found = None
    if cases is not None and known is not None:
        found = _with_cases(problem, climb(problem, known, options.final, deadline), cases, deadline)
        if _ended(problem, found, options):
            return found
        if dense and climbed(known):
            return _by_passes(problem, options, cases, known, found, deadline)
    tighten = by_dual_with_cuts(graph, region, options.joint_intermediate, joint, deadline, known)
    relaxation = options.relax(problem, tighten, join_groups(graph, region, joint, deadline))
    with_cuts = climb(problem, relaxation, options.joint_final, deadline)
    return with_cuts if found is None else _tighter(problem, found, with_cuts)


def _by_passes(
    problem: Problem,
    options: LadderOptions,
    cases: CaseOptions,
    known: Relaxation,
    found: Bounds,
    deadline: float | None,
) -> Bounds:
    """Case distinctions tighten all boxes, each time further, while that promises something and there is time.

    After each pass the property's rows are bounded without cuts, then with them.

    Args:
        found: over the boxes that are known.
    """
    graph, region, joint, took, best = problem.graph, problem.region, options.joint, 0.0, found
    worth = worth_of(graph, region, known, problem.rows, (found.lower, found.dual), deadline)
    if worth is None:
        return found
    for passes in cases.passes:
        before, began = best, monotonic()
        if took and deadline is not None and began + TIMES_LEFT * took > deadline:
            break
        tighten = by_cases(graph, region, cases, known, replace(worth, passes=passes), joint.kept, deadline)
        known = relax_network(graph, region, tighten)
        took = monotonic() - began
        for join in (None, join_groups(graph, region, joint, deadline)):
            relaxation = known if join is None else relax_network(graph, region, standing(known), join)
            if join is not None and not relaxation.cuts:
                break  # the same once more
            found = climb(problem, relaxation, options.joint_final, deadline, DualPoint(found.dual.weights))
            found = found if relaxation.cuts else _with_cases(problem, found, cases, deadline)
            best = _tighter(problem, best, found)
            if _ended(problem, best, options):
                return best
        now, then = (problem.rows.margins(bounds.lower).amin(1) for bounds in (best, before))
        if not bool((TIMES_GAINED * (now - then) >= now.abs()).any()):
            break
    return best


def _with_cases(problem: Problem, found: Bounds, cases: CaseOptions, deadline: float | None) -> Bounds:
    """The bounds by trees that grow from those of an ascent without cuts, on the rows that these leave open."""
    known, rows = (found.lower, found.dual), problem.rows
    lower, trees = by_row_cases(problem.graph, problem.region, found.relaxation, rows, known, cases, deadline)
    if not trees.splits:
        return found
    return replace(found, lower=lower, by_interval=found.by_interval & (lower <= found.lower), trees=trees)


def _ended(problem: Problem, found: Bounds, options: LadderOptions) -> bool:
    """Whether bounds prove every property, so that nothing tighter is wanted."""
    if options.joint_final.whole or not bool((problem.rows.margins(found.lower) > 0).all()):
        return False
    return bool(proved(problem, found).all() or certify(problem, found, problem.in_float64)[2].all())


def _tighter(problem: Problem, *found: Bounds) -> Bounds:
    """Of bounds by several methods those that prove most properties, then those that leave least to zero, and then
    those of the largest margins.

    All of a batch have one relaxation, so that bounds are taken as a whole: where each proves a property that the other
    leaves open, one of these is lost.
    """

    def size(bounds: Bounds) -> tuple[int, float, float]:
        least = problem.rows.margins(bounds.lower).amin(1)
        return int((least > 0).sum()), float(least.clamp(max=0).sum()), float(least.sum())

    return max(found, key=size)


def climb(
    problem: Problem,
    relaxation: Relaxation,
    options: AscentOptions,
    deadline: float | None = None,
    start: DualPoint | None = None,
) -> Bounds:
    """Ascent on the property's rows over boxes that stand; ends early once every polytope is missed, unless told to
    go the whole way.

    Args:
        start: as of `ascend`.
    """

    def done(lower: Tensor) -> bool:
        return not options.whole and bool((problem.rows.margins(lower) > 0).all())

    lower, dual = ascend(
        problem.graph, problem.region, relaxation, problem.rows.objective, options, done, deadline, start=start
    )
    return with_intervals(problem, relaxation, lower, dual)


Method = Callable[[Problem, LadderOptions, float | None], Bounds]
METHODS: Mapping[str, Method] = MappingProxyType(
    {"ibp": ibp, "crown-ibp": crown_ibp, "crown": crown, "alpha-crown": alpha_crown, "k-relu": k_relu}
)


def _backward(problem: Problem, relaxation: Relaxation) -> Bounds:
    lower = lower_bound(problem.graph, problem.region, relaxation, problem.rows.objective)
    return with_intervals(problem, relaxation, lower, DualPoint())


def with_intervals(problem: Problem, relaxation: Relaxation, lower: Tensor | None, dual: DualPoint) -> Bounds:
    """The better of the dual point's bounds and the intervals', row by row."""
    flat = lower_bound(problem.graph, problem.region, replace(relaxation, envelopes={}), problem.rows.objective)
    if lower is None:
        return Bounds(flat, torch.ones_like(flat, dtype=torch.bool), relaxation, dual)
    return Bounds(torch.maximum(lower, flat), flat > lower, relaxation, dual)


def allowance(problem: Problem, bounds: Bounds) -> Tensor:
    """What a bound has to exceed to count, (B, S): see `roundings`, of the terms that it was summed from."""
    graph, objective = problem.graph, problem.rows.objective
    intervals = replace(bounds.relaxation, envelopes={})
    with torch.no_grad():
        flat = rounding_scale(graph, intervals, objective, DualPoint())
        if bounds.by_interval.all():
            lines = flat
        elif bounds.trees is not None:
            lines = case_scale(graph, problem.region, bounds.relaxation, objective, bounds.trees)
        else:
            lines = rounding_scale(graph, bounds.relaxation, objective, bounds.dual)
    return roundings(torch.where(bounds.by_interval, flat, lines))


def proved(problem: Problem, bounds: Bounds) -> Tensor:
    """(B,) whether every polytope of a property is missed by more than the rounding allowance."""
    margins = problem.rows.margins(bounds.lower)
    if not bool((margins > 0).all(1).any()):  # the allowance costs a pass
        return torch.zeros(len(margins), dtype=torch.bool, device=margins.device)
    return (problem.rows.margins(bounds.lower - allowance(problem, bounds)) > 0).all(1)


def certify(problem: Problem, bounds: Bounds, in_float64: Callable[[], Problem]) -> tuple[Problem, Bounds, Tensor]:
    """What counts of bounds found in working precision: float32 finds, float64 proves.

    Where float32 bounds say that some property holds, its dual points are evaluated again in float64, hidden boxes
    included: rounding errors pass from box to box, and no allowance taken at the end could see them all.

    Args:
        in_float64: makes the same problem in float64.

    Returns:
        Problem and bounds that stand (the given ones, or those in float64), and (B,) which properties they prove.
    """
    promising = (problem.rows.margins(bounds.lower) > 0).all(1)
    if not bool(promising.any()):
        return problem, bounds, proved(problem, bounds)
    exact = problem if problem.rows.objective.C.dtype == torch.float64 else in_float64()
    again = reevaluate(exact, bounds)
    return exact, again, proved(exact, again)


def reevaluate(problem: Problem, evidence: Bounds) -> Bounds:
    """The bounds that the same dual points give for a problem in float64, over intervals that are rounded outward.

    Args:
        problem: the same properties placed in the new precision.
        evidence: what was found.
    """
    dtype = problem.rows.objective.C.dtype

    cast = partial(cast_point, dtype=dtype, cuts=evidence.relaxation.cuts)

    def cast_trees(trees: CasePoint) -> CasePoint:
        return CasePoint(trees.splits, cast(trees.point))

    def cast_any(dual: AnyPoint) -> AnyPoint:
        if isinstance(dual, CasePoint):
            return cast_trees(dual)
        return WindowPoint(cast(dual.point)) if isinstance(dual, WindowPoint) else cast(dual)

    steps = {
        name: tuple((rows, cast_any(dual)) for rows, dual in taken) for name, taken in evidence.relaxation.steps.items()
    }
    graph, region = problem.graph, problem.region
    join = join_again(graph, region, evidence.relaxation.cuts)
    relaxation = relax_network(graph, region, by_steps(graph, region, steps), join, outward_in(graph))
    dual, trees, lower = cast(evidence.dual), evidence.trees and cast_trees(evidence.trees), None
    if trees is not None:
        lower = case_bounds(graph, region, relaxation, problem.rows.objective, trees)
    elif evidence.relaxation.envelopes:
        lower = lower_bound(graph, region, relaxation, problem.rows.objective, dual)
    return replace(with_intervals(problem, relaxation, lower, dual), trees=trees)


def cast_point(dual: DualPoint, dtype: torch.dtype, cuts: Mapping[str, JointBound]) -> DualPoint:
    """A dual point in another precision, within the ranges where the dual function is a bound.

    Args:
        cuts: of activations, which know the least value of their multipliers.
    """

    def weight(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.to(dtype).clamp(0, 1)

    weights = {n: (weight(low), weight(high)) for n, (low, high) in dual.weights.items()}
    multipliers = {n: m.to(dtype).clamp(min=0) for n, m in dual.multipliers.items()}
    on_cuts = {n: m.to(dtype).clamp(min=cuts[n].least) for n, m in dual.cut_multipliers.items()}
    return DualPoint(weights, multipliers, on_cuts)
