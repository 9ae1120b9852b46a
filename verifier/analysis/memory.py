"""How much memory a piece of work takes at its peak."""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes


class Peak:
    """Bytes, once the work is done."""

    bytes: int = 0


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Growth of the peak of the device's memory during a block of work.

    On a CPU it is the resident memory of the whole process. Linux lets a process begin its high-water mark anew; where
    that is refused the growth counts only beyond the highest mark so far. Freed memory is given back before, so that
    the work cannot live on it unseen.
    """
    peak = Peak()
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    else:
        _begin_anew()
    before = torch.cuda.memory_allocated(device) if cuda else _highest()
    try:
        yield peak
    finally:
        after = torch.cuda.max_memory_allocated(device) if cuda else _highest()
        peak.bytes = max(0, after - before)


def _highest() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT


def _begin_anew() -> None:
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
    try:
        with open("/proc/self/clear_refs", "w") as marks:
            marks.write("5")
    except OSError:
        pass  # a container may forbid it
