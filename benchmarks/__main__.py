"""All measurements that need nothing but this repository and, where it is there, the folder of public benchmarks.

    python -m benchmarks

Each of them is a command of its own with more options: ``python -m benchmarks.bounds``, ``benchmarks.eran``,
``benchmarks.complete``, ``benchmarks.planted``, ``benchmarks.profile`` and ``benchmarks.vnncomp``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SHARED = Path(__file__).parents[2] / "shared"


def main() -> None:
    commands = [("benchmarks.bounds", "--methods", "ibp,crown"), ("benchmarks.planted", "--count", "20")]
    if SHARED.is_dir():
        commands += [("benchmarks.vnncomp", "--stride", "10")]
    for command in commands:
        print(f"\n$ python -m {' '.join(command)}", flush=True)
        subprocess.run([sys.executable, "-m", *command], check=False)


if __name__ == "__main__":
    main()
