"""Pairs of ReLUs of opposite inputs become one.

``v relu(z) + w relu(-z)`` with ``w = -s v`` is ``v max(z, 0) + s v min(z, 0)``: one ReLU of slope s. Networks of ReLUs
alone write ``|a - b|`` and plain ``a + b`` in this way, and so the maximum of two values, ``(|a - b| + (a + b)) / 2``
(Ferlez and Shoukry 2020, "AReN"). Bounds take the two for unrelated, which costs them more than time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from verifier.graph.ir import Graph, Node
from verifier.graph.rewrites import rebuild, view_of


def merge_mirrored(graph: Graph, unused: Callable[[str], str]) -> Graph:
    """The same function with one ReLU for each pair between two linear layers.

    Args:
        unused: makes a name that no tensor has, from a wish; a layer that loses neurons takes such a name.
    """
    view, instead = view_of(graph), {}
    for node in graph.nodes:
        relu = view.producer(node, "relu") if node.op == "linear" else None
        first = None if relu is None else view.producer(relu, "linear")
        if relu is None or first is None or np.any(relu.constants["slope"]):
            continue
        first = instead.get(first.name, first)  # its columns can be fewer already
        pairs = _pairs(first, node)
        if pairs:
            for old, new in zip((first, relu, node), _merged(first, relu, node, pairs, unused), strict=True):
                instead[old.name] = new
    return rebuild(graph, tuple(instead.get(n.name, n) for n in graph.nodes), graph.output) if instead else graph


def _pairs(first: Node, last: Node) -> list[tuple[int, int, float]]:
    """Neurons between two layers that are one with a slope, the one to keep first: no neuron is in two pairs."""
    weight, outputs = first.constants["weight"], last.constants["weight"].T
    bias = first.constants.get("bias", np.zeros(len(weight)))
    free: dict[float, list[int]] = {}
    pairs = []
    for j, key in enumerate(_keys(weight, bias).tolist()):
        for i in free.get(key, ()):
            opposite = bias[i] == -bias[j] and np.array_equal(weight[i], -weight[j])
            pair = _pair(i, j, outputs) if opposite else None
            if pair is not None:
                free[key].remove(i)
                pairs.append(pair)
                break
        else:
            if key:  # not for neurons that are zero
                free.setdefault(key, []).append(j)
    return pairs


def _pair(i: int, j: int, outputs: np.ndarray) -> tuple[int, int, float] | None:
    """Two opposite neurons as the one to keep, the other and the slope, at most 1: steep ones blow up errors."""
    for one, other in ((i, j), (j, i)):
        slope = _slope(outputs[one], outputs[other])
        if slope is not None and abs(slope) <= 1:
            return one, other, slope
    return None


def _keys(weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """A number for every neuron, the same for opposite ones and hardly for any others."""
    direction = np.random.default_rng(0).normal(size=weight.shape[1] + 1)
    with np.errstate(all="ignore"):
        return np.abs(weight @ direction[1:] + bias * direction[0]).astype(np.float32)


def _slope(v: np.ndarray, w: np.ndarray) -> float | None:
    """The s with ``w == -s v``, without any rounding; None where there is none, or v is zero."""
    where = np.flatnonzero(v)[:1]
    slope = float(-w[where[0]] / v[where[0]]) if len(where) else np.nan
    return slope if np.isfinite(slope) and np.array_equal(w, -slope * v) else None


def _merged(
    first: Node, relu: Node, last: Node, pairs: list[tuple[int, int, float]], unused: Callable[[str], str]
) -> tuple[Node, Node, Node]:
    """The three nodes without the second neuron of each pair."""
    slope = np.zeros(len(first.constants["weight"]))
    for i, _, s in pairs:
        slope[i] = s
    kept = np.delete(np.arange(len(slope)), [j for _, j, _ in pairs])
    inner = replace(
        first, name=unused(f"{first.name}/merged"), constants={k: v[kept] for k, v in first.constants.items()}
    )
    middle = replace(relu, name=unused(f"{relu.name}/merged"), inputs=(inner.name,), constants={"slope": slope[kept]})
    weight = np.ascontiguousarray(last.constants["weight"][:, kept])
    return inner, middle, replace(last, inputs=(middle.name,), constants={**last.constants, "weight": weight})
