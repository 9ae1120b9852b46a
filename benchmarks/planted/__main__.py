"""Planted counterexamples: no query may be verified, and how many of them are found.

    python -m benchmarks.planted --count 200 [--timeout 1.5] [--keep FOLDER]

The exit status is 1 if any query was verified, which would be a wrong verdict.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from verifier.process import tune

tune()

import numpy as np  # noqa: E402  (torch has to come after the settings)
import onnxruntime  # noqa: E402
import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import track  # noqa: E402
from rich.table import Table  # noqa: E402

import verifier  # noqa: E402
from benchmarks.machine import describe  # noqa: E402
from benchmarks.planted.construct import ARCHITECTURES, Planted, plant  # noqa: E402
from benchmarks.planted.layers import write  # noqa: E402

COLUMNS = ("architecture", "queries", "found", "by attack", "by search", "undecided", "false verified", "median s")


@dataclass(frozen=True)
class Outcome:
    """What came of one planted counterexample: `word` is ``found``, ``undecided`` or ``verified``."""

    name: str
    architecture: str
    word: str
    method: str
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="networks, shared evenly by the architectures")
    parser.add_argument("--timeout", type=float, default=1.5, help="seconds for each query")
    parser.add_argument("--method", default="auto", help="as of `verifier verify`")
    parser.add_argument("--seed", type=int, default=0, help="of the first network; the others count up from it")
    parser.add_argument("--keep", type=Path, help="folder for the networks and their counterexamples")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as folder:
        work = run(options.count, options.seed, options.timeout, options.method, options.keep or Path(folder))
        found = list(track(work, "networks", total=options.count, console=console))
    console.print(tabulate(found))
    console.print(f"{options.timeout:g} s a query, one thread; {describe()}")
    sys.exit(any(outcome.word == "verified" for outcome in found))


def run(count: int, seed: int, timeout: float, method: str, folder: Path) -> Iterator[Outcome]:
    """Plant, confirm and verify one after the other.

    Raises:
        ArithmeticError: onnxruntime does not confirm a planted counterexample.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digits = verifier.load_dataset("digits")
    data = np.asarray(digits.x, np.float64).reshape(-1, 1, 8, 8), np.asarray(digits.y)
    for number in range(count):
        planted = plant(ARCHITECTURES[number % len(ARCHITECTURES)], seed + number // len(ARCHITECTURES), data)
        name = f"{planted.architecture}-{seed + number // len(ARCHITECTURES)}"
        path = folder / f"{name}.onnx"
        write(planted.layers, planted.x.shape, path)
        np.savez(folder / f"{name}.npz", x=planted.x, y=planted.label, epsilon=planted.epsilon, hidden=planted.hidden)
        confirm(planted, path)
        yield decide(name, planted, path, timeout, method)


def confirm(planted: Planted, path: Path) -> None:
    """Check in onnxruntime that the hidden point lies in the set and breaks the property."""
    inside = np.abs(planted.hidden.astype(np.float64) - planted.x) <= planted.epsilon
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    scores = np.asarray(session.run(None, {"x": planted.hidden[None]})[0]).reshape(-1)
    if not (inside.all() and 0 <= planted.hidden.min() <= planted.hidden.max() <= 1):
        raise ArithmeticError(f"{path.name}: the planted point lies outside the set")
    if np.delete(scores, planted.label).max() <= scores[planted.label]:
        raise ArithmeticError(f"{path.name}: onnxruntime does not confirm the planted counterexample")


def decide(name: str, planted: Planted, path: Path, timeout: float, method: str) -> Outcome:
    """What the engine says of the property that is known to be false."""
    spec = verifier.robustness(planted.x, planted.label, epsilon=planted.epsilon)
    begun = time.monotonic()
    verdict = verifier.verify(verifier.load(path), spec, timeout=timeout, method=method)
    words = {verifier.Verified: "verified", verifier.Falsified: "found", verifier.Undecided: "undecided"}
    return Outcome(name, planted.architecture, words[type(verdict)], verdict.method, time.monotonic() - begun)


def tabulate(found: Sequence[Outcome]) -> Table:
    """One line for each architecture and one for all; below, the wrong verdicts."""
    table = Table(title="Planted counterexamples")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "architecture" else "right")
    for architecture in (*dict.fromkeys(outcome.architecture for outcome in found), "all"):
        chosen = [outcome for outcome in found if architecture in ("all", outcome.architecture)]
        hits = [outcome for outcome in chosen if outcome.word == "found"]
        by_attack = sum(outcome.method.startswith("attack") for outcome in hits)
        words = [outcome.word for outcome in chosen]
        counts = (len(hits), by_attack, len(hits) - by_attack, words.count("undecided"), words.count("verified"))
        seconds = f"{median(outcome.seconds for outcome in chosen):.2f}"
        table.add_row(architecture, str(len(chosen)), *map(str, counts), seconds)
    wrong = [outcome for outcome in found if outcome.word == "verified"]
    table.caption = "\n".join(f"WRONG: {outcome.name} verified by {outcome.method}" for outcome in wrong) or None
    return table


if __name__ == "__main__":
    main()
