"""Memory that runs out anywhere ends in smaller batches or in an answer, never in an error."""

from __future__ import annotations

from pathlib import Path

import pytest

import verifier
from verifier import schedule
from verifier.attacks import pgd
from verifier.bounding import ladder
from verifier.verdict import Reason

COMPLAINT = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes. Error code 12"
DIGITS = verifier.load_dataset("digits")


@pytest.fixture
def network(root: Path):
    return verifier.load(root / "models" / "digits_mlp.onnx")


def around(index: int, epsilon: float):
    return verifier.robustness(DIGITS.x[index], int(DIGITS.y[index]), epsilon=epsilon)


def test_a_rung_is_tried_again_with_smaller_chunks(network, monkeypatch: pytest.MonkeyPatch):
    chunks = []

    def scarce(problem, options, deadline=None):
        chunks.append(options.intermediate.chunk_bytes)
        if len(chunks) < 4:
            raise RuntimeError(COMPLAINT)
        return ladder.crown(problem, options, deadline)

    monkeypatch.setitem(schedule.RUNGS, "crown", scarce)
    verdict = verifier.verify(network, around(0, 0.005), method="crown")
    assert isinstance(verdict, verifier.Verified)
    assert chunks == [chunks[0] >> i for i in range(4)]


def test_a_batch_of_properties_is_divided(network, monkeypatch: pytest.MonkeyPatch):
    sizes = []

    def scarce(problem, options, deadline=None):
        sizes.append(problem.region.batch)
        if sizes[-1] > 1:
            raise MemoryError
        return ladder.crown(problem, options, deadline)

    monkeypatch.setitem(schedule.RUNGS, "crown", scarce)
    properties = tuple(around(i, 0.002).property(10) for i in range(3))
    verdict = verifier.verify(network, verifier.Query(properties), method="crown")
    assert isinstance(verdict, verifier.Verified)
    assert sorted(sizes) == [1, 1, 1, 2, 3]


@pytest.mark.parametrize("rung", ["crown", "alpha-crown"])
def test_a_rung_without_any_memory_is_passed_over(rung: str, network, monkeypatch: pytest.MonkeyPatch):
    """What the other rungs found is where the search starts, and decides."""

    def starving(problem, options, deadline=None):
        raise MemoryError

    monkeypatch.setitem(schedule.RUNGS, rung, starving)
    assert isinstance(verifier.verify(network, around(0, 0.02)), verifier.Verified)
    verdict = verifier.verify(network, around(0, 0.02), method=rung)
    assert isinstance(verdict, verifier.Undecided) and verdict.reason is Reason.MEMORY


def test_an_attack_begins_anew_with_fewer_restarts(network, monkeypatch: pytest.MonkeyPatch):
    genuine, tried = pgd._Search, []

    def scarce(graph, properties, options, *rest):
        tried.append(options.restarts)
        if options.restarts > 16:
            raise RuntimeError(COMPLAINT)
        return genuine(graph, properties, options, *rest)

    monkeypatch.setattr(pgd, "_Search", scarce)
    verdict = verifier.verify(network, around(0, 0.3), method="ibp")
    assert isinstance(verdict, verifier.Falsified)
    assert tried == [256, 64, 16]


def test_other_errors_are_not_hidden(network, monkeypatch: pytest.MonkeyPatch):
    def broken(problem, options, deadline=None):
        raise RuntimeError("shapes do not match")

    monkeypatch.setitem(schedule.RUNGS, "crown", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        verifier.verify(network, around(0, 0.005), method="crown")


#: what leaves most to the search
QUICK = ("crown", "branch-and-bound")


def test_a_store_without_room_is_said(network):
    """Half of the limit is for the store; its roots alone take more."""
    whole = verifier.verify(network, around(3, 0.06), rungs=QUICK)
    assert isinstance(whole, verifier.Verified) and whole.subproblems > 0
    verdict = verifier.verify(network, around(3, 0.06), rungs=QUICK, memory=1_000)
    assert isinstance(verdict, verifier.Undecided) and verdict.reason is Reason.MEMORY


@pytest.mark.slow
def test_a_search_keeps_to_the_limit(root: Path):
    """A megabyte is not enough for this one, which would otherwise go on for long."""
    network = verifier.load(root / "models" / "digits_resnet.onnx")
    verdict = verifier.verify(network, around(0, 0.05), method="branch-and-bound", memory=1 << 20, timeout=20)
    assert isinstance(verdict, verifier.Undecided) and verdict.reason is Reason.MEMORY


def test_subproblems_are_those_of_the_search(network):
    assert verifier.verify(network, around(0, 0.005)).subproblems == 0
    seen = []
    verdict = verifier.verify(network, around(3, 0.06), rungs=QUICK, watch=seen.append)
    assert seen and 0 < max(standing.subproblems for standing in seen) <= verdict.subproblems
