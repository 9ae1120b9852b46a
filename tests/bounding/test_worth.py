"""What tighter boxes are worth: the gradient of the margins with respect to every end, by finite differences."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic

import pytest
import torch

from tests.bounding.two_boxes import two_boxes
from verifier.bounding.ascent import AscentOptions
from verifier.bounding.dual import lower_bound
from verifier.bounding.growth import Growth, by_gain
from verifier.bounding.intermediate import by_steps, relax_network
from verifier.bounding.ladder import METHODS, LadderOptions, Problem
from verifier.bounding.worth import Worth, worth_of
from verifier.specs.region import Box

STEP = 1e-6


def _found(problem: Problem):
    return METHODS["alpha-crown"](problem, LadderOptions(final=AscentOptions(iterations=3)), None)


def _worth(problem: Problem) -> Worth:
    bounds = _found(problem)
    worth = worth_of(problem.graph, problem.region, bounds.relaxation, problem.rows, (bounds.lower, bounds.dual))
    assert worth is not None
    return worth


def test_every_end_is_worth_what_its_move_gains_with_all_that_follows():
    problem = two_boxes()
    found = _found(problem)
    graph, region, known, rows = problem.graph, problem.region, found.relaxation, problem.rows
    worth = worth_of(graph, region, known, rows, (found.lower, found.dual))
    assert worth is not None
    assert bool((rows.margins(found.lower) < 0).all())

    def margin(name: str, entry: int, low: float, high: float) -> torch.Tensor:
        by = by_steps(graph, region, known.steps)

        def moved(node, relaxation, wanted):
            box, steps = by(node, relaxation, wanted)
            shift = torch.zeros_like(box.lower).flatten(1)
            shift[:, entry] = 1.0
            shift = shift.reshape(box.lower.shape)
            return (Box(box.lower + low * shift, box.upper - high * shift) if node == name else box), steps

        again = relax_network(graph, region, moved)
        return rows.margins(lower_bound(graph, region, again, rows.objective, found.dual)).amin(1)

    compared = 0
    for name, (low, high) in worth.ends.items():
        for entry in range(low.shape[1]):
            for gain, move in ((low, (STEP, 0.0)), (high, (0.0, STEP))):
                slope = (margin(name, entry, *move) - margin(name, entry, -move[0], -move[1])) / (2 * STEP)
                torch.testing.assert_close(gain[:, entry], slope.clamp(min=0), rtol=1e-3, atol=1e-5)
                compared += int((slope > 1e-3).sum())
    assert compared > 5


def test_polytopes_that_are_missed_count_only_where_all_are():
    found = {}
    for thresholds in ((0.0,), (0.0, -1e3), (-1e3,)):
        found[thresholds] = _worth(two_boxes(thresholds=thresholds))
    open_, both, missed = (found[key] for key in ((0.0,), (0.0, -1e3), (-1e3,)))
    torch.testing.assert_close(both.size, open_.size)
    assert bool((missed.size > 0).all())


def test_polytopes_that_the_bounds_miss_do_not_count_whatever_their_dual_point_says():
    problem = two_boxes(thresholds=(0.0, 0.1))
    bounds = _found(problem)
    assert bool((bounds.lower < 0).all())
    missed = bounds.lower.clone()
    missed[:, 1] = 1.0  # by trees
    args = problem.graph, problem.region, bounds.relaxation, problem.rows
    worth, both = (worth_of(*args, (lower, bounds.dual)) for lower in (missed, bounds.lower))
    assert worth is not None and both is not None
    assert bool((worth.size < 0.9 * both.size).all()) and bool((worth.size > 0).all())


def test_the_rate_is_what_the_passes_pay_for():
    worth = replace(_worth(two_boxes()), passes=600.0)
    (name, (low, high)), *_ = worth.ends.items()
    rate = worth.rate(name, torch.tensor([[1], [2]]), cost=3.0)
    expected = torch.stack([torch.stack([low[b, e], high[b, e]]) * 200 / worth.size[b] for b, e in ((0, 1), (1, 2))])
    torch.testing.assert_close(rate, expected)
    worthless = replace(worth, size=torch.zeros(2).double())
    assert not bool(worthless.rate(name, torch.tensor([[1], [2]]), cost=3.0).any())


def test_it_is_left_out_where_there_is_no_time():
    problem = two_boxes()
    bounds = _found(problem)
    args = problem.graph, problem.region, bounds.relaxation, problem.rows, (bounds.lower, bounds.dual)
    assert worth_of(*args, monotonic() - 1) is None and worth_of(*args, monotonic() + 60) is not None


@pytest.mark.parametrize(("rate", "worthwhile"), [(0.0, False), (5.0, True), (0.9, False)])
def test_a_tree_grows_where_what_it_lacks_or_gained_pays_for_its_leaves(rate: float, worthwhile: bool):
    growth, pays = Growth.of(torch.tensor([-1.0])), by_gain(torch.tensor([rate]))
    assert pays(growth).tolist() == [worthwhile]
    grown = growth.after(torch.tensor([-0.5, -0.8]), torch.tensor([0, 0]))
    assert grown.bound.tolist() == pytest.approx([-0.8]) and grown.count.tolist() == [2]
    later = grown.after(torch.tensor([-0.5, -0.8, -0.79]), torch.tensor([0, 0, 0]))
    assert pays(later).tolist() == [False]  # 0.2 at most for three leaves
