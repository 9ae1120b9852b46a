"""One command in a process of its own: its time, its peak memory, its output, and its end at a limit."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

#: `ru_maxrss` counts kibibytes on Linux
_MIB = 1024


@dataclass(frozen=True)
class Finished:
    """How a command ended.

    Args:
        status: exit status, minus the signal's number for a process that was killed.
        seconds: wall time.
        peak: MiB of memory of the largest of its processes at its peak. Never less than what the caller itself takes,
            since the system counts the moment before a new program is loaded as well.
        out, err: what it printed.
        killed: it ran into the limit.
    """

    status: int
    seconds: float
    peak: float
    out: str
    err: str
    killed: bool


def measure(command: Sequence[str], limit: float, folder: Path | None = None) -> Finished:
    """Run a command, and kill it with all that it started after `limit` seconds.

    Raises:
        OSError: there is no such program.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        begun = time.monotonic()
        process = subprocess.Popen(command, stdout=out, stderr=err, cwd=folder, start_new_session=True)
        overran = []

        def end() -> None:
            overran.append(True)
            _kill(process.pid)

        guard = Timer(limit, end)
        guard.start()
        _, status, usage = os.wait4(process.pid, 0)
        guard.cancel()
        seconds = time.monotonic() - begun
        _kill(process.pid)  # what it left running would slow the next one
        process.returncode = os.waitstatus_to_exitcode(status)
        for stream in (out, err):
            stream.seek(0)
        texts = [stream.read().decode(errors="replace") for stream in (out, err)]
    return Finished(process.returncode, seconds, usage.ru_maxrss / _MIB, *texts, killed=bool(overran))


def _kill(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
