"""How large the numbers are that an operator adds up: the scale of its rounding errors.

A sum of n terms computed in floating point is off by at most ``n * eps`` times the sum of the absolute terms. The
examples add up at most 50 terms, so `UNITS` roundings of that scale are never exceeded by rounding, and an error of
any other origin is larger by orders of magnitude.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from verifier.graph.ir import Graph, Node
from verifier.operators import OPERATORS

UNITS = 64


def magnitudes(graph: Graph, size: Tensor) -> dict[str, Tensor]:
    """Scale of every node's terms (B, *X) for inputs of absolute value up to `size`."""
    sizes = {graph.input: size}
    for node in graph.nodes[1:]:
        sizes[node.name] = _magnitude(node, *([sizes[name] for name in node.inputs] or [size]))
    return sizes


def _magnitude(node: Node, *sizes: Tensor) -> Tensor:
    if node.op in ("softmax", "log_softmax"):
        return torch.full_like(sizes[0], 4 + 2 * float(sizes[0].amax()))
    if node.op in ("sigmoid", "tanh"):
        return torch.ones_like(sizes[0])
    if node.op in ("add", "sub", "maximum", "minimum"):
        return torch.stack(sizes).sum(0)
    if node.op == "relu":
        return sizes[0] * node.constants["slope"].abs().clamp(min=1)
    if node.op == "clip":
        return sizes[0]
    constants = {k: v.abs() if v.is_floating_point() else v for k, v in node.constants.items()}
    return OPERATORS[node.op].forward(replace(node, constants=constants), *sizes).abs()


def tolerance(dtype: torch.dtype) -> float:
    return UNITS * torch.finfo(dtype).eps
