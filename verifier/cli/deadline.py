"""Work with a hard time limit: the caller stops waiting, whatever the work is doing."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from time import monotonic
from typing import TypeVar

Result = TypeVar("Result")


class Worker:
    """A thread that does one job after the other while its owner waits no longer than it wants to.

    A thread cannot be stopped: after a job was given up, the next one starts when the old one has come to its end,
    and a process that wants to leave earlier needs `os._exit`.
    """

    def __init__(self):
        self._pool = ThreadPoolExecutor(1)

    def call(self, job: Callable[[], Result], deadline: float | None) -> Result:
        """The job's result or exception.

        Args:
            job: called in the thread.
            deadline: a time of `time.monotonic`, or None to wait for ever.

        Raises:
            TimeoutError: the deadline passed first.
        """
        future = self._pool.submit(job)
        wait([future], None if deadline is None else max(0.0, deadline - monotonic()))
        if not future.done():
            raise TimeoutError
        return future.result()
