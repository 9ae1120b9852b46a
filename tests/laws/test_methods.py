"""Laws 3 and 4 for every method by name: order on the same boxes, nothing above what is attained, and the reported
bound is the dual function at the reported dual point."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import verifier
from tests.laws.attacked import attacked_minimum
from tests.laws.networks import Case, case
from verifier.bounding.ascent import AscentOptions
from verifier.bounding.cases import CaseOptions, case_bounds
from verifier.bounding.dual import Objective, lower_bound
from verifier.bounding.krelu import KReluOptions
from verifier.bounding.ladder import Bounds, LadderOptions, Problem
from verifier.bounding.rows import Rows, stack_rows
from verifier.operators import evaluate, place
from verifier.schedule import bounding, bounding_methods
from verifier.specs.region import Box
from verifier.specs.robustness import resolve

#: (looser, tighter): what is proved for any network over the same boxes, since the tighter method starts from the
#: dual point of the looser one and keeps the best, or joins it with what it found
ORDER = (
    ("ibp", "crown-ibp"),
    ("ibp", "crown"),
    ("crown-ibp", "crown"),
    ("crown", "alpha-crown"),
    ("crown", "k-relu"),
    ("crown", "triangle-lp"),
    ("crown", "refined-lp"),
    ("crown", "k-relu-lp"),
)
#: the same where the program is the optimum over all weights and multipliers; to the solver's tolerance
BY_PROGRAM = (
    ("alpha-crown", "triangle-lp"),
    ("alpha-crown", "refined-lp"),
    ("triangle-lp", "k-relu-lp"),
    ("k-relu", "k-relu-lp"),
)
EXACT = ("mlp", "leaky", "abs", "cnn", "residual")
#: others: programs hold a few tangents only; and boxes of maxima are tighter than what their lines imply, so that a
#: program's lower and upper line together can say more than the dual function, which takes one of them
OTHERS = ("sigmoid", "tanh", "tangle", "maxpool")
ROUNDING, SOLVER = 1e-9, 1e-6
#: short ascents: the laws do not depend on how far they come
SHORT = LadderOptions(
    final=AscentOptions(iterations=6),
    joint=KReluOptions(cases=CaseOptions(rounds=2, passes=(1e3, 1e4))),
    joint_final=AscentOptions(iterations=8, cut_step=0.5),
)


def _problem(one: Case) -> Problem:
    batch, rows = one.C.shape[:2]
    owner = torch.arange(rows).repeat(batch, 1)
    objective = Objective(one.graph.output, one.C, torch.zeros(batch, rows, dtype=one.C.dtype))
    return Problem(one.graph, one.region, Rows(objective, owner, (rows,) * batch))


def _by_all(problem: Problem, options: LadderOptions, methods: tuple[str, ...]) -> dict[str, Bounds]:
    return {name: bounding(name)(problem, options, None) for name in methods}


def _assert_reported(problem: Problem, found: dict[str, Bounds]) -> None:
    """Each bound is the dual function at the dual point that came with it (intervals: without envelopes)."""
    graph, region, objective = problem.graph, problem.region, problem.rows.objective
    for name, bounds in found.items():
        intervals = replace(bounds.relaxation, envelopes={})
        again = lower_bound(graph, region, intervals, objective)
        if not bool(bounds.by_interval.all()):
            lines = lower_bound(graph, region, bounds.relaxation, objective, bounds.dual)
            if bounds.trees is not None:
                lines = case_bounds(graph, region, bounds.relaxation, objective, bounds.trees)
            again = torch.where(bounds.by_interval, again, lines)
        size = 1 + again.abs().max()
        assert bool(((again - bounds.lower).abs() <= ROUNDING * size).all()), name


def _assert_order(found: dict[str, Bounds], pairs: tuple[tuple[str, str], ...], slack: float) -> None:
    for loose, tight in pairs:
        if loose in found and tight in found:
            low, high = found[loose].lower, found[tight].lower
            assert bool((low <= high + slack * (1 + high.abs())).all()), (loose, tight, float((low - high).max()))


def test_the_order_names_every_method():
    assert {name for pair in ORDER for name in pair} == set(bounding_methods())


@settings(max_examples=12)
@given(
    name=st.sampled_from((*EXACT, *OTHERS)),
    kind=st.sampled_from(("box", "box", "l2", "l1")),
    seed=st.integers(0, 2**32),
    boxes=st.sampled_from(("ibp", "crown", "alpha-crown")),
)
def test_all_methods_on_random_networks(name: str, kind: str, seed: int, boxes: str):
    one = case(name, kind, seed, batch=1, rows=2)
    problem = _problem(one)
    attacked = attacked_minimum(one.graph, one.region, one.C, one.generator)
    first = bounding(boxes if boxes != "ibp" else "crown-ibp")(problem, SHORT, None).relaxation
    found = _by_all(problem, replace(SHORT, over=first), bounding_methods())
    _assert_order(found, ORDER, ROUNDING)
    _assert_order(found, BY_PROGRAM if name in EXACT else (), SOLVER)
    _assert_reported(problem, found)
    for method, bounds in found.items():
        assert bool((bounds.lower <= attacked + ROUNDING * (1 + attacked.abs())).all()), method


@settings(max_examples=6)
@given(name=st.sampled_from(("mlp", "cnn", "residual", "sigmoid", "maxpool")), seed=st.integers(0, 2**32))
@example(name="mlp", seed=755)  # trees that end below their roots
@example(name="residual", seed=627)
def test_all_methods_over_boxes_of_their_own(name: str, seed: int):
    """Here only IBP is below all others for sure; every bound has to hold and to be what its dual point says."""
    one = case(name, "box", seed, batch=1, rows=2)
    problem = _problem(one)
    attacked = attacked_minimum(one.graph, one.region, one.C, one.generator)
    found = _by_all(problem, SHORT, bounding_methods())
    _assert_order(found, tuple(("ibp", method) for method in bounding_methods()), ROUNDING)
    _assert_reported(problem, found)
    for method, bounds in found.items():
        assert bool((bounds.lower <= attacked + ROUNDING * (1 + attacked.abs())).all()), method


def _public(network: Path, samples: Path, epsilon: float, number: int) -> tuple[Problem, torch.Tensor]:
    """A query on one of the networks of the k-ReLU papers, in float64, and the least values that were found."""
    graph = verifier.load(network)
    images = np.load(samples)
    random = np.random.default_rng(number)
    if int(np.prod(graph.input_shape)) == images["x"][0].size:
        x = images["x"][number]
    else:  # no samples of CIFAR here
        x = random.uniform(0.3, 0.7, size=graph.input_shape)
    placed = place(graph)
    x = np.asarray(x, dtype=np.float64).reshape(graph.input_shape)
    label = int(evaluate(placed, torch.as_tensor(x)[None]).argmax())
    prop = resolve(verifier.robustness(x, label, epsilon=epsilon), graph).properties[0]
    rows = stack_rows(graph, [prop], torch.float64, "cpu")
    assert isinstance(prop.region, Box)
    problem = Problem(placed, prop.region.to(torch.float64, "cpu"), rows)
    objective, generator = rows.objective, torch.Generator().manual_seed(number)
    least = attacked_minimum(placed, problem.region, objective.C, generator, objective.node, count=16, steps=6)
    return problem, least if objective.offset is None else least + objective.offset


def _check_public(problem: Problem, attacked: torch.Tensor, methods: tuple[str, ...], options: LadderOptions) -> None:
    first = bounding("crown")(problem, options, None).relaxation
    found = _by_all(problem, replace(options, over=first), methods)
    _assert_order(found, ORDER, ROUNDING)
    _assert_order(found, BY_PROGRAM, SOLVER)
    _assert_reported(problem, found)
    for method, bounds in found.items():
        assert bool((bounds.lower <= attacked + ROUNDING * (1 + attacked.abs())).all()), method
    assert bool((found["alpha-crown"].lower > found["ibp"].lower).all())


def test_methods_without_a_solver_on_a_public_network(shared: Path, root: Path):
    problem, attacked = _public(shared / "eran" / "mnist_6x100.onnx", root / "models" / "mnist_samples.npz", 0.01, 0)
    _check_public(problem, attacked, ("ibp", "crown-ibp", "crown", "alpha-crown", "k-relu"), SHORT)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(
    ("name", "epsilon"),
    [
        ("mnist_6x100", 0.02),
        ("mnist_9x100", 0.01),
        ("mnist_6x200", 0.008),
        ("mnist_9x200", 0.005),
        ("mnist_convsmall", 0.02),
        ("cifar_convsmall", 0.001),
    ],
)
def test_all_methods_on_public_networks(shared: Path, root: Path, name: str, epsilon: float, number: int):
    problem, attacked = _public(
        shared / "eran" / f"{name}.onnx", root / "models" / "mnist_samples.npz", epsilon, number
    )
    _check_public(problem, attacked, bounding_methods(), SHORT)
