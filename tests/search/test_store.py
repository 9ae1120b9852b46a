"""The store: best first, nothing lost, within its budget."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verifier.search.store import OutOfBudget, Store

BOUNDS = st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=1, max_size=30)


def _fields(bounds: list[float], first: int = 0) -> dict[str, torch.Tensor]:
    return {
        "bound": torch.tensor(bounds, dtype=torch.float64),
        "depth": torch.zeros(len(bounds), dtype=torch.int32),
        "number": torch.arange(first, first + len(bounds)),
    }


@given(batches=st.lists(BOUNDS, min_size=1, max_size=5), taken=st.integers(1, 7))
def test_nothing_is_lost(batches: list[list[float]], taken: int):
    """Bounds that are infinite or not numbers are kept like all others."""
    store, pushed, seen = Store(1 << 20), 0, []
    for bounds in batches:
        store.push(_fields(bounds, pushed))
        pushed += len(bounds)
        seen += store.pop(taken)["number"].tolist()
        assert len(store) == pushed - len(seen) == len(store.numbers()["number"])
    while len(store):
        seen += store.pop(taken)["number"].tolist()
    assert sorted(seen) == list(range(pushed))


@given(bounds=st.lists(st.floats(-100, 100), min_size=1, max_size=30))
def test_least_bound_first(bounds: list[float]):
    store = Store(1 << 20)
    store.push(_fields(bounds))
    assert [float(store.pop(1)["bound"]) for _ in bounds] == sorted(bounds)


def test_the_deeper_of_two_equal_ones_goes_first():
    store = Store(1 << 20)
    store.push({"bound": torch.zeros(3), "depth": torch.tensor([1, 7, 3])})
    assert int(store.pop(1)["depth"]) == 7


def test_when_memory_runs_short_the_greatest_bound_goes_first():
    store = Store(4 * 20)
    store.push(_fields([3.0, 1.0, 2.0]))
    assert float(store.pop(1)["bound"]) == 3.0


def test_the_budget_holds():
    store = Store(10 * 20)
    store.push(_fields([0.0] * 6))
    with pytest.raises(OutOfBudget):
        store.push(_fields([0.0] * 5))
    assert store.bytes <= 200
    assert len(store) == 6
