"""Laws of work side by side."""

from __future__ import annotations

from threading import Thread, get_ident

import pytest
import torch

from verifier.workers import Workers


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_come_in_order_and_with_the_callers_gradients(count: int):
    workers = Workers(count)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            found = workers.map(lambda part: (part, torch.is_grad_enabled()), range(7))
        assert found == [(part, gradients) for part in range(7)]


def test_a_part_has_one_thread_and_the_caller_keeps_its_own():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        workers = Workers.on(torch.device("cpu"))
        found = workers.map(lambda _: (get_ident(), torch.get_num_threads()), range(9))
        assert workers.count == 3 and {threads for _, threads in found} == {1}
        assert get_ident() not in {ident for ident, _ in found} and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_waits_for_the_other_parts(count: int):
    done = []

    def work(part: int) -> None:
        if part == 0:
            raise KeyError(part)
        done.append(part)

    with pytest.raises(KeyError):
        Workers(count).map(work, range(4))
    assert sorted(done) == [1, 2, 3]
    outcomes = Workers(count).outcomes(work, range(2))
    assert outcomes[1]() is None
    with pytest.raises(KeyError):
        outcomes[0]()


def test_work_inside_of_work_does_not_wait_for_itself():
    inner = Workers(2)
    assert Workers(2).map(lambda part: inner.map(lambda x: 10 * part + x, range(3)), range(4)) == [
        [10 * part + x for x in range(3)] for part in range(4)
    ]


def test_where_the_system_refuses_threads_the_caller_works(monkeypatch: pytest.MonkeyPatch):
    start, begun = Thread.start, []

    def refuse(self: Thread) -> None:
        if begun:
            raise RuntimeError("can't start new thread")
        begun.append(self)
        start(self)

    monkeypatch.setattr(Thread, "start", refuse)
    here = get_ident()
    assert Workers(5).map(lambda part: (part, get_ident()), range(3)) == [(0, here), (1, here), (2, here)]
    assert len(begun) == 1
    begun[0].join(10)
    assert not begun[0].is_alive()
