"""The tools that can be measured: this one, and installed peers that are called by a command template."""

from __future__ import annotations

import gzip
import json
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.vnncomp.process import Finished, measure
from benchmarks.vnncomp.queries import Instance
from benchmarks.vnncomp.rows import OWN, Row

#: the engine's verdicts in the competition's words
WORDS = {"verified": "unsat", "falsified": "sat"}
#: what tools write for each of the competition's words
SPELLINGS = {
    **{word: word for word in ("sat", "unsat", "timeout", "unknown", "error")},
    **{"violated": "sat", "holds": "unsat", "verified": "unsat", "falsified": "sat"},
}
#: seconds after the limit at which a process is killed, whatever tool it is; an answer until then counts
GRACE = 2.0
#: placeholders of a command template
PLACEHOLDERS = ("onnx", "vnnlib", "timeout", "results")

#: (query, seconds) -> what came of it
Tool = Callable[[Instance, float], Row]


@dataclass(frozen=True)
class Engine:
    """This project's command line.

    Args:
        arguments: passed on to `verifier verify`.
    """

    arguments: tuple[str, ...] = ()
    name: str = OWN

    def __call__(self, instance: Instance, timeout: float) -> Row:
        with tempfile.TemporaryDirectory() as folder:
            result, witness = Path(folder) / "result.json", Path(folder) / "witness.txt"
            command = [
                *(sys.executable, "-m", "verifier", "verify", str(instance.network), str(instance.spec)),
                *("--timeout", str(timeout), "--json", str(result), "--witness", str(witness)),
                *("--quiet", *self.arguments),
            ]
            finished = measure(command, timeout + GRACE)
            results = json.loads(result.read_text())["results"] if result.exists() else []
            if not results:
                return _row(self.name, instance, finished, "error", _complaint(finished))
            answer = results[0]
            verdict = WORDS.get(answer["verdict"], "unknown")
            method = answer["method"] if verdict != "unknown" else answer["reason"]
            refuted = _refutes(instance, verdict, witness)
        return _row(self.name, instance, finished, verdict, method, answer["seconds"], refuted)


@dataclass(frozen=True)
class Peer:
    """Another tool.

    Args:
        name: as it stands in the tables.
        template: its command, with placeholders in braces (see `PLACEHOLDERS`). The answer is the first word of the
            file {results}, in the competition's words; without such a file, the last line of standard output that is
            one such word.
    """

    name: str
    template: str

    @classmethod
    def parse(cls, text: str) -> Peer:
        """Read ``NAME=COMMAND``.

        Raises:
            SystemExit: it is not of that form, its command takes no network, or its program is not there.
        """
        name, equals, template = text.partition("=")
        if not (name.strip() and equals and "{onnx}" in template and "{vnnlib}" in template):
            raise SystemExit(f"--peer {text}: write NAME='COMMAND with {{onnx}} {{vnnlib}} {{timeout}} {{results}}'")
        if name.strip() == OWN:
            raise SystemExit(f"--peer {text}: {OWN} is the name of this tool; choose another")
        program = shlex.split(template)[0]
        if shutil.which(program) is None:
            raise SystemExit(f"--peer {name}: there is no program {program}")
        return cls(name.strip(), template)

    def __call__(self, instance: Instance, timeout: float) -> Row:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            results = folder / "results.txt"
            files = [_unpacked(path, folder) for path in (instance.network, instance.spec)]
            values: dict[str, object] = dict(zip(PLACEHOLDERS, (*files, f"{timeout:g}", results), strict=True))
            finished = measure(_filled(self.template, values), timeout + GRACE, folder)
            verdict = _answer(finished, results)
            note = _complaint(finished) if verdict in ("timeout", "unknown", "error") else ""
            refuted = _refutes(instance, verdict, results)
        return _row(self.name, instance, finished, verdict, note, None, refuted)


def _filled(template: str, values: dict[str, object]) -> list[str]:
    """Words of the command; other braces than the placeholders' stay as they are."""
    words = shlex.split(template)
    for key, value in values.items():
        words = [word.replace("{" + key + "}", str(value)) for word in words]
    return words


def _unpacked(path: Path, folder: Path) -> Path:
    """The file itself, or a copy of what is packed in it: few tools read .gz."""
    path = path.resolve()
    if path.suffix != ".gz":
        return path
    copy = folder / path.stem
    copy.write_bytes(gzip.decompress(path.read_bytes()))
    return copy


def _answer(finished: Finished, results: Path) -> str:
    """One of the competition's words; a file without one of them is an error."""
    if finished.killed:
        return "timeout"
    if results.exists():
        words = results.read_text(errors="replace").split(maxsplit=1)
        return SPELLINGS.get(words[0].strip(",:").lower(), "error") if words else "error"
    lines = [line.strip().lower() for line in finished.out.splitlines()]
    said = [SPELLINGS[line] for line in lines if line in SPELLINGS]
    return said[-1] if said else "error"


def _refutes(instance: Instance, verdict: str, witness: Path) -> bool:
    """Whether a ``sat`` against the label comes with a witness that holds by an independent reading."""
    if verdict != "sat" or instance.expected != "unsat" or not witness.exists():
        return False
    from benchmarks.vnncomp.witness import refutes  # onnxruntime behind it would count as memory of what is measured

    return refutes(instance.network, instance.spec, witness)


def _complaint(finished: Finished) -> str:
    if finished.killed:
        return f"killed {GRACE:g} s after the limit"
    return f"status {finished.status}: {finished.err.strip() or finished.out.strip()}"[-300:]


def _row(
    tool: str,
    instance: Instance,
    finished: Finished,
    verdict: str,
    method: str,
    engine_seconds: float | None = None,
    refutes: bool = False,
) -> Row:
    return Row(
        key=instance.key,
        family=instance.family,
        expected=instance.expected,
        verdict=verdict,
        seconds=finished.seconds,
        engine_seconds=engine_seconds,
        method=method,
        refutes=refutes,
        tool=tool,
        peak=finished.peak,
    )
