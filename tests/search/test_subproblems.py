"""Laws of single steps: splits in the dual function, halves, contraction."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laws.networks import NETWORKS, case
from tests.search.cases import first_output_below, network, one_step, sampled_least, start
from verifier.bounding.ascent import AscentOptions, ascend
from verifier.bounding.dual import DualPoint, Objective, Relaxation, Split, lower_bound
from verifier.bounding.intermediate import IntermediateOptions, by_dual, relax_network
from verifier.operators import evaluate_all
from verifier.search.activation_split import ActivationSplit
from verifier.search.boxes import sources
from verifier.search.branching import Splits, halves, split_points
from verifier.search.contract import Planes, contract
from verifier.search.narrowing import Narrowing
from verifier.search.result import NarrowingOptions
from verifier.search.subproblem import Batch, Frame, margins

ROUNDING = 1e-9


@settings(max_examples=40)
@given(name=st.sampled_from(sorted(NETWORKS)), seed=st.integers(0, 2**32), climb=st.booleans())
def test_no_multiplier_exceeds_a_sampled_minimum(name: str, seed: int, climb: bool):
    """Weak duality under splits: the bound holds at every point that meets them, whatever the multipliers."""
    one = case(name, "box", seed, batch=1)
    generator = one.generator
    relaxation = relax_network(one.graph, one.region, by_dual(one.graph, one.region, IntermediateOptions()))
    x = one.region.sample(256, generator).flatten(0, 1)
    values = evaluate_all(one.graph, x)
    splits, multipliers, meets = {}, {}, torch.ones(len(x), dtype=torch.bool)
    for source in sources(one.graph):
        point = values[source][:1]
        sign = torch.randint(-1, 2, point.shape, generator=generator) * (
            torch.rand(point.shape, generator=generator) < 0.4
        )
        splits[source] = Split(sign.double(), point)
        multipliers[source] = torch.rand(1, one.C.shape[1], *point.shape[1:], generator=generator, dtype=torch.float64)
        meets &= (sign * (values[source] - point) >= 0).reshape(len(x), -1).all(1)
    assert bool(meets[0])
    confined = type(relaxation)(relaxation.boxes, relaxation.envelopes, splits=splits)
    objective, dual = Objective(one.graph.output, one.C), DualPoint(multipliers=multipliers)
    if climb:
        start_bound = lower_bound(one.graph, one.region, confined, objective, dual)
        bound, dual = ascend(one.graph, one.region, confined, objective, AscentOptions(iterations=6), start=dual)
        assert bool((bound >= start_bound - ROUNDING).all())
        assert all(bool((m >= 0).all()) for m in dual.multipliers.values())
    else:
        bound = lower_bound(one.graph, one.region, confined, objective, dual)
    least = (one.C.reshape(one.C.shape[1], -1) @ values[one.graph.output].reshape(len(x), -1).T)[:, meets].amin(1)
    assert bool((bound[0] <= least + ROUNDING).all())


@settings(max_examples=30)
@given(name=st.sampled_from(["mlp", "leaky", "sigmoid", "clip", "cnn", "residual"]), seed=st.integers(0, 2**32))
def test_halves_cover_their_parent(name: str, seed: int):
    graph, box = network(name, seed)
    level, _ = sampled_least(graph, box, seed)
    search = start("activation", graph, box, first_output_below(graph, level))
    parents = search.frame.roots(DualPoint())  # type: ignore[union-attr]
    points = split_points(search.frame, parents)  # type: ignore[union-attr]
    if not bool((~points.isnan()).any()):
        return
    column = (~points.isnan()).int().argmax(1)
    zero = torch.zeros_like(parents["multiplier"])
    children = halves(parents, column, Splits(points, zero, zero))
    place = column.unsqueeze(1)
    low, high = (children[end].gather(1, place.repeat(2, 1))[:, 0] for end in ("low", "high"))
    assert bool(low[0] == parents["low"][0, column[0]]) and bool(high[1] == parents["high"][0, column[0]])
    assert bool(high[0] == low[1])
    others = torch.ones(points.shape[1], dtype=torch.bool)
    others[column[0]] = False
    for end in ("low", "high"):
        assert torch.equal(children[end][:, others], parents[end].repeat(2, 1)[:, others])


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 4), polytopes=st.integers(1, 2))
def test_contraction_keeps_every_unsafe_point(seed: int, rows: int, polytopes: int):
    generator = torch.Generator().manual_seed(seed)
    n, count = 3, 2

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    lower = draw(count, n)
    upper = lower + torch.rand(count, n, generator=generator, dtype=torch.float64)
    A, constant = draw(count, rows, n), draw(count, rows) / 2
    member = torch.rand(count, polytopes, rows, generator=generator) < 0.7
    planes = Planes(A, constant, torch.full_like(constant, 1e-12), member)
    open_ = torch.ones(count, polytopes, dtype=torch.bool)
    low, high, left = contract(lower, upper, planes, open_)
    x = lower + torch.rand(500, count, n, generator=generator, dtype=torch.float64) * (upper - lower)
    meets = torch.einsum("bsn,rbn->rbs", A, x) + constant <= 0
    unsafe = (meets.unsqueeze(2) | ~member).all(3)  # (R, B, P)
    assert not bool((unsafe & ~left).any())
    inside = ((x >= low) & (x <= high)).all(2)
    assert not bool((unsafe.any(2) & ~inside).any())
    assert bool((low >= lower).all()) and bool((high <= upper).all())


@pytest.mark.parametrize("seed", range(4))
def test_input_splitting_keeps_unsafe_points(seed: int):
    """After any number of steps some open box still holds the planted point."""
    graph, box = network("mlp", seed)
    level, point = sampled_least(graph, box, seed)
    search = start("input", graph, box, first_output_below(graph, level + 1e-9))
    for _ in range(5):
        one_step(search)
        store = search.ledger.store  # type: ignore[union-attr]
        boxes = store.pop(len(store))
        inside = (point.flatten() >= boxes["lower"]) & (point.flatten() <= boxes["upper"])
        assert bool(inside.all(1).any())
        store.push(boxes)


@settings(max_examples=40)
@given(name=st.sampled_from(sorted(NETWORKS)), seed=st.integers(0, 2**32), climb=st.booleans(), where=st.integers(0, 9))
def test_splits_of_later_layers_hold_for_earlier_values(name: str, seed: int, climb: bool, where: int):
    """The objective is on any node, and the output and all pre-activations are split, before it and after it."""
    one = case(name, "box", seed, batch=1)
    graph, generator = one.graph, one.generator
    relaxation = relax_network(graph, one.region, by_dual(graph, one.region, IntermediateOptions()))
    x = one.region.sample(256, generator).flatten(0, 1)
    values = evaluate_all(graph, x)
    splits, multipliers, meets = {}, {}, torch.ones(len(x), dtype=torch.bool)
    for source in {*sources(graph), graph.output}:
        sign = torch.randint(-1, 2, values[source][:1].shape, generator=generator).double()
        splits[source] = Split(sign, values[source][:1])
        multipliers[source] = torch.rand(1, 3, *sign.shape[1:], generator=generator, dtype=torch.float64)
        meets &= (sign * (values[source] - values[source][:1]) >= 0).reshape(len(x), -1).all(1)
    node = graph.nodes[where % len(graph.nodes)].name
    C = torch.randn(1, 3, *graph.shapes[node], generator=generator, dtype=torch.float64)
    confined = Relaxation(relaxation.boxes, relaxation.envelopes, splits=splits)
    objective, dual = Objective(node, C), DualPoint(multipliers=multipliers)
    bound = lower_bound(graph, one.region, confined, objective, dual)
    if climb:
        higher, dual = ascend(graph, one.region, confined, objective, AscentOptions(iterations=6), start=dual)
        assert bool((higher >= bound - ROUNDING).all())
        bound = higher
    least = (C.reshape(3, -1) @ values[node].reshape(len(x), -1).T)[:, meets].amin(1)
    assert bool((bound[0] <= least + ROUNDING).all())


def _narrowed(name: str, seed: int, level: float, dtype: torch.dtype) -> tuple[Frame, Batch, Batch, bool]:
    """The root of a search for a first output below a level, before and after narrowing, and whether it is empty; with
    the frame in float64."""
    graph, box = network(name, seed, radius=0.5)
    search = start("activation", graph, box, first_output_below(graph, level), dtype=dtype)
    assert isinstance(search, ActivationSplit)
    narrowing = Narrowing.of(search.frame, search.exact, NarrowingOptions())
    assert narrowing is not None
    batch = search.frame.roots(DualPoint())
    batch["depth"] += 99
    assert bool(narrowing.due(batch).all())
    after, empty = narrowing.narrowed(batch, None)
    assert not bool(narrowing.due(after).any()) and bool((margins(after, torch.ones(1)) == 0).all())
    assert Narrowing.of(search.frame, search.exact, NarrowingOptions(entries=0)) is None or not batch["low"].numel()
    return search.exact, batch, after, bool(empty)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["mlp", "leaky", "sigmoid", "clip"])
@pytest.mark.parametrize("seed", range(3))
def test_narrowed_boxes_hold_all_counterexamples(name: str, seed: int, dtype: torch.dtype):
    graph, box = network(name, seed, radius=0.5)
    least, point = sampled_least(graph, box, seed)
    frame, before, after, empty = _narrowed(name, seed, least + 0.1, dtype)
    assert not empty
    x = torch.cat([point.unsqueeze(0), box.sample(400, torch.Generator().manual_seed(seed)).flatten(0, 1)])
    values = evaluate_all(frame.problem.graph, x)
    unsafe = values[graph.output].flatten(1)[:, 0] <= least + 0.1
    for piece in frame.pieces:
        inner = values[piece.source].flatten(1)[unsafe][:, piece.index]
        assert bool((inner >= after["low"][:, piece.columns] - ROUNDING).all())
        assert bool((inner <= after["high"][:, piece.columns] + ROUNDING).all())
    assert bool((after["low"] >= before["low"]).all()) and bool((after["high"] <= before["high"]).all())
    assert bool((after["high"] - after["low"] < before["high"] - before["low"]).any())


def test_a_subproblem_without_counterexamples_is_narrowed_until_it_is_closed():
    """Far below the least output nothing is left of the boxes."""
    graph, box = network("mlp", 1, radius=0.5)
    least, _ = sampled_least(graph, box, 1)
    assert _narrowed("mlp", 1, least - 50.0, torch.float64)[3]
