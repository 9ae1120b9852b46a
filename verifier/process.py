"""Settings of a whole process, which a program makes at its start and a library must not make behind its back."""

from __future__ import annotations

import ctypes
import os
import sys

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # names of glibc's mallopt
_LARGE = 1 << 30


def tune() -> None:
    """Make this process a good home for bound propagation; to be called before torch is imported.

    - OpenMP reads its settings when torch loads it: threads that spin while they wait take the cores from those that
      work (on a busy machine a matrix product can take 40 times as long).
    - glibc gives every large block back to the kernel, which then has to clear it anew for the next tensor: keeping
      them makes CROWN up to 1.5 times as fast.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(_MMAP_THRESHOLD, _LARGE)
            mallopt(_TRIM_THRESHOLD, _LARGE)


def use_threads(count: int | None) -> None:
    """Compute with so many threads, or with as many as there are cores; to be called before torch is imported."""
    if count is not None:
        os.environ["OMP_NUM_THREADS"] = str(count)
