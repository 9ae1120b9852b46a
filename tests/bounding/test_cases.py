"""Case distinctions: trees cover everything, are no looser than their roots, and are exact where they decide all."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bounding.two_boxes import two_boxes
from tests.laws.networks import case, mlp
from tests.operators.build import Builder
from verifier.bounding import ascent, case_boxes, cases, intermediate, krelu, ladder, worth
from verifier.bounding.ascent import AscentOptions, ascend
from verifier.bounding.cases import CaseOptions, case_bounds, distinguish, numbers, pick_rows
from verifier.bounding.dual import CasePoint, DualPoint, Objective, Relaxation
from verifier.bounding.intermediate import IntermediateOptions, by_dual, relax_network
from verifier.bounding.krelu import KReluOptions
from verifier.bounding.ladder import METHODS, LadderOptions, Problem, reevaluate
from verifier.bounding.rows import stack_rows
from verifier.graph.ir import Graph
from verifier.operators import evaluate, evaluate_all, place
from verifier.relaxations.groups import GroupOptions
from verifier.specs.property import Polytope, Property
from verifier.specs.region import Box, Region

SLACK = 1e-9
OPTIONS = CaseOptions(
    rounds=4,
    passes=(1e9,),
    ascent=AscentOptions(iterations=4, multiplier_step=0.05),
    chunk_bytes=4096,
    leaves=0,
)


def _relaxation(graph: Graph, region: Region) -> Relaxation:
    return relax_network(graph, region, by_dual(graph, region, IntermediateOptions(ascent=AscentOptions(iterations=4))))


def _outputs(graph: Graph, batch: int, offset: float = 0.0) -> Objective:
    """Every output and its negative, plus a number."""
    size = torch.Size(graph.output_shape).numel()
    unit = torch.eye(size).double()
    C = torch.cat([unit, -unit]).reshape(1, 2 * size, *graph.output_shape)
    return Objective(graph.output, C.expand(batch, *C.shape[1:]), torch.full((batch, 2 * size), offset).double())


@settings(max_examples=6)
@given(
    name=st.sampled_from(("mlp", "prelu", "cnn", "residual", "tangle")),
    kind=st.sampled_from(("box", "l2")),
    seed=st.integers(0, 2**32),
)
def test_trees_hold_and_are_no_looser_than_their_roots(name: str, kind: str, seed: int):
    problem = case(name, kind, seed, radius=0.5)
    graph, region = problem.graph, problem.region
    relaxation = _relaxation(graph, region)
    x = region.sample(256, problem.generator)
    objective = _outputs(graph, x.shape[1])
    values = evaluate(graph, x.flatten(0, 1)).unflatten(0, x.shape[:2]).flatten(2)  # (256, B, n)
    least = torch.cat([values, -values], 2).amin(0)
    known = ascend(graph, region, relaxation, objective, AscentOptions(iterations=3))
    bound, point = distinguish(graph, region, relaxation, objective, known, OPTIONS)
    assert bool((bound <= least + SLACK).all())
    again = case_bounds(graph, region, relaxation, objective, point)
    torch.testing.assert_close(again, bound, rtol=1e-9, atol=1e-9)
    assert bool((bound >= known[0]).all())


def test_trees_that_end_below_their_roots_are_the_roots_again_and_leave_the_others_as_they_are():
    problem = case("mlp", "box", 2, radius=0.5)
    graph, region, objective = problem.graph, problem.region, _outputs(problem.graph, 2)
    relaxation = _relaxation(graph, region)
    known = ascend(graph, region, relaxation, objective, AscentOptions(iterations=10))
    still = replace(OPTIONS, rounds=2, ascent=AscentOptions(iterations=0))  # multipliers of splits stay at zero
    bound, point = distinguish(graph, region, relaxation, objective, known, still)
    gained = bound > known[0]
    assert bool(gained.any()) and bool((bound[~gained] == known[0][~gained]).all())
    torch.testing.assert_close(case_bounds(graph, region, relaxation, objective, point), bound, rtol=1e-9, atol=1e-9)
    grown = {int(i) for slots, _ in point.splits for i in slots if i < gained.numel()}
    assert grown <= set(gained.flatten().nonzero()[:, 0].tolist())
    assert int((~gained & (known[0] <= 0)).sum()) > 0


@pytest.mark.parametrize(
    ("slope", "sign", "split"), [(2.0, 1, True), (2.0, -1, False), (1.0, 1, False), (1.0, -1, False), (0.5, -1, True)]
)
def test_what_is_split_is_what_the_lines_lose(slope: float, sign: int, split: bool):
    b = Builder(1, 2)
    x = b.add("linear", "x", weight=np.array([[1.0, 1.0], [1.0, -1.0]]), bias=np.array([0.1, -0.2]))
    b.add("linear", b.relu(x, slope=slope), weight=sign * np.ones((1, 2)), bias=np.array([-0.1]))
    graph, region = place(b.graph()), Box(-torch.ones(1, 1, 2).double(), torch.ones(1, 1, 2).double())
    relaxation = _relaxation(graph, region)
    objective = Objective(graph.output, torch.ones(1, 1, 1, 1).double())
    known = ascend(graph, region, relaxation, objective, AscentOptions(iterations=20))
    assert float(known[0]) < 0
    bound, point = distinguish(graph, region, relaxation, objective, known, OPTIONS)
    assert bool(point.splits) == split and bool((bound > known[0] + 0.01).all()) == split


def test_a_network_of_which_no_neuron_can_be_split_keeps_its_roots():
    problem = case("clip", "box", 3, radius=0.5)
    graph, region, objective = problem.graph, problem.region, _outputs(problem.graph, 2)
    relaxation = relax_network(graph, region, by_dual(graph, region, IntermediateOptions()))
    known = ascend(graph, region, relaxation, objective, AscentOptions(iterations=3))
    bound, point = distinguish(graph, region, relaxation, objective, known, OPTIONS)
    assert torch.equal(bound, known[0]) and point.splits == ()


@settings(max_examples=5)
@given(seed=st.integers(0, 2**32), scale=st.floats(0.1, 3.0))
def test_every_value_of_the_leaves_arguments_is_sound(seed: int, scale: float):
    """Weights and multipliers of splits are drawn at random after the trees have grown."""
    problem = case("mlp", "box", seed, radius=0.5)
    graph, region = problem.graph, problem.region
    relaxation = _relaxation(graph, region)
    x = region.sample(256, problem.generator)
    objective = _outputs(graph, x.shape[1])
    known = ascend(graph, region, relaxation, objective, AscentOptions(iterations=3))
    _, point = distinguish(graph, region, relaxation, objective, known, OPTIONS)
    values = evaluate(graph, x.flatten(0, 1)).unflatten(0, x.shape[:2]).flatten(2)
    least = torch.cat([values, -values], 2).amin(0)

    def drawn(like: torch.Tensor, most: float) -> torch.Tensor:
        return most * torch.rand(like.shape, generator=problem.generator, dtype=like.dtype)

    dual = DualPoint(
        {
            n: (None if a is None else drawn(a, 1), None if b is None else drawn(b, 1))
            for n, (a, b) in point.point.weights.items()
        },
        {n: drawn(m, scale) for n, m in point.point.multipliers.items()},
    )
    assert bool((case_bounds(graph, region, relaxation, objective, replace(point, point=dual)) <= least + SLACK).all())


def _small() -> tuple[Graph, Region]:
    graph = place(mlp(np.random.default_rng(1), lambda b, x: b.relu(x), (3, 5, 2)))
    return graph, Box(-torch.ones(1, 1, 3).double(), torch.ones(1, 1, 3).double())


def test_trees_that_decide_all_neurons_reach_the_exact_minimum():
    graph, region = _small()
    relaxation = relax_network(graph, region, by_dual(graph, region, IntermediateOptions()))
    objective = _outputs(graph, 1)
    known = ascend(graph, region, relaxation, objective, AscentOptions(iterations=1))
    deep = CaseOptions(
        rounds=12, ascent=AscentOptions(iterations=200, step=0.05, decay=0.98, multiplier_step=0.05, patience=200)
    )
    bound, _ = distinguish(graph, region, relaxation, objective, known, deep)
    grid = torch.cartesian_prod(*[torch.linspace(-1, 1, 41).double()] * 3).unsqueeze(1)
    values = evaluate(graph, grid).flatten(1)
    least = torch.cat([values, -values], 1).amin(0)
    open_rows = (known[0][0] <= 0) & (least < 0)  # those above zero are left alone
    assert bool(open_rows.any())
    assert bool((bound[0] <= least + SLACK).all())
    assert float((least - bound[0])[open_rows].max()) < 0.05 * float((least - known[0][0])[open_rows].max())


def test_a_split_puts_both_sides_among_the_leaves():
    """A record with one split of one row: the bound is the least of both sides, each evaluated by itself."""
    graph, region = _small()
    relaxation = relax_network(graph, region, by_dual(graph, region, IntermediateOptions()))
    objective = _outputs(graph, 1)
    known = ascend(graph, region, relaxation, objective, AscentOptions(iterations=1))
    once = CaseOptions(rounds=1, ascent=AscentOptions(iterations=2, multiplier_step=0.05))
    bound, point = distinguish(graph, region, relaxation, objective, known, once)
    splits = sum(len(slots) for slots, _ in point.splits)
    assert splits == int((known[0] <= 0).sum()) > 0
    assert all(len(m) == known[0].numel() + splits for m in point.point.multipliers.values())
    assert bool((bound >= known[0].minimum(bound)).all())


def test_trees_stay_within_the_budget():
    graph, region = _small()
    relaxation = relax_network(graph, region, by_dual(graph, region, IntermediateOptions()))
    objective = _outputs(graph, 1)
    known = ascend(graph, region, relaxation, objective, AscentOptions(iterations=1))
    roots = distinguish(graph, region, relaxation, objective, known, replace(OPTIONS, budget=0))
    assert roots[1].splits == ()
    torch.testing.assert_close(roots[0], known[0])
    room = 2 * numbers(roots[1].point)
    _, point = distinguish(graph, region, relaxation, objective, known, replace(OPTIONS, budget=room))
    assert point.splits and numbers(point.point) <= room


def test_chunks_side_by_side_give_the_record_that_is_replayed(monkeypatch: pytest.MonkeyPatch):
    """Also where some of a round came too late."""
    problem, number = case("mlp", "box", 7, radius=0.5), iter(range(10**6))
    graph, region, whole = problem.graph, problem.region, cases._split
    relaxation, objective = _relaxation(problem.graph, problem.region), _outputs(problem.graph, 2, -3.0)  # all open
    known = ascend(graph, region, relaxation, objective, AscentOptions(iterations=3))
    monkeypatch.setattr(cases, "_split", lambda *args: None if next(number) % 3 == 1 else whole(*args))
    monkeypatch.setattr(cases, "chunks_of", lambda rows, size, workers: list(rows.split(3, dim=-1)))
    monkeypatch.setattr(cases.Workers, "on", lambda device: cases.Workers(2))
    bound, point = distinguish(graph, region, relaxation, objective, known, OPTIONS)
    assert 0 < len(point.splits) <= OPTIONS.rounds < next(number)  # chunks of a round are one entry
    again = case_bounds(graph, region, relaxation, objective, point)
    torch.testing.assert_close(torch.maximum(again, known[0]), torch.maximum(bound, known[0]), rtol=1e-9, atol=1e-9)


def test_rows_are_picked_with_all_their_arguments():
    dual = DualPoint({"a": (torch.arange(6.0).reshape(1, 3, 2), None)}, {"b": torch.arange(3.0).reshape(1, 3, 1)})
    some = pick_rows(dual, torch.tensor([[2, 0]]))
    assert some.weights["a"][0].tolist() == [[[4.0, 5.0], [0.0, 1.0]]]  # type: ignore[union-attr]
    assert some.weights["a"][1] is None and some.multipliers["b"].flatten().tolist() == [2.0, 0.0]


JOINT = KReluOptions(GroupOptions(least_area=0.0), cases=OPTIONS)
WHOLE = LadderOptions(joint=JOINT).tightest()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_k_relu_profits_and_its_evidence_gives_the_boxes_again(dtype: torch.dtype):
    problem = two_boxes(dtype)
    found = METHODS["k-relu"](problem, WHOLE, None)
    assert any(isinstance(dual, CasePoint) for taken in found.relaxation.steps.values() for _, dual in taken)
    without = METHODS["k-relu"](problem, replace(WHOLE, joint=replace(JOINT, cases=None)), None)
    assert float((found.lower - without.lower).mean()) > 0
    exact = two_boxes()
    again = reevaluate(exact, found)
    values = evaluate_all(exact.graph, exact.region.sample(256, torch.Generator().manual_seed(0)).flatten(0, 1))
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    for name, box in again.relaxation.boxes.items():
        expected = found.relaxation.boxes[name].lower.double()
        torch.testing.assert_close(box.lower, expected, rtol=tolerance, atol=tolerance)
        inside = values[name].unflatten(0, (256, 2))
        assert bool((inside >= box.lower - SLACK).all() and (inside <= box.upper + SLACK).all())


def test_every_pass_tightens_the_boxes_further_and_its_bounds_are_no_looser():
    problem = two_boxes()
    one, other = (
        METHODS["k-relu"](problem, replace(WHOLE, joint=replace(JOINT, cases=replace(OPTIONS, passes=passes))), None)
        for passes in ((1.0,), (1.0, 1e9))
    )
    assert one.relaxation.cuts and other.relaxation.cuts
    boxes, tighter = one.relaxation.boxes, other.relaxation.boxes
    for name, box in tighter.items():
        assert bool((box.lower >= boxes[name].lower - SLACK).all())
        assert bool((box.upper <= boxes[name].upper + SLACK).all())
    assert sum(float((box.lower - boxes[name].lower).sum()) for name, box in tighter.items()) > 0.01
    assert bool((other.lower >= one.lower - SLACK).all()) and float((other.lower - one.lower).max()) > 0


def test_boxes_by_crown_alone_are_climbed_on_before_trees_grow():
    problem = two_boxes()
    by_crown = METHODS["crown"](problem, WHOLE, None).relaxation
    found = METHODS["k-relu"](replace(problem, known=by_crown), WHOLE, None)
    assert any(isinstance(dual, CasePoint) for taken in found.relaxation.steps.values() for _, dual in taken)


def _count_of_passes(monkeypatch: pytest.MonkeyPatch, problem: Problem, deadline: float | None) -> int:
    """How often boxes are tightened by cases where three passes are allowed, each of which takes a second."""
    now, passes = [0.0], []
    for module in (krelu, ladder, ascent, cases, case_boxes, intermediate, worth):
        monkeypatch.setattr(module, "monotonic", lambda: now[0])

    def slow(*args):
        passes.append(args)
        now[0] += 1.0
        return case_boxes.by_cases(*args)

    monkeypatch.setattr(ladder, "by_cases", slow)
    options = replace(WHOLE, joint=replace(JOINT, cases=replace(OPTIONS, passes=(1.0, 30.0, 1e9))))
    METHODS["k-relu"](problem, options, deadline)
    return len(passes)


def test_a_further_pass_comes_only_where_many_times_the_last_ones_time_is_left(monkeypatch: pytest.MonkeyPatch):
    problem = two_boxes()
    monkeypatch.setattr(ladder, "TIMES_GAINED", torch.inf)
    with monkeypatch.context() as patch:
        assert _count_of_passes(patch, problem, 5.5) == 2
    with monkeypatch.context() as patch:
        assert _count_of_passes(patch, problem, -1.0) == 0
    assert _count_of_passes(monkeypatch, problem, None) == 3


def test_a_further_pass_comes_only_where_the_last_one_gained_much_of_the_margin(monkeypatch: pytest.MonkeyPatch):
    hard = two_boxes()
    below = replace(hard.rows.objective, offset=torch.full((1, 1), -1e3))
    assert _count_of_passes(monkeypatch, replace(hard, rows=replace(hard.rows, objective=below)), None) == 1


@pytest.mark.parametrize("rounds", [1, 2, 4])
def test_boxes_of_trees_that_grew_in_part_are_those_of_their_evidence(rounds: int):
    problem = two_boxes()
    few = replace(OPTIONS, rounds=rounds, passes=(30.0, 100.0))
    found = METHODS["k-relu"](problem, replace(WHOLE, joint=replace(JOINT, cases=few)), None)
    points = [dual for taken in found.relaxation.steps.values() for _, dual in taken if isinstance(dual, CasePoint)]
    assert any(0 < sum(len(slots) for slots, _ in point.splits) < 20 for point in points)
    again = reevaluate(problem, found)
    for name, box in again.relaxation.boxes.items():
        torch.testing.assert_close(box.lower, found.relaxation.boxes[name].lower, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(box.upper, found.relaxation.boxes[name].upper, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("first", [WHOLE, replace(WHOLE, joint=replace(JOINT, cases=None))])
def test_it_goes_on_from_what_k_relu_has_found(first: LadderOptions):
    problem = two_boxes()
    before = METHODS["k-relu"](problem, first, None)
    found = METHODS["k-relu"](replace(problem, known=before.relaxation), WHOLE, None)
    again = reevaluate(problem, found)
    torch.testing.assert_close(again.lower, found.lower, rtol=1e-9, atol=1e-9)
    if first is WHOLE:
        for name, box in found.relaxation.boxes.items():
            assert bool((box.lower >= before.relaxation.boxes[name].lower - SLACK).all())


def test_no_tree_grows_where_alpha_crown_proves_the_property():
    hard = two_boxes()
    above = replace(hard.rows.objective, offset=torch.full((1, 1), 1e3))
    found = METHODS["k-relu"](replace(hard, rows=replace(hard.rows, objective=above)), LadderOptions(joint=JOINT), None)
    duals = [dual for taken in found.relaxation.steps.values() for _, dual in taken]
    assert duals and not any(isinstance(dual, CasePoint) for dual in duals)


def test_no_cuts_are_made_where_cases_alone_prove_the_property():
    problem = two_boxes()
    by_alpha = METHODS["alpha-crown"](problem, WHOLE, None)
    known = replace(problem, known=by_alpha.relaxation)
    boxes = replace(METHODS["k-relu"](known, WHOLE, None).relaxation, cuts={})
    by_cases = ladder.climb(problem, boxes, WHOLE.final)
    between = -(by_alpha.lower + 2 * by_cases.lower) / 3  # taken off, it leaves the one below and the other above zero
    easier = replace(problem, rows=replace(problem.rows, objective=replace(problem.rows.objective, offset=between)))
    found = METHODS["k-relu"](replace(easier, known=by_alpha.relaxation), LadderOptions(joint=JOINT), None)
    points = [dual for taken in found.relaxation.steps.values() for _, dual in taken]
    assert any(isinstance(dual, CasePoint) for dual in points)
    assert not found.relaxation.cuts and bool((found.lower > 0).all())


def test_what_was_known_is_kept_where_no_time_is_left():
    problem = two_boxes()
    known = METHODS["alpha-crown"](problem, WHOLE, None).relaxation
    found = METHODS["k-relu"](replace(problem, known=known), WHOLE, monotonic() - 1)
    assert all(torch.equal(box.lower, known.boxes[name].lower) for name, box in found.relaxation.boxes.items())


def test_behind_convolutions_no_cases_are_distinguished():
    laws = case("cnn", "box", 1, radius=0.5)
    unit = np.eye(torch.Size(laws.graph.output_shape).numel())
    props = [Property(laws.region.select(torch.tensor([0])), (Polytope(unit[:1], np.zeros(1)),))]
    problem = Problem(laws.graph, props[0].region, stack_rows(laws.graph, props, torch.float64, "cpu"))
    found = METHODS["k-relu"](problem, LadderOptions(joint=KReluOptions(GroupOptions(least_area=0.0))), None)
    duals = [dual for taken in found.relaxation.steps.values() for _, dual in taken]
    assert found.relaxation.cuts and any(isinstance(dual, DualPoint) and dual.cut_multipliers for dual in duals)
    assert not any(isinstance(dual, CasePoint) for dual in duals)
