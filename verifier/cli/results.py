"""Results as JSON and as an exit status: pure functions of what was found."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from verifier.verdict import Counterexample, Falsified, Undecided, Verdict, Verified

VERIFIED, FALSIFIED, UNDECIDED = 0, 1, 3
_PACKAGES = ("torch", "onnxruntime", "numpy")


@dataclass(frozen=True)
class QueryResult:
    """One query and what came of it.

    Args:
        network: path as given.
        sha256: of the network's bytes, unpacked; None where the time was over before they were read.
        spec: path of the specification as given, or the fields of a data set query.
        verdict: the answer.
    """

    network: str
    sha256: str | None
    spec: str | Mapping[str, Any]
    verdict: Verdict


def word(verdict: Verdict) -> str:
    """``verified``, ``falsified`` or ``undecided``."""
    return type(verdict).__name__.lower()


def exit_status(results: Sequence[QueryResult]) -> int:
    """1 if any query was falsified, else 3 if any is undecided, else 0."""
    kinds = {type(result.verdict) for result in results}
    if Falsified in kinds:
        return FALSIFIED
    return UNDECIDED if Undecided in kinds else VERIFIED


def counts(results: Sequence[QueryResult]) -> dict[str, int]:
    """How many queries ended in each verdict."""
    words = [word(result.verdict) for result in results]
    return {kind.__name__.lower(): words.count(kind.__name__.lower()) for kind in (Verified, Falsified, Undecided)}


def versions() -> dict[str, str]:
    """Versions of this project, the interpreter and the packages that compute; imports none of them."""
    from verifier import __version__

    found = {"verifier": __version__, "python": platform.python_version()}
    return found | {package: metadata.version(package) for package in _PACKAGES}


def document(results: Sequence[QueryResult]) -> str:
    """The text of ``--json``: an object with the list ``results``, one a line; numbers are finite or null."""
    environment = versions()
    entries = [json.dumps(_entry(result) | {"versions": environment}, allow_nan=False) for result in results]
    return '{"results": [\n' + ",\n".join(entries) + "\n]}\n"


def _entry(result: QueryResult) -> dict[str, Any]:
    verdict = result.verdict
    spec = result.spec if isinstance(result.spec, str) else dict(result.spec)
    return {
        "verdict": word(verdict),
        "reason": str(verdict.reason) if isinstance(verdict, Undecided) else None,
        "query": {"network": result.network, "sha256": result.sha256, "spec": spec},
        "bound": _finite(verdict.bound),
        "method": verdict.method,
        "stages": [
            {"name": s.name, "seconds": s.seconds, "bound": _finite(s.bound), "open": s.open} for s in verdict.stages
        ],
        "subproblems": verdict.subproblems,
        "seconds": verdict.seconds,
        "counterexample": _counterexample(verdict.counterexample) if isinstance(verdict, Falsified) else None,
        "certificate": None,
    }


def _counterexample(found: Counterexample | None) -> dict[str, Any] | None:
    if found is None:
        return None
    # float32 outputs become float64 without loss, so reading them back into float32 gives the same bits.
    values = {name: getattr(found, name).reshape(-1).tolist() for name in ("input", "output")}
    return {**values, "replayed": True}


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
