"""Late boxes inside a search: they hold every value of an unsafe point, and the answers stay true."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laws.networks import NETWORKS, case
from tests.search.cases import first_output_below, least_first_output, network, one_step, start
from verifier.bounding.ascent import AscentOptions, ascend
from verifier.bounding.dual import DualPoint, Objective, lower_bound
from verifier.bounding.intermediate import IntermediateOptions, by_dual, relax_network
from verifier.operators import evaluate, evaluate_all, place
from verifier.search.activation_split import ActivationSplit
from verifier.search.result import LateOptions, SearchOptions

ROUNDING = 1e-9
ALWAYS = LateOptions(every=1, levels=0.0)


@settings(max_examples=40)
@given(name=st.sampled_from(sorted(NETWORKS)), seed=st.integers(0, 2**32), climb=st.booleans())
def test_assumed_rows_bound_every_point_that_meets_them(name: str, seed: int, climb: bool):
    """Weak duality under assumed rows: the bound holds where they are not positive, whatever their multipliers."""
    one = case(name, "box", seed, batch=1)
    relaxation = relax_network(one.graph, one.region, by_dual(one.graph, one.region, IntermediateOptions()))
    x = one.region.sample(256, one.generator).flatten(0, 1)
    y = evaluate(one.graph, x).reshape(256, -1)
    rows = one.C.reshape(one.C.shape[1], -1)
    offset = -(y @ rows.T)[:1] - 1e-3  # so that the first point meets them
    assumed = Objective(one.graph.output, one.C, offset)
    meets = ((y @ rows.T + offset) <= 0).all(1)
    multipliers = torch.rand(1, len(rows), len(rows), generator=one.generator, dtype=torch.float64)
    objective, dual = Objective(one.graph.output, one.C.flip(1)), DualPoint(assumed=multipliers)
    assuming = replace(relaxation, assumed=assumed)
    bound = lower_bound(one.graph, one.region, assuming, objective, dual)
    if climb:
        climbed, dual = ascend(one.graph, one.region, assuming, objective, AscentOptions(iterations=6), start=dual)
        assert bool((climbed >= bound - ROUNDING).all())
        assert dual.assumed is not None and bool((dual.assumed >= 0).all())
        bound = climbed
    values = evaluate(one.graph, x)[meets].reshape(int(meets.sum()), -1) @ rows.flip(0).T
    assert bool((bound[0] <= values.amin(0) + ROUNDING).all())


@settings(max_examples=25)
@given(
    name=st.sampled_from(["mlp", "leaky", "sigmoid", "clip", "cnn", "residual"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 2**32),
    share=st.floats(0.01, 0.9),
)
def test_late_boxes_hold_every_unsafe_value(name: str, dtype: torch.dtype, seed: int, share: float):
    """Those of subproblems with splits hold what meets these; a subproblem is only empty where nothing does."""
    graph, box = network(name, seed)
    x = box.sample(400, torch.Generator().manual_seed(seed % 2**31)).flatten(0, 1)
    values = evaluate_all(place(graph), x)
    first = values[graph.output].flatten(1)[:, 0]
    search = start("activation", graph, box, first_output_below(graph, float(first.quantile(share))), dtype=dtype)
    assert isinstance(search, ActivationSplit)
    for _ in range(2):
        if not search.ledger.stuck:
            one_step(search)
    late = search._late
    if late is None or not len(search.ledger.store):
        return
    batch = search.ledger.store.pop(16)
    before = {end: batch[end].clone() for end in ("low", "high")}
    empty = late.tighten(batch, AscentOptions(iterations=4), 1 << 20)
    inner = torch.cat([values[p.source].flatten(1)[:, p.index] for p in search.frame.pieces], 1)
    signs, points = batch["sign"].unsqueeze(1), batch["point"].unsqueeze(1)
    meets = (signs * (inner - points) >= 0).all(2) & (first <= first.quantile(share))
    assert not bool((meets.any(1) & empty).any())
    assert bool((batch["low"] >= before["low"]).all()) and bool((batch["high"] <= before["high"]).all())
    room = ROUNDING if dtype == torch.float64 else 1e-5
    inside = (inner >= batch["low"].unsqueeze(1) - room) & (inner <= batch["high"].unsqueeze(1) + room)
    assert bool(inside.all(2)[meets].all())


@pytest.mark.parametrize("name", ["mlp", "cnn", "residual"])
def test_assumed_rows_narrow_the_boxes(name: str):
    graph, box = network(name, seed=3, radius=0.2 if name == "residual" else 0.8)
    search = start("activation", graph, box, first_output_below(graph, least_first_output(graph, box) - 0.01))
    assert isinstance(search, ActivationSplit) and search._late is not None
    one_step(search)
    batch = search.ledger.store.pop(4)
    columns = search._late.piece.columns
    before = (batch["high"] - batch["low"])[:, columns].sum()
    empty = search._late.tighten(batch, AscentOptions(iterations=8), 1 << 20)
    assert bool(empty.any()) or float((batch["high"] - batch["low"])[:, columns].sum()) < 0.99 * float(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["mlp", "cnn", "residual", "sigmoid"])
def test_a_search_with_late_boxes_answers_the_truth(name: str, dtype: torch.dtype):
    graph, box = network(name, seed=3, radius=0.2 if name == "residual" else 0.8)
    level = -2.0 if name == "sigmoid" else least_first_output(graph, box)
    options = replace(SearchOptions(), root=None, late=ALWAYS)
    for gap, proved in ((-0.01, True), (1e-3, False)):
        search = start("activation", graph, box, first_output_below(graph, level + gap), options, dtype=dtype)
        search.run(monotonic() + (60 if proved else 0.5))
        result = search.ledger.result()  # type: ignore[union-attr]
        if name != "sigmoid":
            assert bool(result.proved[0]) == proved
            assert float(result.margins[0]) <= -gap + 1e-6
