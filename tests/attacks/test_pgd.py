from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from verifier.attacks import pgd as module
from verifier.attacks.objective import margin
from verifier.attacks.pgd import AttackResult, PgdOptions, attack, pgd
from verifier.attacks.replay import Replayer
from verifier.graph import load
from verifier.operators import evaluate, place
from verifier.specs.property import Polytope, Property, Query
from verifier.specs.region import LpBall
from verifier.verdict import Counterexample

QUICK = PgdOptions(steps=30, restarts=16, rounds=1)


def below(limit: float, output: int = 0, outputs: int = 1) -> Polytope:
    """Unsafe: y_output <= limit."""
    return Polytope(np.eye(outputs)[[output]], np.array([limit]))


def ball(norm: int, radius: float, n: int) -> LpBall:
    middle = torch.zeros(1, 1, n, dtype=torch.float64)
    return LpBall.checked(middle, torch.tensor([radius], dtype=torch.float64), None, norm)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kind", "smallest"), [("inf", -6.0), (2, -np.sqrt(14.0)), (1, -3.0)], ids=["box", "l2", "l1"])
def test_reaches_the_minimum_of_a_linear_function(linear_net, cube, kind, smallest, dtype):
    region = cube(3) if kind == "inf" else ball(kind, 1.0, 3)
    result = pgd(place(linear_net, dtype), Property(region, (below(-100.0),)), QUICK)
    assert result.margin == pytest.approx(smallest + 100, abs=1e-4)
    assert margin(Property(region, (below(-100.0),)), result.point @ [1.0, 2.0, -3.0]) == pytest.approx(
        result.margin, abs=1e-4
    )


def test_the_boundary_is_found_and_replayed(linear_net, cube):
    query = Query((Property(cube(3), (below(-6.0),)),))
    for dtype in (torch.float32, torch.float64):
        found = attack(place(linear_net, dtype), query, QUICK, Replayer(linear_net))
        assert isinstance(found, Counterexample) and found.output.item() == -6.0


def test_no_counterexample_where_there_is_none(linear_net, cube):
    query = Query((Property(cube(3), (below(-6.000001),)),))
    result = attack(place(linear_net, torch.float64), query, QUICK, Replayer(linear_net))
    assert isinstance(result, AttackResult) and 0 < result.margin < 1e-5
    assert result.steps == QUICK.warmup + QUICK.steps


@pytest.mark.parametrize("norm", [1, 2, "inf"])
@pytest.mark.parametrize("seed", range(3))
def test_beats_random_search(random_net, cube, norm, seed):
    """What 3,000 random points reach, a short attack reaches as well."""
    region = cube(4) if norm == "inf" else ball(norm, 1.0, 4)
    exact = place(random_net, torch.float64)
    points = region.sample(3000, torch.Generator().manual_seed(seed))[:, 0]
    output = seed % 3
    limit = float(evaluate(exact, points).flatten(1)[:, output].min())
    query = Query((Property(region, (below(limit, output, 3),)),))
    found = attack(place(random_net, torch.float32), query, replace(QUICK, seed=seed), Replayer(random_net))
    assert isinstance(found, Counterexample) and found.output.reshape(-1)[output] <= limit


def test_a_conjunction_needs_all_its_rows(random_net, cube):
    """The unsafe set is a small box of outputs around the image of one point."""
    x = torch.tensor([[[0.3, -0.7, 0.2, 0.9]]], dtype=torch.float64)
    y = evaluate(place(random_net, torch.float64), x).numpy().reshape(-1)
    around = Polytope(np.concatenate([np.eye(3), -np.eye(3)]), np.concatenate([y, -y]) + 0.02)
    far = Polytope(np.array([[1.0, 0.0, 0.0]]), np.array([-1e6]))
    query = Query((Property(cube(4), (far, around)),))
    found = attack(place(random_net, torch.float32), query, PgdOptions(), Replayer(random_net))
    assert isinstance(found, Counterexample) and found.polytope == 1
    assert np.abs(found.output.reshape(-1) - y).max() <= 0.02


@pytest.mark.parametrize("work", [5e8, 1e3], ids=["one batch", "many batches"])
def test_finds_the_one_broken_property_of_many(linear_net, cube, work):
    safe = [Property(cube(3, 0.01, centre), (below(-50.0),)) for centre in np.linspace(-1, 1, 300)]
    broken = Property(cube(3, 2.0), (below(-11.5),))
    query = Query((*safe[:200], broken, *safe[200:]))
    found = attack(place(linear_net, torch.float32), query, replace(QUICK, work=work), Replayer(linear_net))
    assert isinstance(found, Counterexample) and found.property == 200


@pytest.mark.parametrize("norm", [1, 2])
def test_several_balls(linear_net, norm):
    limits = {1: -5.9, 2: -7.4}
    query = Query(tuple(Property(ball(norm, radius, 3), (below(limits[norm]),)) for radius in (1.0, 1.5, 2.0)))
    found = attack(place(linear_net, torch.float32), query, QUICK, Replayer(linear_net))
    assert isinstance(found, Counterexample) and found.property == 2
    assert np.linalg.norm(found.input.reshape(-1), norm) <= 2


def test_goes_deeper_when_the_replay_refuses(mlp, cube, monkeypatch):
    graph = load(mlp([(np.ones((1, 20)), np.zeros(1))]))
    refused: list[float] = []

    def replay(replayer, prop, x, index):
        value = replayer.run(x).item()
        refused.append(value)
        return Counterexample(x, np.array([value]), index) if value <= -19.0 else None

    monkeypatch.setattr(module, "replay", replay)
    query = Query((Property(cube(20), (below(0.5),)),))
    options = replace(QUICK, warmup=0, steps=60)
    found = attack(place(graph, torch.float32), query, options, Replayer(graph))
    assert isinstance(found, Counterexample)
    assert len(refused) > 1 and refused == sorted(refused, reverse=True)


def test_same_seed_same_result(random_net, cube):
    prop = Property(cube(4), (below(-1e3, 0, 3),))
    graph = place(random_net, torch.float32)
    first, second = (pgd(graph, prop, replace(QUICK, steps=3)) for _ in range(2))
    other = pgd(graph, prop, replace(QUICK, steps=3, seed=1))
    assert np.array_equal(first.point, second.point) and first.margin == second.margin
    assert not np.array_equal(first.point, other.point)


def test_given_starts_are_tried_first(mlp, cube):
    """Flat but for a spike at the start: no gradient leads there."""
    graph = load(mlp([(np.array([[1.0, 0.0]]), np.array([-0.999])), (np.array([[-1000.0]]), np.array([0.5]))]))
    prop = Property(cube(2), (below(0.0),))
    options = replace(QUICK, rounds=0)
    placed = place(graph, torch.float32)
    assert pgd(placed, prop, options).margin == 0.5
    assert pgd(placed, prop, options, starts=torch.tensor([[[1.0, 0.0]]])).margin <= 0


def test_a_passed_deadline_stops_at_once(random_net, cube):
    prop = Property(cube(4), (below(-1e3, 0, 3),))
    began = time.monotonic()
    result = pgd(place(random_net), prop, PgdOptions(steps=10**5), deadline=began)
    assert result.steps == 0 and np.isfinite(result.margin)
    result = pgd(place(random_net), prop, PgdOptions(steps=10**5), deadline=time.monotonic() + 0.2)
    assert result.steps > 0 and time.monotonic() - began < 5


def test_leaves_a_region_where_all_units_are_off(mlp, cube):
    """Only within 1% of one corner of eight dimensions is the unit on; elsewhere the gradient vanishes."""
    graph = load(mlp([(np.ones((1, 8)), np.array([-7.9])), (np.array([[-1.0]]), np.array([0.05]))]))
    query = Query((Property(cube(8), (below(0.0),)),))
    found = attack(place(graph, torch.float32), query, QUICK, Replayer(graph))
    assert isinstance(found, Counterexample)
