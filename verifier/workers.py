"""Parts of some work side by side, each in a thread of its own with one of torch's threads.

torch can also share out every single operation. But bound propagation on small networks is thousands of small ones,
and waking the other threads for each of them costs more than they save.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch
from torch import Tensor

Part = TypeVar("Part")
Result = TypeVar("Result")


#: rows for which a worker of its own is worth its while
LEAST_ROWS = 32
#: threads that torch had before `one_each` took them; a thread of `Workers` has a context of its own, without it
_threads: ContextVar[int] = ContextVar("_threads")
#: whether a thread is one of `Workers`; parts of its parts have to be its own work, for all the others may wait as well
_within: ContextVar[bool] = ContextVar("_within", default=False)


@contextmanager
def one_each() -> Iterator[None]:
    """Within it torch's threads are workers, and an operation has one of them."""
    count = torch.get_num_threads()
    token = _threads.set(count)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)
        _threads.reset(token)


@contextmanager
def full_precision() -> Iterator[None]:
    """Within it cuDNN keeps float32 products whole: TF32 keeps 10 bits, which no bound survives."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


class Workers:
    """Threads that wait for parts of work.

    Args:
        count: how many parts are worked on at a time; with one, the caller's thread does the work.
    """

    def __init__(self, count: int):
        self.count = count

    @classmethod
    def on(cls, device: torch.device) -> Workers:
        """As many as torch may use threads; one on an accelerator, which is busy with large batches."""
        return cls(_threads.get(torch.get_num_threads()) if device.type == "cpu" else 1)

    def map(self, work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
        """The results of all parts, in their order.

        Raises:
            what `work` raises for the first part that fails, once all have come to their end.
        """
        return [result() for result in self.outcomes(work, parts)]

    def outcomes(self, work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Callable[[], Result]]:
        """For every part, once all have come to their end, a call that returns its result or raises its error."""
        pool = _pool(self.count) if self.count > 1 and len(parts) > 1 and not _within.get() else None
        if pool is None:
            return [_attempt(work, part) for part in parts]
        gradients = torch.is_grad_enabled()  # a setting of each thread

        def call(part: Part) -> Callable[[], Result]:
            with torch.set_grad_enabled(gradients):
                return _attempt(work, part)

        return list(pool.map(call, parts))


def chunks_of(rows: Tensor, size: int, workers: int) -> list[Tensor]:
    """Rows (..., R) in chunks of a size or less; where there are more than a few, at least one for each worker.

    Args:
        size: rows that a chunk may have.
    """
    count = rows.shape[-1]
    share = max(-(-count // workers), min(size, LEAST_ROWS))
    return list(rows.split(min(size, share), dim=-1)) if count else []


def _attempt(work: Callable[[Part], Result], part: Part) -> Callable[[], Result]:
    try:
        result = work(part)
    except Exception as error:
        failed = error  # the name of the clause ends with it

        def fail() -> Result:
            raise failed

        return fail
    return lambda: result


@cache
def _pool(count: int) -> ThreadPoolExecutor | None:
    """Threads, kept for the life of the process, in which torch uses no further ones; None if the system refuses them.

    A thread takes the number that was set last anywhere when it first asks for it, and keeps it.
    """
    before, pool, all_here = torch.get_num_threads(), ThreadPoolExecutor(count), Barrier(count)

    def begin(_: int) -> None:
        _within.set(True)
        torch.set_num_threads(1)
        torch.get_num_threads()
        all_here.wait()

    try:
        list(pool.map(begin, range(count)))
    except RuntimeError:
        all_here.abort()  # those that did start wait for the others
        pool.shutdown()
        return None
    finally:
        torch.set_num_threads(before)
    return pool
