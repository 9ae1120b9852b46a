"""Exact margins of small sequential ReLU networks by mixed-integer programming (HiGHS through scipy).

It shares nothing with the engine's bounds: affine stretches between the ReLUs become matrices by evaluation at unit
vectors, and the limits of neurons come from linear programs over the triangle relaxation, solved here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from time import monotonic
from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from verifier.graph.ir import Graph, Node
from verifier.operators import evaluate, place

_SLACK = 1e-7  # limits of neurons are widened by what a solver's tolerances may have taken off


@dataclass(frozen=True, eq=False)
class Layers:
    """``z_0 = x; y_i = W_i z_i + b_i; z_{i+1} = relu(y_i)``; the last y are the logits."""

    layers: tuple[tuple[np.ndarray, np.ndarray], ...]

    @staticmethod
    def of(graph: Graph) -> Layers | None:
        """The layers of a graph of which each part takes the ReLU before it and nothing else; None for others."""
        exact = place(graph)
        relus = [node for node in exact.nodes if node.op == "relu"]
        plain = all(bool((node.constants["slope"] == 0).all()) for node in relus)
        if not plain or any(node.op not in _AFFINE for node in exact.nodes if node.op != "relu"):
            return None
        starts = [exact.input, *(node.name for node in relus)]
        ends = [*(node.inputs[0] for node in relus), exact.output]
        try:
            return Layers(tuple(_matrix(exact, a, b) for a, b in zip(starts, ends, strict=True)))
        except KeyError:  # a value from before the ReLU is used behind it
            return None

    def logits(self, x: np.ndarray) -> np.ndarray:
        z = x.reshape(-1)
        for number, (weight, bias) in enumerate(self.layers):
            z = weight @ z + bias
            z = np.maximum(z, 0) if number + 1 < len(self.layers) else z
        return z


_AFFINE = ("input", "linear", "conv", "scale", "reshape", "transpose", "take", "pad", "sum", "concat", "add", "sub")


def _matrix(graph: Graph, start: str, end: str) -> tuple[np.ndarray, np.ndarray]:
    """The affine map from one value to another: weight (out, in) and bias (out)."""
    names = [node.name for node in graph.nodes]
    between = graph.nodes[names.index(start) + 1 : names.index(end) + 1]
    part = replace(graph, nodes=(Node(start, "input"), *between), input=start, output=end)
    shape = graph.shapes[start]
    size = prod(shape)
    units = torch.cat([torch.zeros(1, size, dtype=torch.float64), torch.eye(size, dtype=torch.float64)])
    values = evaluate(part, units.reshape(-1, *shape)).reshape(size + 1, -1).numpy()
    return (values[1:] - values[0]).T.copy(), values[0].copy()


class _Program:
    """Rows over x, the outputs of the ReLUs, and the moves; grown layer by layer."""

    def __init__(self, x: np.ndarray, radius: float, norm: str, clip: tuple[float, float]):
        n = len(x)
        self.n, self.norm = n, norm
        low, high = np.maximum(x - radius, clip[0]), np.minimum(x + radius, clip[1])
        moves = 1 if norm == "inf" else n
        self.low = np.concatenate([low, np.zeros(moves)])
        self.high = np.concatenate([high, np.full(moves, radius)])
        self.cost = np.concatenate([np.zeros(n), np.ones(moves)])
        self.integer = np.zeros(n + moves)
        spread = np.ones((n, 1)) if norm == "inf" else np.eye(n)
        self.rows = [np.hstack([np.eye(n), -spread]), np.hstack([-np.eye(n), -spread])]
        self.limits = [x, -x]
        self.last = np.arange(n)  # variables of the layer before
        if norm == "1":
            self.rows.append(np.concatenate([np.zeros(n), np.ones(n)])[None])
            self.limits.append(np.array([radius]))

    @property
    def size(self) -> int:
        return len(self.low)

    def add(self, low: np.ndarray, high: np.ndarray, integer: bool = False) -> np.ndarray:
        places = np.arange(self.size, self.size + len(low))
        self.low, self.high = np.concatenate([self.low, low]), np.concatenate([self.high, high])
        self.cost = np.concatenate([self.cost, np.zeros(len(low))])
        self.integer = np.concatenate([self.integer, np.full(len(low), float(integer))])
        return places

    def row(self, terms: dict[int, float], limit: float) -> None:
        """``sum of terms <= limit``."""
        row = np.zeros(self.size)
        for variable, value in terms.items():
            row[variable] += value
        self.rows.append(row[None])
        self.limits.append(np.array([limit]))

    def matrix(self) -> tuple[sparse.csr_matrix, np.ndarray]:
        wide = [np.hstack([rows, np.zeros((len(rows), self.size - rows.shape[1]))]) for rows in self.rows]
        return sparse.csr_matrix(np.vstack(wide)), np.concatenate(self.limits)

    def extreme(self, A: Any, b: np.ndarray, c: np.ndarray) -> float:
        answer = linprog(c, A, b, bounds=np.stack([self.low, self.high], 1), method="highs")
        if answer.status != 0:
            raise ArithmeticError(answer.message)
        return float(answer.fun)

    def layer(self, weight: np.ndarray, bias: np.ndarray) -> None:
        """A layer and its ReLUs, with limits from linear programs."""
        below, above = self.intervals(weight, bias)
        A, b = self.matrix()
        for i in np.flatnonzero((below < 0) & (above > 0)):
            c = np.zeros(self.size)
            c[self.last] = weight[i]
            below[i] = max(below[i], self.extreme(A, b, c) + bias[i] - _SLACK)
            above[i] = min(above[i], -self.extreme(A, b, -c) + bias[i] + _SLACK)
        self.relus(weight, bias, below, above)

    def intervals(self, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low, high = self.low[self.last], self.high[self.last]
        plus, minus = np.maximum(weight, 0), np.minimum(weight, 0)
        return plus @ low + minus @ high + bias - _SLACK, plus @ high + minus @ low + bias + _SLACK

    def relus(self, weight: np.ndarray, bias: np.ndarray, below: np.ndarray, above: np.ndarray) -> None:
        before = self.last
        z = self.add(np.maximum(below, 0), np.maximum(above, 0))
        open_ = (below < 0) & (above > 0)
        on = np.full(len(z), -1)
        on[open_] = self.add(np.zeros(open_.sum()), np.ones(open_.sum()), integer=True)
        for i, out in enumerate(z):
            if above[i] <= 0:
                continue
            terms = {int(k): float(w) for k, w in zip(before, weight[i], strict=True) if w}
            self.row({**terms, int(out): -1.0}, -bias[i])  # z >= y
            minus = {k: -w for k, w in terms.items()}
            if not open_[i]:
                self.row({**minus, int(out): 1.0}, bias[i])  # z <= y
                continue
            self.row({**minus, int(out): 1.0, int(on[i]): -below[i]}, bias[i] - below[i])  # z <= y - l (1 - a)
            self.row({int(out): 1.0, int(on[i]): -above[i]}, 0.0)  # z <= u a
        self.last = z


def exact_margin(
    layers: Layers,
    x: np.ndarray,
    norm: str,
    radius: float,
    clip: tuple[float, float] = (0.0, 1.0),
    seconds: float = 60.0,
) -> float | None:
    """``min |x - x'|`` over all x' of the range at which another class reaches the score of the one predicted at x.

    Args:
        x: input.
        norm: ``inf`` or ``1``.
        radius: an upper bound of the answer, which only speeds it up if it is one.
        seconds: to try.

    Returns:
        The margin up to the solver's tolerances; inf where there is no such x' within the radius, None where the time
        did not suffice.
    """
    begun, x = monotonic(), x.reshape(-1).astype(np.float64)
    program = _Program(x, radius * (1 + 1e-6), norm, clip)
    for weight, bias in layers.layers[:-1]:
        program.layer(weight, bias)
    weight, bias = layers.layers[-1]
    logits = layers.logits(x)
    label, best = int(logits.argmax()), float("inf")
    A, b = program.matrix()
    for target in np.argsort(-logits):
        left = seconds - (monotonic() - begun)
        if target == label:
            continue
        if left <= 0:
            return None
        row = np.zeros(program.size)
        row[program.last] = weight[label] - weight[target]
        matrix = sparse.vstack([A, sparse.csr_matrix(row[None]), sparse.csr_matrix(program.cost[None])])
        limits = np.concatenate([b, [bias[target] - bias[label]], [best]])
        answer = milp(
            program.cost,
            constraints=LinearConstraint(matrix, -np.inf, limits),  # type: ignore[arg-type]
            bounds=Bounds(program.low, program.high),  # type: ignore[arg-type]
            integrality=program.integer,
            options={"mip_rel_gap": 1e-9, "time_limit": left},
        )
        if answer.status == 2:
            continue  # nothing nearer than the best so far
        if answer.status != 0:
            return None
        best = min(best, float(answer.fun))
    return best
