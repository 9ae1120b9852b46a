"""When memory ends, searches go on with less at a time, and lose nothing."""

from __future__ import annotations

import random
from dataclasses import replace
from time import monotonic

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.search.cases import first_output_below, least_first_output, network, one_step, outcome, start
from verifier.bounding.intermediate import IntermediateOptions
from verifier.errors import out_of_memory
from verifier.search.activation_split import ActivationSplit
from verifier.search.memory import Memory
from verifier.search.result import NarrowingOptions, RootOptions, SearchOptions, Standing
from verifier.search.store import Store
from verifier.search.subproblem import Frame
from verifier.workers import Workers

ENOUGH = 20.0
#: as torch says it on the CPU
COMPLAINT = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"


@pytest.mark.parametrize("way", ["input", "activation"])
def test_a_step_that_finds_no_memory_is_taken_again_with_less(way: str, monkeypatch: pytest.MonkeyPatch):
    """Batches of more than one subproblem never fit; the proof is found all the same."""
    graph, box = network("mlp", seed=13, radius=1.5)
    search = start(way, graph, box, first_output_below(graph, least_first_output(graph, box) - 0.002))
    search.ledger.workers = Workers(1)  # type: ignore[union-attr]
    genuine, sizes = search.step, []  # type: ignore[union-attr]

    def scarce(batch, until):
        sizes.append(len(batch["bound"]))
        if sizes[-1] > 1:
            raise RuntimeError(COMPLAINT)
        return genuine(batch, until)

    monkeypatch.setattr(search, "step", scarce)
    search.run(monotonic() + ENOUGH)
    found = outcome(search)
    assert max(sizes) > 1 and bool(found.proved[0]) and not found.starved


@pytest.mark.parametrize("way", ["input", "activation", "both"])
def test_where_not_even_one_fits_nothing_is_proved_and_the_search_ends(way: str, monkeypatch: pytest.MonkeyPatch):
    from verifier.search.activation_split import ActivationSplit
    from verifier.search.input_split import InputSplit

    def starving(self, batch, until):
        raise MemoryError

    for kind in (ActivationSplit, InputSplit):
        monkeypatch.setattr(kind, "step", starving)
    graph, box = network("mlp", seed=11)
    search = start(way, graph, box, first_output_below(graph, least_first_output(graph, box) - 0.01))
    search.run(monotonic() + ENOUGH)
    assert outcome(search).starved and not bool(outcome(search).proved[0])


@pytest.mark.parametrize("error", [KeyError("a bug"), MemoryError()])
def test_what_was_taken_out_comes_back_after_an_error(error: Exception, monkeypatch: pytest.MonkeyPatch):
    graph, box = network("mlp", seed=11)
    search = start("input", graph, box, first_output_below(graph, least_first_output(graph, box) - 0.01))
    ledger = search.ledger  # type: ignore[union-attr]

    def fail(batch):
        raise error

    if isinstance(error, MemoryError):
        ledger.advance(fail)
    else:
        with pytest.raises(KeyError):
            ledger.advance(fail)
    assert len(ledger.store) == 1 and not bool(outcome(search).proved[0])


def test_what_cannot_come_back_is_never_proved(monkeypatch: pytest.MonkeyPatch):
    graph, box = network("mlp", seed=11)
    search = start("input", graph, box, first_output_below(graph, least_first_output(graph, box) - 0.01))
    ledger = search.ledger  # type: ignore[union-attr]

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(ledger.store, "push", full)
    with pytest.raises(MemoryError):
        ledger.advance(full)
    assert ledger.finished and not bool(outcome(search).proved[0])


def test_what_was_lost_once_is_not_proved_by_going_on(monkeypatch: pytest.MonkeyPatch):
    """All that is left can be closed, but some subproblems never came back."""
    graph, box = network("mlp", seed=13, radius=1.5)
    search = start("input", graph, box, first_output_below(graph, least_first_output(graph, box) - 0.002))
    ledger = search.ledger  # type: ignore[union-attr]
    ledger.workers = Workers(1)
    one_step(search)
    ledger.size = 1

    def full(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(ledger.store, "push", full)
        with pytest.raises(MemoryError):
            ledger.advance(full)
    search.run(monotonic() + ENOUGH)
    assert ledger.finished and not bool(outcome(search).proved[0])


@pytest.mark.parametrize("where", ["in_precision", "roots"])
def test_a_search_that_cannot_begin_again_goes_on_with_what_is_open(where: str, monkeypatch: pytest.MonkeyPatch):
    """Subproblems are rows of numbers for the entries of one frame: they must not be read by another one."""
    graph, box = network("abs", seed=22, radius=1.2)
    unsafe = first_output_below(graph, least_first_output(graph, box) - 0.002)
    search = start("activation", graph, box, unsafe, replace(SearchOptions(), root=RootOptions(after=0.0)))
    assert isinstance(search, ActivationSplit)
    frame, genuine = search.frame, search._begin

    def begin() -> None:
        def full(*_):
            raise MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(Frame, where, full)
            genuine()

    monkeypatch.setattr(search, "_begin", begin)
    search.run(monotonic() + ENOUGH)
    assert search.frame is frame and bool(outcome(search).proved[0])


def test_a_store_survives_growth_that_fails_half_way(monkeypatch: pytest.MonkeyPatch):
    store, fields = Store(1 << 20), {"bound": torch.arange(3.0), "depth": torch.zeros(3), "wide": torch.rand(3, 4)}
    store.push(fields)
    genuine = torch.Tensor.new_empty

    def scarce(self, *shape):
        if len(shape) > 1:
            raise RuntimeError(COMPLAINT)
        return genuine(self, *shape)

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "new_empty", scarce)
        with pytest.raises(RuntimeError):
            store.push(fields)
    assert len(store) == 3 and store.least == 0.0
    store.push(fields)
    taken = store.pop(6)
    assert torch.equal(taken["wide"][taken["bound"] == 2], fields["wide"][2].repeat(2, 1))


def test_reports_say_where_the_search_is():
    graph, box = network("mlp", seed=11, radius=2.0)
    seen: list[Standing] = []
    search = start("activation", graph, box, first_output_below(graph, least_first_output(graph, box) - 0.01))
    search.ledger.watch = seen.append  # type: ignore[union-attr]
    search.run(monotonic() + ENOUGH)
    first = seen[0]
    assert 0 < first.subproblems <= outcome(search).subproblems
    assert first.open + first.closed <= first.subproblems + 1 and first.bound <= float(outcome(search).margins[0])


def test_what_says_that_memory_ended():
    assert all(
        map(out_of_memory, (MemoryError(), RuntimeError(COMPLAINT), torch.OutOfMemoryError("CUDA out of memory")))
    )
    assert not any(map(out_of_memory, (RuntimeError("shapes do not match"), KeyError("out of memory"))))


def test_a_limit_is_shared_out():
    options = replace(SearchOptions(), memory=1 << 40)
    large, small = (Memory(limit).search(options, 2) for limit in (1 << 40, 1 << 24))
    assert replace(large, memory=0) == replace(options, memory=0)
    assert 2 * small.memory <= 1 << 23 and small.intermediate.chunk_bytes < 1 << 20
    memory, chunk = Memory(1 << 40), IntermediateOptions()
    for _ in range(8):
        memory, before = memory.smaller() or pytest.fail("ends too early"), memory
        assert memory.chunks(chunk).chunk_bytes * 2 == before.chunks(chunk).chunk_bytes
    assert memory.smaller() is None


@settings(max_examples=15)
@given(way=st.sampled_from(["input", "activation"]), seed=st.integers(0, 2**32), above=st.booleans())
def test_failures_anywhere_lose_nothing(way: str, seed: int, above: bool):
    """Memory ends at random while bounds are recorded and children are stored: false properties stay unproved."""
    graph, box = network("mlp", seed, radius=1.0)
    level = least_first_output(graph, box) + (1e-4 if above else -0.01)
    options = SearchOptions(root=None, narrowing=NarrowingOptions(levels=2))
    search = start(way, graph, box, first_output_below(graph, level), options)
    ledger, chance = search.ledger, random.Random(seed)  # type: ignore[union-attr]

    def unreliable(genuine):
        def call(*arguments, **named):
            if chance.random() < 0.2:
                raise MemoryError
            return genuine(*arguments, **named)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("close", "give_up", "count", "try_points"):
            patch.setattr(ledger, name, unreliable(getattr(ledger, name)))
        end = monotonic() + (0.15 if above else ENOUGH)
        while monotonic() < end and not ledger.finished:
            ledger.starved, ledger.size = False, 4
            search.run(end)
    assert bool(outcome(search).proved[0]) is not above
