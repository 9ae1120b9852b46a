"""Trees of cases on the rows of a property."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.bounding.two_boxes import two_boxes
from tests.laws.networks import case
from verifier.bounding.ascent import AscentOptions
from verifier.bounding.case_rows import by_row_cases
from verifier.bounding.cases import CaseOptions, case_bounds
from verifier.bounding.dual import CasePoint, DualPoint, Relaxation
from verifier.bounding.growth import Growth, within
from verifier.bounding.krelu import KReluOptions
from verifier.bounding.ladder import (
    METHODS,
    Bounds,
    LadderOptions,
    Problem,
    _tighter,
    allowance,
    certify,
    climb,
    reevaluate,
)
from verifier.bounding.rows import Rows, stack_rows
from verifier.operators import evaluate
from verifier.relaxations.groups import GroupOptions
from verifier.specs.property import Polytope, Property

SLACK = 1e-9


def _k_relu(problem: Problem, **options) -> Bounds:
    joint = KReluOptions(GroupOptions(least_area=0.0), cases=replace(CaseOptions(passes=()), **options))
    return METHODS["k-relu"](problem, LadderOptions(joint=joint), None)


def _above(problem: Problem, by: torch.Tensor | float) -> Problem:
    """The same with objectives that are larger by so much."""
    objective, rows = problem.rows.objective, problem.rows
    offset = torch.as_tensor(by, dtype=objective.C.dtype).expand(objective.C.shape[:2])
    return replace(problem, rows=replace(rows, objective=replace(objective, offset=offset)))


def _sampled(problem: Problem, count: int = 2000) -> torch.Tensor:
    """The least objectives (B, S) of random points."""
    points = problem.region.sample(count, torch.Generator().manual_seed(0))
    y = torch.stack([evaluate(problem.graph, part).flatten(1) for part in points])
    C, offset = problem.rows.objective.C.flatten(2), problem.rows.objective.offset
    return torch.einsum("nby,bsy->bsn", y, C.expand(y.shape[1], *C.shape[1:])).amin(2) + (
        0 if offset is None else offset
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_trees_prove_what_alpha_crown_and_its_boxes_do_not(dtype: torch.dtype):
    problem = two_boxes(dtype)
    least = _sampled(problem)
    hard = _above(problem, 0.3 - least.amin())  # true by 0.3 at least, as far as samples tell
    assert bool((METHODS["alpha-crown"](hard, LadderOptions(), None).lower < 0).any())
    found = _k_relu(hard)
    assert found.trees is not None and found.trees.splits and not found.relaxation.cuts
    assert bool((found.lower > 0).all()) and bool((found.lower <= _sampled(hard) + SLACK).all())
    exact = replace(_above(two_boxes(), 0.0), rows=replace(hard.rows, objective=hard.in_float64().rows.objective))
    again = certify(hard, found, lambda: exact)
    assert bool(again[2].all()) and again[1].trees is not None
    torch.testing.assert_close(again[1].lower, found.lower.double(), rtol=1e-4, atol=1e-4)


@given(st.sampled_from(["mlp", "cnn", "residual"]), st.integers(0, 10_000))
def test_no_tree_claims_more_than_samples_allow_whatever_its_leaves_hold(kind: str, seed: int):
    laws = case(kind, "box", seed, radius=0.3)
    size = torch.Size(laws.graph.output_shape).numel()
    unit = np.eye(size)
    props = [
        Property(laws.region.select(torch.tensor([b])), (Polytope(unit[:1] - unit[1:2], np.zeros(1)),))
        for b in range(laws.region.enclosing_box().batch)
    ]
    rows = stack_rows(laws.graph, props, torch.float64, "cpu")
    problem = Problem(laws.graph, laws.region, rows)
    found = METHODS["alpha-crown"](problem, LadderOptions(), None)
    known = found.lower, found.dual
    lower, trees = by_row_cases(laws.graph, laws.region, found.relaxation, rows, known, CaseOptions(rounds=4))
    least = _sampled(problem, 300) + SLACK
    assert bool((lower <= least).all()) and bool((lower >= found.lower - SLACK).all())
    again = case_bounds(laws.graph, laws.region, found.relaxation, rows.objective, trees)
    torch.testing.assert_close(torch.where(found.by_interval, torch.maximum(again, found.lower), again), lower)
    generator = torch.Generator().manual_seed(seed)

    def any_of(value: torch.Tensor | None, most: float) -> torch.Tensor | None:
        return None if value is None else most * torch.rand(value.shape, generator=generator, dtype=value.dtype)

    point = trees.point
    weights = {name: (any_of(low, 1.0), any_of(high, 1.0)) for name, (low, high) in point.weights.items()}
    multipliers = {name: 3 * torch.rand(m.shape, generator=generator).double() for name, m in point.multipliers.items()}
    tampered = CasePoint(trees.splits, DualPoint(weights, multipliers))
    objective = rows.objective
    assert bool((case_bounds(laws.graph, laws.region, found.relaxation, objective, tampered) <= least).all())


def test_evidence_gives_the_bounds_again_and_its_leaves_the_allowance():
    found = _k_relu(problem := two_boxes(), rounds=3)
    assert found.trees is not None
    again = reevaluate(problem, found)
    torch.testing.assert_close(again.lower, found.lower, rtol=1e-9, atol=1e-9)
    assert again.trees is not None and bool((allowance(problem, again) > 0).all())
    roots = replace(again, trees=CasePoint((), DualPoint()))
    assert bool((allowance(problem, roots) != allowance(problem, again)).any())


def test_of_a_polytope_the_row_that_is_nearest_grows_and_none_of_what_is_missed():
    problem, found = (pair := two_boxes()), METHODS["alpha-crown"](pair, LadderOptions(), None)
    C = problem.rows.objective.C.repeat_interleave(3, 1)
    offset = torch.tensor([0.0, 0.2, 1e3]).double().expand(2, 3)  # two rows of one polytope, and one that is missed
    objective = replace(problem.rows.objective, C=C, offset=offset)
    rows = Rows(objective, torch.tensor([[0, 0, 1]]).expand(2, 3), (2, 2))
    dual = METHODS["alpha-crown"](replace(problem, rows=rows), LadderOptions(), None)
    lower, trees = by_row_cases(
        problem.graph, problem.region, found.relaxation, rows, (dual.lower, dual.dual), CaseOptions(rounds=1)
    )
    (slots, _), *_ = trees.splits
    assert slots.sort().values.tolist() == [1, 4]
    assert torch.equal(lower[:, [0, 2]], dual.lower[:, [0, 2]]) and bool((lower[:, 1] > dual.lower[:, 1]).all())


def test_without_time_or_leaves_nothing_grows():
    problem = two_boxes()
    found = METHODS["alpha-crown"](problem, LadderOptions(), None)
    args = problem.graph, problem.region, found.relaxation, problem.rows, (found.lower, found.dual)
    for options, deadline in ((CaseOptions(leaves=0), None), (CaseOptions(), monotonic() - 1)):
        lower, trees = by_row_cases(*args, options, deadline)
        assert not trees.splits and torch.equal(lower, found.lower)


def test_the_tighter_of_trees_and_cuts_is_the_result():
    problem = two_boxes()
    by_trees, by_cuts = _k_relu(problem, rounds=3), _k_relu(problem, leaves=0, passes=(1.0,))
    assert by_trees.trees is not None and by_cuts.trees is None and by_cuts.relaxation.cuts
    both = _k_relu(problem, rounds=3, passes=(1.0,))
    assert float(both.lower.sum()) >= max(float(by_trees.lower.sum()), float(by_cuts.lower.sum())) - SLACK


@pytest.mark.parametrize(
    ("bound", "gain", "count", "expected"),
    [
        (-1.0, 1.0, 1, True),
        (-1.0, 0.0, 1, False),
        (-1.0, 0.5, 40, True),
        (-1.0, 0.5, 50, False),
        (-1.0, 0.1, 40, False),
        (-1.0, -0.01, 10**6, False),
    ],
)
def test_trees_grow_while_they_promise_to_reach_zero(bound: float, gain: float, count: int, expected: bool):
    growth = Growth(torch.tensor([bound]), torch.tensor([gain]), torch.tensor([gain]), torch.tensor([count]))
    assert within(100)(growth).tolist() == [expected]


def test_behind_convolutions_trees_come_before_cuts():
    laws = case("cnn", "box", 1, radius=0.5)
    unit = np.eye(torch.Size(laws.graph.output_shape).numel())
    prop = Property(laws.region.select(torch.tensor([0])), (Polytope(unit[:1], np.zeros(1)),))
    problem = Problem(laws.graph, prop.region, stack_rows(laws.graph, [prop], torch.float64, "cpu"))
    bounds = METHODS["alpha-crown"](problem, LadderOptions(), None)
    args = laws.graph, prop.region, bounds.relaxation, problem.rows, (bounds.lower, bounds.dual)
    lower, _ = by_row_cases(*args, CaseOptions(rounds=2))
    hard = _above(problem, -(bounds.lower + lower) / 2)  # between what alpha-CROWN and what trees prove
    found = _k_relu(hard)
    assert found.trees is not None and not found.relaxation.cuts and bool((found.lower > 0).all())


@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_what_is_known_may_be_intervals_alone(name: str):
    laws = case(name, "box", 0, radius=0.5)
    unit = np.eye(torch.Size(laws.graph.output_shape).numel())
    prop = Property(laws.region.select(torch.tensor([0])), (Polytope(unit[:1] - unit[1:2], np.zeros(1)),))
    problem = Problem(laws.graph, prop.region, stack_rows(laws.graph, [prop], torch.float64, "cpu"))
    hard = _above(problem, 0.1 - _sampled(problem).amin())
    known = METHODS["ibp"](hard, LadderOptions(), None).relaxation
    assert not known.envelopes
    found, alone = _k_relu(replace(hard, known=known), rounds=2), _k_relu(hard, rounds=2)
    torch.testing.assert_close(found.lower, alone.lower)
    args = hard.graph, hard.region, known, hard.rows, (-torch.ones_like(alone.lower), DualPoint())
    lower, trees = by_row_cases(*args, CaseOptions(rounds=2))  # what the push does not reach is not split
    assert not trees.splits and bool((lower == -1).all())


def test_rows_that_share_their_weights_have_trees_too():
    problem = two_boxes(thresholds=(0.0, 0.1, 0.2))
    joint = KReluOptions(GroupOptions(least_area=0.0), cases=CaseOptions(rounds=2, passes=(1e3,)))
    found = METHODS["k-relu"](problem, LadderOptions(final=AscentOptions(shared=True), joint=joint), None)
    assert bool((found.lower <= _sampled(problem) + SLACK).all())
    torch.testing.assert_close(reevaluate(problem, found).lower, found.lower, rtol=1e-9, atol=1e-9)


def test_what_proves_more_properties_is_tighter_though_it_leaves_more_to_zero():
    problem = two_boxes()
    found = METHODS["crown"](problem, LadderOptions(), None)
    by_trees, by_cuts = (
        replace(found, lower=torch.tensor(lower).double().unsqueeze(1)) for lower in ([0.1, -9.0], [-1e-3, -1.0])
    )
    assert _tighter(problem, by_trees, by_cuts) is by_trees and _tighter(problem, by_cuts, by_trees) is by_trees


def test_dual_points_outside_their_ranges_are_taken_back_into_them():
    problem = two_boxes()
    hard = _above(problem, 0.3 - _sampled(problem))
    least, generator = _sampled(hard), torch.Generator().manual_seed(0)

    def beyond(dual: DualPoint, by: float) -> DualPoint:
        def moved(value: torch.Tensor | None) -> torch.Tensor | None:
            return None if value is None else value - by * torch.rand(value.shape, generator=generator).double()

        weights = {name: (moved(low), moved(high)) for name, (low, high) in dual.weights.items()}
        parts = ({n: moved(m) for n, m in some.items()} for some in (dual.multipliers, dual.cut_multipliers))
        return DualPoint(weights, *parts)  # type: ignore[arg-type]

    by_trees, by_cuts = _k_relu(hard, rounds=3), _k_relu(hard, leaves=0, passes=(1.0,))
    assert by_trees.trees is not None and by_cuts.relaxation.cuts and by_cuts.dual.cut_multipliers
    for by in (3.0, -3.0):
        leaves = replace(by_trees.trees, point=beyond(by_trees.trees.point, by))
        for tampered in (replace(by_trees, trees=leaves), replace(by_cuts, dual=beyond(by_cuts.dual, by))):
            again = reevaluate(hard, tampered)
            assert bool((again.lower <= least + SLACK).all())
            points = [again.dual if again.trees is None else again.trees.point]
            for weight in (w for point in points for pair in point.weights.values() for w in pair if w is not None):
                assert bool(((weight >= 0) & (weight <= 1)).all())
            for multiplier in (*points[0].multipliers.values(), *points[0].cut_multipliers.values()):
                assert bool((multiplier >= 0).all())


def test_boxes_are_not_gone_through_twice_where_there_are_no_cuts(monkeypatch: pytest.MonkeyPatch):
    bounded = []

    def counted(problem: Problem, relaxation: Relaxation, *args) -> Bounds:
        bounded.append(relaxation)
        return climb(problem, relaxation, *args)

    monkeypatch.setattr("verifier.bounding.ladder.climb", counted)
    groups = GroupOptions(least_area=1e9)
    joint = KReluOptions(groups, cases=CaseOptions(rounds=1, passes=(1.0,)))
    METHODS["k-relu"](two_boxes(), LadderOptions(joint=joint), None)
    assert len(bounded) == 2 and not any(relaxation.cuts for relaxation in bounded)  # before the pass and after it
