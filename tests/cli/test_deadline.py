"""Waiting ends at the deadline, whatever the work does."""

from __future__ import annotations

from threading import Event
from time import monotonic

import pytest

from verifier.cli.deadline import Worker


def test_results_and_exceptions_come_through():
    worker = Worker()
    assert worker.call(lambda: 7, None) == 7
    assert worker.call(lambda: 8, monotonic() + 5) == 8
    with pytest.raises(KeyError, match="lost"):
        worker.call(lambda: {}["lost"], None)


def test_waiting_ends_at_the_deadline_and_the_next_job_follows_the_late_one():
    worker, release = Worker(), Event()
    with pytest.raises(TimeoutError):  # a caller that waited for the job would never return
        worker.call(release.wait, monotonic() + 0.1)
    with pytest.raises(TimeoutError):
        worker.call(lambda: 1, monotonic() + 0.05)
    release.set()
    assert worker.call(lambda: 2, monotonic() + 5) == 2


def test_a_deadline_that_has_passed_does_not_wait():
    worker, release = Worker(), Event()
    with pytest.raises(TimeoutError):
        worker.call(release.wait, monotonic() - 1)
    release.set()
