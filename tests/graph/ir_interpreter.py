"""A second, plain implementation of the graph's vocabulary in float64, which reading is tested against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from verifier.graph.ir import Graph, Node

Array = np.ndarray


def run(graph: Graph, x: Array) -> dict[str, Array]:
    """Value of every node of a graph, of the shape that the graph states, for one input of the graph's shape."""
    values: dict[str, Array] = {graph.input: np.asarray(x, np.float64)}
    for node in graph.nodes[1:]:
        values[node.name] = np.asarray(RULES[node.op](node, *(values[name] for name in node.inputs)))
    return values


def _linear(node: Node, x: Array) -> Array:
    return x @ node.constants["weight"].T + node.constants.get("bias", 0)


def _conv(transposed: bool) -> Callable[[Node, Array], Array]:
    def rule(node: Node, x: Array) -> Array:
        weight, bias = node.constants["weight"], node.constants.get("bias")
        a: dict[str, Any] = dict(node.attributes)
        name = f"conv{'_transpose' if transposed else ''}{weight.ndim - 2}d"
        extra = {"output_padding": a["output_padding"]} if transposed else {}
        y = getattr(F, name)(
            torch.tensor(x),
            torch.tensor(weight),
            None if bias is None else torch.tensor(bias),
            stride=a["stride"],
            padding=a["padding"],
            dilation=a["dilation"],
            groups=a["groups"],
            **extra,
        )
        return y.numpy()

    return rule


def _pad(node: Node, x: Array) -> Array:
    return np.pad(x, node.attributes["pads"], constant_values=node.attributes["value"])


def _maximum(node: Node, x: Array, y: Array, r: Array) -> Array:
    assert np.array_equal(r, np.maximum(x - y, 0)), f"the third input of {node.name} is not relu(x - y)"
    return np.maximum(x, y)


def _minimum(node: Node, x: Array, y: Array, r: Array) -> Array:
    assert np.array_equal(r, np.maximum(x - y, 0)), f"the third input of {node.name} is not relu(x - y)"
    return np.minimum(x, y)


def _log_softmax(node: Node, x: Array) -> Array:
    axis = node.attributes["axis"]
    x = x - x.max(axis=axis, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=axis, keepdims=True))


RULES: dict[str, Callable[..., Any]] = {
    "constant": lambda node: node.constants["value"],
    "linear": _linear,
    "conv": _conv(transposed=False),
    "conv_transpose": _conv(transposed=True),
    "scale": lambda node, x: x * node.constants["scale"] + node.constants["shift"],
    "expand": lambda node, x: np.broadcast_to(x, node.attributes["shape"]),
    "add": lambda node, x, y: x + y,
    "sub": lambda node, x, y: x - y,
    "reshape": lambda node, x: x.reshape(node.attributes["shape"]),
    "transpose": lambda node, x: x.transpose(node.attributes["perm"]),
    "concat": lambda node, *xs: np.concatenate(xs, node.attributes["axis"]),
    "take": lambda node, x: x.take(node.constants["indices"], node.attributes["axis"]),
    "pad": _pad,
    "sum": lambda node, x: x.sum(axis=tuple(node.attributes["axes"])),
    "relu": lambda node, x: np.maximum(x, 0) + node.constants["slope"] * np.minimum(x, 0),
    "maximum": _maximum,
    "minimum": _minimum,
    "clip": lambda node, x: np.clip(x, node.attributes["low"], node.attributes["high"]),
    "sigmoid": lambda node, x: 1 / (1 + np.exp(-x)),
    "tanh": lambda node, x: np.tanh(x),
    "softmax": lambda node, x: np.exp(_log_softmax(node, x)),
    "log_softmax": _log_softmax,
}
