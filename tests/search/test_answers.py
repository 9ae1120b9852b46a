"""Searches against the truth: proofs where there is nothing to find, never one where there is."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laws.networks import NETWORKS, PIECEWISE
from tests.search.cases import (
    WAYS,
    first_output_below,
    least_first_output,
    network,
    one_step,
    outcome,
    sampled_least,
    start,
)
from verifier.operators import evaluate, place
from verifier.search.result import SearchOptions
from verifier.specs.property import Polytope

#: far more than these problems need, so that only an endless search meets it
ENOUGH = 20.0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", PIECEWISE)
def test_what_the_integer_program_says_is_proved(name: str, way: str, dtype: torch.dtype):
    graph, box = network(name, seed=3)
    level = least_first_output(graph, box)
    options = SearchOptions(narrowing=None)  # which a slow machine comes to: what it closes has no margin
    search = start(way, graph, box, first_output_below(graph, level - 0.01), options, dtype=dtype)
    search.run(monotonic() + ENOUGH)
    found = outcome(search)
    assert bool(found.proved[0])
    assert 0 < float(found.margins[0]) <= 0.01 + 1e-4


@settings(max_examples=25)
@given(name=st.sampled_from(PIECEWISE), way=st.sampled_from(WAYS), seed=st.integers(0, 2**32))
def test_above_the_minimum_nothing_is_proved(name: str, way: str, seed: int):
    graph, box = network(name, seed)
    level = least_first_output(graph, box)
    search = start(way, graph, box, first_output_below(graph, level + 1e-4))
    search.run(monotonic() + 0.3)
    assert not bool(outcome(search).proved[0])


@settings(max_examples=40)
@given(
    name=st.sampled_from(sorted(NETWORKS)),
    way=st.sampled_from(WAYS),
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_a_planted_counterexample_is_never_proved_away(name: str, way: str, seed: int, dtype: torch.dtype):
    graph, box = network(name, seed, radius=0.3)
    level, _ = sampled_least(graph, box, seed)
    search = start(way, graph, box, first_output_below(graph, level + 1e-9), dtype=dtype)
    search.run(monotonic() + 0.2)
    assert not bool(outcome(search).proved[0])


@pytest.mark.parametrize("way", WAYS)
def test_a_conjunction_is_excluded_though_no_row_is_alone(way: str):
    """y0 <= a and -y0 <= -b with b > a is empty, and each row can be met by itself."""
    graph, box = network("mlp", seed=5)
    points = box.sample(200, torch.Generator().manual_seed(0)).flatten(0, 1)
    middle = float(evaluate(place(graph), points).flatten(1)[:, 0].median())
    row = np.zeros((2, int(np.prod(graph.output_shape))))
    row[:, 0] = 1.0, -1.0
    unsafe = (Polytope(row, np.array([middle - 0.05, -middle - 0.05])),)
    search = start(way, graph, box, unsafe)
    search.run(monotonic() + ENOUGH)
    assert bool(outcome(search).proved[0])


@pytest.mark.parametrize("way", WAYS)
def test_a_counterexample_that_is_easy_to_find_is_found(way: str):
    graph, box = network("mlp", seed=2)
    level = least_first_output(graph, box) + 0.05
    tried: list[torch.Tensor] = []

    def confirm(number: int, point: torch.Tensor) -> bool:
        tried.append(point)
        return True

    search = start(way, graph, box, first_output_below(graph, level), replay=confirm)
    search.run(monotonic() + ENOUGH)
    assert outcome(search).falsified
    assert not bool(outcome(search).proved[0])
    assert float(evaluate(place(graph), tried[0].unsqueeze(0)).flatten()[0]) <= level
    assert bool(box.contains(tried[0].reshape(1, *box.lower.shape))[0, 0])


@pytest.mark.parametrize("way", ["input", "activation"])
def test_the_least_open_bound_only_rises(way: str):
    graph, box = network("mlp", seed=11, radius=1.5)
    level = least_first_output(graph, box)
    search = start(way, graph, box, first_output_below(graph, level + 0.2))
    last = -float("inf")
    for _ in range(6):
        one_step(search)
        left = search.ledger.store.numbers()  # type: ignore[union-attr]
        now = float(left["bound"].min())
        assert now >= last - 1e-9
        last = now
    assert last <= -0.2 + 1e-6


@pytest.mark.parametrize("way", WAYS)
def test_no_time_means_no_work(way: str):
    graph, box = network("mlp", seed=11)
    search = start(way, graph, box, first_output_below(graph, least_first_output(graph, box) - 0.01))
    search.run(monotonic() - 1)
    assert outcome(search).subproblems == 0
    assert not bool(outcome(search).proved[0])


@pytest.mark.parametrize("way", ["input", "activation"])
def test_when_memory_ends_nothing_counts_as_proved(way: str):
    graph, box = network("mlp", seed=11, radius=2.0)
    unsafe = first_output_below(graph, least_first_output(graph, box) + 0.1)
    row = start(way, graph, box, unsafe).ledger.store.bytes  # type: ignore[union-attr]
    search = start(way, graph, box, unsafe, replace(SearchOptions(), memory=4 * row))
    search.run(monotonic() + ENOUGH)
    assert search.ledger.store.bytes <= 4 * row  # type: ignore[union-attr]
    found = outcome(search)
    assert not bool(found.proved[0])
    assert found.starved or bool(search.ledger.failed[0])  # type: ignore[union-attr]  # or a subproblem has no halves


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("others", [0, 1])
def test_a_polytope_without_rows_is_never_excluded(way: str, others: int):
    """It holds every output, and where there is nothing to close nothing may count as closed."""
    graph, box = network("mlp", seed=3)
    size = int(np.prod(graph.output_shape))
    unsafe = first_output_below(graph, least_first_output(graph, box) - 0.01)[:others]
    unsafe += (Polytope(np.zeros((0, size)), np.zeros(0)),)
    try:
        search = start(way, graph, box, unsafe)
        search.run(monotonic() + 0.1)
    except ValueError as error:
        assert "without rows" in str(error)
    else:
        assert not bool(outcome(search).proved[0])
