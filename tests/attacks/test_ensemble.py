from __future__ import annotations

from dataclasses import fields
from math import inf
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from verifier.attacks.apgd import Apgd
from verifier.attacks.batch import Batch
from verifier.attacks.ensemble import Budget, Ensemble, EnsembleState, compose, title
from verifier.attacks.fab import Fab
from verifier.attacks.losses import check_loss
from verifier.attacks.plain_pgd import PlainPgd
from verifier.attacks.square import Layout, Square, SquareState
from verifier.errors import InputError
from verifier.graph.ir import Graph, Node
from verifier.operators import evaluate, place
from verifier.specs.property import Polytope, Property
from verifier.specs.region import Box, LpBall
from verifier.specs.robustness import resolve, robustness

NORMS = ["inf", 2, 1]
ATTACKS = [
    PlainPgd("ce", 20),
    PlainPgd("margin", 8, restarts=2),
    Apgd("ce", steps=20),
    Apgd("dlr", steps=20),
    Apgd("dlr", (1,), steps=20),
    Apgd("margin", (0, 2), 10, restarts=2),
    Fab(15),
    Fab(10, 2, (1, 0, 2)),
    Square(60),
]
SMALL = Budget(steps=12, queries=40)


def network(seed: int, inputs: int = 5, classes: int = 4, shape: tuple[int, ...] | None = None) -> Graph:
    """A random ReLU network with one hidden layer, placed in float64."""
    generator = np.random.default_rng(seed)
    shape = (1, inputs) if shape is None else shape
    nodes, last = [Node("x", "input")], "x"
    shapes = {"x": shape, "flat": (1, inputs)}
    nodes.append(Node("flat", "reshape", ("x",), {"shape": (1, inputs)}))
    last = "flat"
    for i, (n, m) in enumerate([(inputs, 12), (12, classes)]):
        constants = {"weight": generator.normal(size=(m, n)) / np.sqrt(n), "bias": generator.normal(size=m) / 3}
        nodes.append(Node(f"l{i}", "linear", (last,), constants=constants))
        shapes[f"l{i}"], last = (1, m), f"l{i}"
        if i == 0:
            nodes.append(Node("r", "relu", (last,), constants={"slope": np.zeros(())}))
            shapes["r"], last = (1, m), "r"
    return place(Graph(tuple(nodes), "x", last, shapes))


def batch(graph: Graph, norm, epsilon: Any = 0.3, count: int = 12, seed: int = 0) -> Batch:
    """Robustness of the predicted class around random points."""
    x = np.random.default_rng(seed).uniform(size=(count, *graph.input_shape))
    labels = evaluate(graph, torch.from_numpy(x)).flatten(1).argmax(1)
    specs = [robustness(point, int(label), epsilon, norm) for point, label in zip(x, labels, strict=True)]
    return Batch.of(graph, [resolve(spec, graph).properties[0] for spec in specs], center=torch.from_numpy(x))


def same(a: object, b: object) -> bool:
    """Whether two states are equal, tensor by tensor."""
    for field in fields(a):  # type: ignore[arg-type]
        left, right = getattr(a, field.name), getattr(b, field.name)
        equal = torch.equal(left, right) if isinstance(left, Tensor) else left == right
        if not equal:
            return False
    return True


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", ATTACKS, ids=title)
def test_successes_lie_in_the_region_and_break_the_property(attack, norm):
    task = batch(network(0), norm)
    state = Ensemble((attack,)).run(task, 1)
    assert (state.broken == 1).any() and (state.broken == -1).any()
    broken, inner = state.broken >= 0, task.region.project(state.point.unsqueeze(0))[0]
    assert bool(task.region.contains(inner.unsqueeze(0))[0].all())
    assert torch.allclose(inner, state.point, rtol=0, atol=1e-12)
    margins = task.margins(task.outputs(state.point))
    assert torch.equal(broken, margins <= 0)
    assert torch.equal(state.open, (~broken).nonzero().squeeze(1))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", ATTACKS, ids=title)
def test_a_state_that_was_kept_goes_on_as_if_uninterrupted(attack, norm):
    task, steps = batch(network(1), norm).aimed(attack.aims), 25
    whole = attack.start(task, 3)
    for _ in range(steps):
        whole = attack.step(task, whole)
    kept = attack.start(task, 3)
    for number in range(steps):
        if number % 4 == 0:
            torch.manual_seed(number)  # nothing outside the state may matter
            copies = {
                field.name: value.clone() if isinstance(value := getattr(kept, field.name), Tensor) else value
                for field in fields(kept)
            }
            kept = type(kept)(**copies)
        kept = attack.step(task, kept)
    assert same(whole, kept)


def test_an_ensemble_goes_on_where_it_stopped():
    task = batch(network(2), "inf")
    ensemble = Ensemble(compose("ensemble", "auto", task, SMALL))
    whole = ensemble.run(task, 5)
    state, rounds = ensemble.start(task, 5, lambda *_: True), 0
    while not ensemble.done(state):
        left, rounds = ensemble.rows(task, state), rounds + 1
        state = ensemble.step(left, state, lambda *_: True)
    assert rounds > 20 and torch.equal(whole.broken, state.broken) and torch.equal(whole.margin, state.margin)
    stopped = ensemble.run(task, 5, deadline=-inf)
    assert stopped.steps == 0 and same(ensemble.run(task, state=stopped), whole)


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), norm=st.sampled_from(NORMS), epsilon=st.floats(0.01, 0.5))
def test_an_ensemble_is_never_weaker_than_its_first_part_nor_breaks_what_cannot_be(seed, norm, epsilon):
    """Nor does it break an input whose network cannot change by as much: Lipschitz bounds from the weights."""
    graph = network(seed)
    task = batch(graph, norm, epsilon, 6, seed)
    attacks = compose("ensemble", "auto", task, Budget(steps=8, queries=20))
    parts = [Ensemble((attack,)).run(task, 7 + number) for number, attack in enumerate(attacks)]
    state = Ensemble(attacks).run(task, 7)
    assert set(parts[0].open.tolist()) >= set(state.open.tolist())
    weight = {node.name: node.constants["weight"] for node in graph.nodes if node.op == "linear"}
    order = {"inf": inf, 2: 2, 1: 1}[norm]
    lipschitz = torch.linalg.matrix_norm(weight["l1"], inf) * torch.linalg.matrix_norm(weight["l0"], 2)
    reach = 2 * lipschitz * epsilon * 5 ** (0.5 if order == inf else 0)
    clean = task.margins(task.outputs(task.center))
    assert not bool((state.broken[clean > reach] >= 0).any())


def test_only_inputs_that_stand_are_attacked_again():
    task, seen = batch(network(0), "inf"), []

    class Counting:
        """Remembers how many inputs it is given."""

        aims = ()

        def start(self, batch: Batch, seed: int):
            seen.append(len(batch))
            return Apgd("ce", steps=2).start(batch, seed)

        def step(self, batch: Batch, state):
            return Apgd("ce", steps=2).step(batch, state)

        def done(self, state) -> bool:
            return state.step >= 2

    first = Apgd("ce", steps=20)
    state = Ensemble((first, Counting())).run(task)
    broken = int((Ensemble((first,)).run(task).broken >= 0).sum())
    assert 0 < broken and seen == [len(task) - broken] and len(state.open) <= len(task) - broken


def test_one_broken_property_spares_its_owner_the_others():
    task = batch(network(0), "inf")
    alone = Ensemble((Apgd("ce"),)).run(task)
    assert (alone.broken[:6] >= 0).any() and (alone.broken[:6] < 0).any()
    state = Ensemble((Apgd("ce"),), (0,) * 6 + tuple(range(1, 7))).run(task)
    assert (state.broken[:6] >= 0).all() and torch.equal(state.broken[6:] >= 0, alone.broken[6:] >= 0)


def test_a_point_that_is_refused_leaves_its_input_standing():
    task, asked = batch(network(0), "inf"), []

    def accept(number: int, x: Tensor, phase: int) -> bool:
        asked.append((number, float(task.select(torch.tensor([number])).margins(task.outputs(x[None]))[0])))
        return False

    state = Ensemble((Apgd("margin"),)).run(task, accept=accept)
    assert asked and len(state.open) == len(task) and (state.broken == -1).all()
    for number in {number for number, _ in asked}:
        depths = [depth for other, depth in asked if other == number]
        assert depths == sorted(set(depths), reverse=True)  # each is asked for once, and deeper than the last


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 0.0
        monkeypatch.setattr("verifier.attacks.ensemble.time.monotonic", lambda: self.now)


def test_no_point_is_judged_after_the_deadline(monkeypatch):
    clock, judged = Clock(monkeypatch), []

    def accept(number: int, x: Tensor, phase: int) -> bool:
        clock.now += 1
        judged.append(number)
        return True

    task = batch(network(0), "inf", epsilon=0.9)
    assert (Ensemble((Apgd("ce"),)).run(task).broken >= 0).sum() > 4
    state = Ensemble((Apgd("ce"),)).run(task, accept=accept, deadline=2.5)
    assert len(judged) == 3 and (state.broken >= 0).sum() == 3


def test_no_step_begins_that_would_end_after_the_deadline(monkeypatch):
    clock = Clock(monkeypatch)

    class Slow(Square):
        def step(self, batch: Batch, state: SquareState) -> SquareState:
            clock.now += 10
            return super().step(batch, state)

    state = Ensemble((Slow(50),)).run(batch(network(0), "inf", epsilon=0.0), deadline=25)
    assert state.steps == 3 and clock.now == 20  # the first of them is the start


def test_per_feature_radii():
    """A coordinate that may not move does not, whatever the attack."""
    graph = network(4)
    epsilon = np.array([[0.5, 0.0, 0.4, 0.0, 0.3]])
    task = batch(graph, "inf", epsilon)
    for attack in ATTACKS:
        state = Ensemble((attack,)).run(task)
        moved = (state.point - task.center).abs()
        assert (moved[:, 0, 1] == 0).all() and (moved[:, 0, 3] == 0).all()
        assert (moved <= torch.from_numpy(epsilon) + 1e-12).all()


def test_conjunctions_and_unions_are_attacked_by_their_margin():
    graph = network(5)
    box = Box(torch.zeros(1, 1, 5, dtype=torch.float64), torch.ones(1, 1, 5, dtype=torch.float64))
    y = evaluate(graph, box.sample(400, torch.Generator().manual_seed(0))[:, 0]).flatten(1).numpy()
    best = y[y[:, :2].sum(1).argmax()]
    both = Polytope(-np.eye(4)[:2], -best[:2] + 0.05)
    prop = Property(box, (Polytope(np.eye(4)[:1], np.array([-1e3])), both))
    task = Batch.of(graph, [prop])
    assert task.classes is None
    for name in ("apgd", "fab"):
        state = Ensemble(compose(name, "auto", task)).run(task)
        assert (state.broken >= 1).all() and both.contains(evaluate(graph, state.point).numpy().reshape(-1))


@pytest.mark.parametrize(
    ("loss", "target", "classes"), [("dlr", False, 2), ("dlr", True, 3), ("ce", True, 4), ("hinge", False, 4)]
)
def test_a_loss_that_is_not_defined_is_refused(loss, target, classes):
    task = batch(network(6, classes=classes), "inf")
    with pytest.raises(InputError, match="needs|not defined|not known"):
        check_loss(loss, target, task)
    check_loss("margin", True, task)


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes(classes):
    tasks = (batch(network(seed, classes=classes), "inf", 0.9) for seed in range(50))
    task = next(task for task in tasks if task.classes is not None and len(task.classes.label.unique()) > 1)
    for name in ("apgd", "ensemble"):
        with pytest.raises(InputError, match=f"has {classes} classes"):
            compose(name, "auto", task)
    for name, loss in (("apgd", "margin"), ("fab", "auto"), ("square", "auto"), ("ensemble", "margin")):
        assert (Ensemble(compose(name, loss, task, SMALL)).run(task).broken >= 0).any()


def test_checkpoints_follow_the_paper():
    """Croce and Hein 2020, section 4: p_1 = 0.22, then 0.19, 0.16, ... and never less than 0.06 later."""
    found = list(Apgd(steps=100).checkpoints)
    assert found[:6] == [22, 41, 57, 70, 80, 87]
    assert {b - a for a, b in zip(found[5:], found[6:], strict=False)} == {6} and found[-1] <= 100


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 3, 8, 6), Layout(3, 8, 6)),
        ((1, 8, 6, 3), Layout(3, 8, 6, last=True)),
        ((1, 1, 8, 6), Layout(1, 8, 6)),
        ((1, 7), Layout(1, 1, 7)),
        ((7,), Layout(1, 1, 7)),
    ],
)
def test_square_sees_images_as_such(shape, layout):
    x = torch.arange(2 * int(np.prod(shape))).reshape(2, *shape)
    assert Layout.of(x) == layout
    assert torch.equal(layout.flat(layout.image(x), x), x)


def test_square_changes_one_window_at_a_time():
    task = batch(network(8, 36, shape=(1, 6, 6)), "inf", 0.1)
    square = Square(1000)
    state, sides = square.start(task, 0), []
    for _ in range(30):
        after = square.step(task, state)
        changed = (after.point != state.point).flatten(1).sum(1)
        side = square.side(Layout(1, 6, 6), state.step)
        assert (changed <= side[0] * side[1]).all() and bool((after.margin <= state.margin).all())
        state, sides = after, [*sides, side]
    assert sides == sorted(sides, reverse=True) and isinstance(task.region, Box)


def test_balls_keep_their_kind_of_state():
    task = batch(network(0), 2)
    assert isinstance(task.region, LpBall)
    assert isinstance(Ensemble((Square(5),)).run(task), EnsembleState)
