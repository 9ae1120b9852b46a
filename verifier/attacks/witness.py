"""Counterexamples as text, in the format of VNN-COMP.

The first line says ``sat``; then one list of ``(X_i value)`` and ``(Y_j value)`` pairs over the flat input and output.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from verifier.errors import InputError
from verifier.verdict import Counterexample

_PAIR = re.compile(r"\(\s*([XY])_(\d+)\s+([^\s()]+)\s*\)")


def format_witness(counterexample: Counterexample) -> str:
    """The witness as text.

    Numbers are the shortest decimals that identify the value among the float64 numbers, so a reader gets exactly it
    whether it parses into float32 or float64 (the shortest digits of a float32 may lie outside a bound that the float32
    value itself meets).
    """
    flat = [("X", counterexample.input), ("Y", counterexample.output)]
    pairs = [f"({name}_{i} {float(v)!r})" for name, values in flat for i, v in enumerate(values.reshape(-1))]
    return "sat\n(" + "\n".join(pairs) + ")\n"


def read_witness(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Flat input (X,) and output (Y,), float64, of a witness file.

    Raises:
        InputError: the file cannot be read, does not say sat, or holds something else than one value per variable.
    """
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(path), f"cannot be read ({error})", "give a witness file") from error
    first, _, rest = text.lstrip().partition("\n")
    body = rest.strip()
    if first.strip() != "sat":
        raise InputError(f"{path}, line 1", f"says {first.strip()!r}", "a witness file starts with the line sat")
    if not (body.startswith("(") and body.endswith(")")) or _PAIR.sub("", body[1:-1]).strip():
        raise InputError(str(path), "is not one list of (X_i value) and (Y_j value) pairs", "see VNN-COMP's format")
    pairs = _PAIR.findall(body)
    return _values(path, pairs, "X"), _values(path, pairs, "Y")


def _values(path: Path, pairs: list[tuple[str, str, str]], wanted: str) -> np.ndarray:
    found = {}
    for name, index, value in pairs:
        if name == wanted:
            try:
                found[int(index)] = float(value)
            except ValueError as error:
                raise InputError(f"{path}, {name}_{index}", f"{value!r} is not a number", "write a decimal") from error
    count = sum(name == wanted for name, _, _ in pairs)
    if sorted(found) != list(range(count)):
        raise InputError(str(path), f"does not give each {wanted}_0, {wanted}_1, ... once", "number them from 0")
    return np.array([found[i] for i in range(count)])
