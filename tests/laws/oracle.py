"""Exact answers for small piecewise linear networks over a box, by linear and mixed-integer programming (HiGHS).

It shares nothing with the engine but the operators' forward functions: affine operators become matrices by
evaluation at unit vectors, and intervals for the integer program are propagated here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from verifier.graph.ir import Graph, Node
from verifier.operators import OPERATORS
from verifier.specs.region import Box


@dataclass
class Program:
    """Variables are the flat values of all nodes, then two for every neuron of an activation."""

    graph: Graph
    lower: np.ndarray
    upper: np.ndarray
    start: dict[str, int] = field(default_factory=dict)
    size: int = 0
    rows: list[tuple[dict[int, float], float, float]] = field(default_factory=list)

    def __post_init__(self):
        for name, shape in self.graph.shapes.items():
            self.start[name] = self.size
            self.size += prod(shape)

    def where(self, name: str) -> range:
        return range(self.start[name], self.start[name] + prod(self.graph.shapes[name]))


def affine(graph: Graph, node: Node) -> tuple[list[np.ndarray], np.ndarray]:
    """Matrices on each flat input and the constant vector of an affine node."""
    shapes = [graph.shapes[name] for name in node.inputs]
    zeros = [torch.zeros(1, *shape, dtype=torch.float64) for shape in shapes]
    forward = OPERATORS[node.op].forward
    constant = forward(node, *(zeros or [torch.zeros(1, 1, dtype=torch.float64)])).reshape(-1).numpy()
    matrices = []
    for i, shape in enumerate(shapes):
        units = torch.eye(prod(shape), dtype=torch.float64).reshape(-1, *shape)
        operands = [z.expand(len(units), *z.shape[1:]) for z in zeros]
        operands[i] = units
        matrices.append(forward(node, *operands).reshape(len(units), -1).numpy().T - constant[:, None])
    return matrices, constant


def _program(graph: Graph, box: Box) -> Program:
    """The input's bounds and an equation for every affine node."""
    program = Program(graph, box.lower.reshape(-1).numpy(), box.upper.reshape(-1).numpy())
    for variable, low, high in zip(program.where(graph.input), program.lower, program.upper, strict=True):
        program.rows.append(({variable: 1.0}, low, high))
    for node in graph.nodes[1:]:
        if OPERATORS[node.op].adjoint is None:
            continue
        matrices, constant = affine(graph, node)
        for i, out in enumerate(program.where(node.name)):
            row = {out: -1.0}
            for name, matrix in zip(node.inputs, matrices, strict=True):
                for j in np.flatnonzero(matrix[i]):
                    variable = program.start[name] + int(j)
                    row[variable] = row.get(variable, 0.0) + matrix[i, j]
            program.rows.append((row, -constant[i], -constant[i]))
    return program


def _slopes(graph: Graph, node: Node) -> np.ndarray:
    slope = node.constants["slope"].expand(graph.shapes[node.name])
    return slope.reshape(-1).numpy()


def _matrix(program: Program, width: int) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
    """All rows as ``lower <= A v <= upper``."""
    entries = [(i, j, value) for i, (row, _, _) in enumerate(program.rows) for j, value in row.items() if value]
    i, j, values = zip(*entries, strict=True)
    A = sparse.csr_matrix((values, (i, j)), shape=(len(program.rows), width))
    return A, np.array([r[1] for r in program.rows]), np.array([r[2] for r in program.rows])


def triangle_minimum(graph: Graph, box: Box, boxes: Mapping[str, Box], c: np.ndarray) -> float:
    """Least ``<c, output>`` over the triangle relaxations of all neurons on given boxes (of batch size 1)."""
    program = _program(graph, box)
    for node in graph.nodes:
        if node.op != "relu":
            continue
        source = boxes[node.inputs[0]]
        ends = zip(source.lower.reshape(-1).tolist(), source.upper.reshape(-1).tolist(), strict=True)
        triples = zip(program.where(node.inputs[0]), program.where(node.name), _slopes(graph, node), ends, strict=True)
        for x, z, slope, (low, high) in triples:
            if low >= 0 or high <= 0:
                program.rows.append(({z: 1.0, x: -1.0 if low >= 0 else -slope}, 0.0, 0.0))
                continue
            chord = (high - slope * low) / (high - low)
            sides = [({z: 1.0, x: -1.0}, 0.0), ({z: 1.0, x: -slope}, 0.0)]
            sign = 1.0 if slope <= 1 else -1.0  # convex, or concave
            for row, _ in sides:
                program.rows.append(({k: sign * v for k, v in row.items()}, 0.0, np.inf))
            flipped = {z: -sign, x: sign * chord}
            program.rows.append((flipped, -sign * high * (1 - chord), np.inf))
    A, low, high = _matrix(program, program.size)
    cost = np.zeros(program.size)
    cost[list(program.where(graph.output))] = c
    equal = low == high
    rows = np.concatenate([np.flatnonzero(~equal & np.isfinite(high)), np.flatnonzero(~equal & np.isfinite(low))])
    signs = np.repeat([1.0, -1.0], [np.count_nonzero(~equal & np.isfinite(end)) for end in (high, low)])
    limits = np.where(signs > 0, high[rows], -low[rows])
    sided = sparse.diags_array(signs) @ A[rows]
    answer = linprog(cost, sided, limits, A[equal], high[equal], bounds=(None, None), method="highs")
    assert answer.status == 0, answer.message
    return float(answer.fun)


def intervals(graph: Graph, box: Box) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Interval arithmetic of our own, flat: for the integer program's bounds."""
    found = {graph.input: (box.lower.reshape(-1).numpy(), box.upper.reshape(-1).numpy())}
    for node in graph.nodes[1:]:
        if node.op == "relu":
            low, high = found[node.inputs[0]]
            slope = _slopes(graph, node)
            ends = [np.maximum(v, 0) + slope * np.minimum(v, 0) for v in (low, high)]
            least = np.minimum(*ends)
            found[node.name] = (np.where((low < 0) & (high > 0), np.minimum(least, 0), least), np.maximum(*ends))
            continue
        matrices, constant = affine(graph, node)
        low, high = constant.copy(), constant.copy()
        for name, matrix in zip(node.inputs, matrices, strict=True):
            below, above = found[name]
            low += np.maximum(matrix, 0) @ below + np.minimum(matrix, 0) @ above
            high += np.maximum(matrix, 0) @ above + np.minimum(matrix, 0) @ below
        found[node.name] = (low, high)
    return found


def exact_minimum(graph: Graph, box: Box, c: np.ndarray) -> float:
    """Least ``<c, output>`` of the network itself: ``x = p - n``, ``z = p - slope n``, one of p, n zero by a binary."""
    program = _program(graph, box)
    known = intervals(graph, box)
    extra: list[tuple[float, bool]] = []  # upper bound, integer

    def new(limit: float, integer: bool = False) -> int:
        extra.append((limit, integer))
        return program.size + len(extra) - 1

    for node in graph.nodes:
        if node.op != "relu":
            continue
        below, above = known[node.inputs[0]]
        neurons = zip(program.where(node.inputs[0]), program.where(node.name), strict=True)
        for k, (x, z) in enumerate(neurons):
            up, down = max(above[k], 0.0), max(-below[k], 0.0)
            p, n, on = new(up), new(down), new(1.0, True)
            program.rows.append(({x: 1.0, p: -1.0, n: 1.0}, 0.0, 0.0))
            program.rows.append(({z: 1.0, p: -1.0, n: _slopes(graph, node)[k]}, 0.0, 0.0))
            program.rows.append(({p: 1.0, on: -up}, -np.inf, 0.0))
            program.rows.append(({n: 1.0, on: down}, -np.inf, down))
    width = program.size + len(extra)
    cost = np.zeros(width)
    cost[list(program.where(graph.output))] = c
    free = np.full(program.size, np.inf)
    least: Any = np.concatenate([-free, np.zeros(len(extra))])
    greatest: Any = np.concatenate([free, [e[0] for e in extra]])
    A, low, high = _matrix(program, width)
    answer = milp(
        cost,
        constraints=LinearConstraint(A, low, high),  # type: ignore[arg-type]
        bounds=Bounds(least, greatest),
        integrality=np.concatenate([np.zeros(program.size), [float(e[1]) for e in extra]]),
        options={"mip_rel_gap": 0.0},
    )
    assert answer.status == 0, answer.message
    return float(answer.fun)
