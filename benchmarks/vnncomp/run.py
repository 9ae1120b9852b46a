"""Run queries as a user would, one process each, and keep a row of each as soon as it is done."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.vnncomp.queries import Instance
from benchmarks.vnncomp.witness import refutes

#: the engine's verdicts in the competition's words
WORDS = {"verified": "unsat", "falsified": "sat"}
#: seconds after the time limit at which a process that does not answer is killed
GRACE = 10.0


@dataclass(frozen=True)
class Row:
    """What came of one query.

    Args:
        verdict: ``sat``, ``unsat``, ``unknown`` or ``error``.
        seconds: wall time of the whole process.
        engine_seconds: of it, what the engine counts as its own; the rest is process start and reading.
        method: what decided, or the reason for no answer.
        refutes: a ``sat`` whose witness an independent reading confirms although ``unsat`` was expected: the label
            does not belong to these files.
    """

    key: str
    family: str
    expected: str
    verdict: str
    seconds: float
    engine_seconds: float | None
    method: str
    refutes: bool = False

    @property
    def solved(self) -> bool:
        return self.verdict in ("sat", "unsat") and not self.wrong

    @property
    def wrong(self) -> bool:
        return {self.verdict, self.expected} == {"sat", "unsat"} and not self.refutes


def run_all(instances: list[Instance], timeout: float, jobs: int, out: Path | None, extra: list[str]) -> Iterator[Row]:
    """Rows in the order in which they finish; what `out` already holds is not run again."""
    done = {row.key: row for row in read_rows(out)} if out else {}
    yield from (done[i.key] for i in instances if i.key in done)
    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(run, i, timeout, jobs, extra) for i in instances if i.key not in done]
        for future in as_completed(waiting):
            row = future.result()
            if out:
                with out.open("a") as file:
                    file.write(json.dumps(asdict(row)) + "\n")
            yield row


def read_rows(path: Path) -> list[Row]:
    """Rows of an earlier run."""
    return [Row(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def run(instance: Instance, timeout: float, jobs: int, extra: list[str]) -> Row:
    """One query in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        result, witness = Path(folder) / "result.json", Path(folder) / "witness.txt"
        command = [
            *(sys.executable, "-m", "verifier", "verify", str(instance.network), str(instance.spec)),
            *("--timeout", str(timeout), "--json", str(result), "--witness", str(witness)),
            *("--quiet", *extra),
        ]
        if jobs > 1:
            command += ["--threads", "1"]
        begun = time.monotonic()
        try:
            finished = subprocess.run(command, capture_output=True, text=True, timeout=timeout + GRACE)
            error = finished.stderr.strip()
        except subprocess.TimeoutExpired:
            error = "killed: no answer in time"
        seconds = time.monotonic() - begun
        results = json.loads(result.read_text())["results"] if result.exists() else []
        contradicts = bool(results) and results[0]["verdict"] == "falsified" and instance.expected == "unsat"
        refuted = contradicts and refutes(instance.network, instance.spec, witness)
    if not results:
        return Row(instance.key, instance.family, instance.expected, "error", seconds, None, error[-300:])
    answer = results[0]
    verdict = WORDS.get(answer["verdict"], "unknown")
    method = answer["method"] if verdict != "unknown" else answer["reason"]
    return Row(instance.key, instance.family, instance.expected, verdict, seconds, answer["seconds"], method, refuted)
