"""Brackets with the inputs that they belong to, as a file: what `verifier radius --json` writes and others read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verifier.analysis.brackets import Bracket, as_object
from verifier.errors import InputError


@dataclass(frozen=True)
class Measured:
    """One input and its bracket.

    Args:
        network: path as given.
        sha256: of the network's bytes.
        spec: ``dataset``, ``index``, ``label``, ``norm``, ``clip``, ``mean``, ``std``.
        bracket: of its margin.
    """

    network: str
    sha256: str | None
    spec: Mapping[str, Any]
    bracket: Bracket

    @property
    def index(self) -> int:
        return int(self.spec["index"])


def document(made: Sequence[Measured], versions: Mapping[str, str]) -> str:
    """The text of ``--json``: the list ``results``, one input a line, and ``versions``; infinite ends are null."""
    lines = [
        json.dumps(
            {
                "query": {"network": one.network, "sha256": one.sha256, "spec": dict(one.spec)},
                **as_object(one.bracket),
            },
            allow_nan=False,
        )
        for one in made
    ]
    return '{"results": [\n' + ",\n".join(lines) + f'\n],\n"versions": {json.dumps(dict(versions))}}}\n'


def read(paths: Sequence[Path], sha256: str | None = None) -> list[Measured]:
    """Brackets from files of `verifier radius --json`, of one network, data set and norm.

    Witnesses and brackets of single classes are not read.

    Args:
        paths: at least one.
        sha256: of the network that they have to be of; None for any.

    Raises:
        InputError: a file is not such a file, is of another network, or differs from the others in what it measured.
    """
    found: dict[int, Measured] = {}
    first: Measured | None = None
    for path in paths:
        for one in _entries(path):
            if sha256 is not None and one.sha256 != sha256:
                what = f"its brackets are of a network with SHA-256 {str(one.sha256)[:12]}, this one has {sha256[:12]}"
                raise InputError(str(path), what, "give the network that they were made for, or make them again")
            first = one if first is None else first
            differs = [key for key in first.spec if key not in ("index", "label") and first.spec[key] != one.spec[key]]
            if differs or one.sha256 != first.sha256:
                what = f"differs from the other brackets in {differs[0] if differs else 'its network'}"
                raise InputError(str(path), what, "give files of one kind")
            found[one.index] = _tighter(found[one.index], one) if one.index in found else one
    if not found:
        raise InputError(str(paths[0]) if paths else "--brackets", "there is no bracket", "run verifier radius --json")
    return list(found.values())


def _tighter(one: Measured, other: Measured) -> Measured:
    """Of two brackets of the same input the narrower one."""
    widths = [m.bracket.upper - m.bracket.lower for m in (one, other)]
    return other if widths[1] < widths[0] else one


def _entries(path: Path) -> list[Measured]:
    mend = "give a file that verifier radius --json has written"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [_entry(one) for one in content["results"]]
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror})", "check the path") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(str(path), f"is no file of brackets ({type(error).__name__}: {error})", mend) from error


def _entry(one: Mapping[str, Any]) -> Measured:
    query = one["query"]
    spec = {key: query["spec"][key] for key in ("dataset", "norm", "clip", "mean", "std", "index", "label")}
    lower = math.inf if one["lower"] is None else float(one["lower"])
    upper = math.inf if one["upper"] is None else float(one["upper"])
    if not 0 <= lower <= upper:
        raise ValueError(f"{lower} to {upper} is no bracket")
    bracket = Bracket(
        lower=lower,
        upper=upper,
        witness=None,
        exact=bool(one["exact"]),
        label=int(one["prediction"]),
        correct=one["correct"],
        method=one["method"],
        attack=one["attack"],
        tolerance=float(one["tolerance"]),
        seconds=float(one["seconds"]),
    )
    return Measured(str(query["network"]), query["sha256"], spec, bracket)
