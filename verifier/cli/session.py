"""What one run of the command knows about itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Session:
    """Handed to every command as typer's context object.

    Args:
        started: `time.monotonic` when the process began; the clock of the first query runs from here.
        debug: show tracebacks of bugs.
    """

    started: float
    debug: bool = False
