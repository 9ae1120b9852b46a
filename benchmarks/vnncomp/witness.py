"""An independent reading of a specification and of a witness, for answers that contradict the expected one.

Shares no code with the engine: the specification's assertions are evaluated as they are written, in exact arithmetic,
on the witness's inputs and on what onnxruntime returns for them.
"""

from __future__ import annotations

import gzip
import re
from fractions import Fraction
from math import prod
from pathlib import Path

import numpy as np
import onnxruntime

Expression = str | list["Expression"]


def refutes(network: Path, spec: Path, witness: Path) -> bool:
    """Whether the witness's inputs meet every assertion of the specification together with onnxruntime's outputs.

    A witness that does not give every input meets nothing.
    """
    numbers = re.findall(r"X_\d+\s+([-+\d.eE]+)\)", witness.read_text())
    session = onnxruntime.InferenceSession(_bytes(network), providers=["CPUExecutionProvider"])
    first = session.get_inputs()[0]
    shape = [extent if isinstance(extent, int) else 1 for extent in first.shape]
    if len(numbers) != prod(shape):
        return False
    x = np.array([float(number) for number in numbers], np.float32).reshape(shape)
    y = np.asarray(session.run(None, {first.name: x})[0]).reshape(-1)
    values = {f"X_{i}": Fraction(float(value)) for i, value in enumerate(x.reshape(-1))}
    values |= {f"Y_{i}": Fraction(float(value)) for i, value in enumerate(y)}
    tokens = re.findall(r"[()]|[^\s()]+", re.sub(r";.*", "", _bytes(spec).decode()))
    return all(_holds(e[1], values) for e in _parse(tokens) if e[0] == "assert")


def _bytes(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def _parse(tokens: list[str]) -> list[Expression]:
    stack: list[list[Expression]] = [[]]
    for token in tokens:
        if token == "(":
            stack.append([])
        elif token == ")":
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(token)
    return stack[0]


def _holds(expression: Expression, values: dict[str, Fraction]) -> bool:
    operator, *arguments = expression
    if operator in ("and", "or"):
        return (all if operator == "and" else any)(_holds(argument, values) for argument in arguments)
    left, right = (values[str(a)] if str(a) in values else Fraction(str(a)) for a in arguments)
    return left <= right if operator == "<=" else left >= right
