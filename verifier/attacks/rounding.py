"""How far onnxruntime's values may lie from ours in float64 before rounding no longer explains it."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from verifier.graph.ir import Graph, Node
from verifier.operators import evaluate_all, place

_RELATIVE = 1e-5
_ROUNDINGS = 32.0
#: onnxruntime's float32 sigmoid and tanh are off by up to 8e-8, however small the value; this is five times as much
_OFF = 4e-7
_SATURATING = ("sigmoid", "tanh")
_RANDOM_SIGNS = 2


class Judgement(NamedTuple):
    """What came of the comparison of one tensor.

    Args:
        same: rounding explains the difference.
        error: the largest difference.
        allowed: the largest difference that rounding explains.
        overflow: the other value is infinite or NaN where ours is finite.
    """

    same: bool
    error: float
    allowed: float
    overflow: bool


def plainly_same(theirs: np.ndarray, ours: np.ndarray) -> bool:
    """Whether two values of one tensor agree up to ``1e-5 max |ours|``, for which no further evaluation is needed."""
    return bool(np.isfinite(theirs).all() and np.abs(theirs - ours).max() <= _RELATIVE * np.abs(ours).max())


class Comparison:
    """Values of every node at some points, and how far others may lie from them.

    With ``y`` our float64 values over all points of one tensor and ``y32`` our float32 values, a difference counts as
    rounding up to ``1e-5 max |y| + 32 max |y32 - y|``: the second term measures how much float32 loses in this very
    network, and a wrong operator does not enlarge it. Where that does not suffice and the network has sigmoid or tanh,
    a third term is added: how far the tensor moves when the value of each of these is off by 4e-7.

    Args:
        graph: as read.
        exact: the graph in float64 on the CPU.
        points: (P, *X) float64.
    """

    def __init__(self, graph: Graph, exact: Graph, points: torch.Tensor):
        self.exact, self.points = exact, points
        self.values = evaluate_all(exact, points)
        self._single = evaluate_all(place(graph, torch.float32), points.float())

    def judge(self, name: str, theirs: np.ndarray) -> Judgement:
        """Compare a node's values at the first points, one or more, with ours there."""
        y, y32 = (values[name].detach().numpy() for values in (self.values, self._single))
        there = y[: len(theirs)]
        with np.errstate(invalid="ignore"):  # inf - inf
            error = float(np.abs(theirs.reshape(there.shape) - there).max(initial=0))
            lost = np.abs(y32 - y)
        overflow = bool(np.isfinite(y).all() and not np.isfinite(theirs).all())
        lost = lost[np.isfinite(lost)]  # an overflow of ours measures nothing
        allowed = float(_RELATIVE * np.abs(y).max(initial=0) + _ROUNDINGS * lost.max(initial=0))
        if not overflow and error > allowed:
            allowed += self._moved[name]
        return Judgement(not overflow and error <= allowed, error, allowed, overflow)  # NaN has to be a difference

    @cached_property
    def _moved(self) -> dict[str, float]:
        """How far each node moves with the errors of sigmoid and tanh before it, over a few patterns of their signs."""
        moved = dict.fromkeys(self.values, 0.0)
        if not any(node.op in _SATURATING for node in self.exact.nodes):
            return moved
        generator = torch.Generator().manual_seed(0)
        for pattern in range(2 + _RANDOM_SIGNS):
            shaken = evaluate_all(_shaken(self.exact, pattern, generator), self.points)
            for name, y in self.values.items():
                moved[name] = max(moved[name], float((shaken[name] - y).abs().max()))
        return moved


def _shaken(graph: Graph, pattern: int, generator: torch.Generator) -> Graph:
    """The graph with every sigmoid and tanh off by +4e-7 (pattern 0), -4e-7 (pattern 1) or either, entry by entry."""

    def off(node: Node) -> tuple[Node, ...]:
        if node.op not in _SATURATING:
            return (node,)
        signs = torch.randint(2, graph.shapes[node.name], generator=generator) if pattern > 1 else torch.tensor(pattern)
        before = f"{node.name}/unshaken"
        constants = {"scale": torch.ones(()), "shift": _OFF * (1 - 2 * signs.double())}
        return replace(node, name=before), Node(node.name, "scale", (before,), constants=constants)

    nodes = tuple(part for node in graph.nodes for part in off(node))
    return replace(graph, nodes=nodes)
