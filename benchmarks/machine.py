"""One line about the machine, to stand under every table of figures."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path


def describe() -> str:
    """Processor, cores that this process may use, memory, Python and torch."""
    names = [line.split(":", 1)[1].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")]
    memory = next((line.split()[1] for line in _lines(Path("/proc/meminfo")) if line.startswith("MemTotal")), None)
    parts = [
        names[0] if names else platform.processor() or platform.machine(),
        f"{len(os.sched_getaffinity(0))} cores",
        f"{int(memory) / 2**20:.0f} GiB" if memory else "",
        f"Python {platform.python_version()}",
        f"torch {metadata.version('torch')}",
    ]
    return ", ".join(part for part in parts if part)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
