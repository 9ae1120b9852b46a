"""The least value of an objective that can be found: an upper bound of the true minimum, to hold bounds against."""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.graph.ir import Graph
from verifier.operators import evaluate_all
from verifier.specs.region import Region


def values_at(graph: Graph, node: str, C: Tensor, x: Tensor) -> Tensor:
    """``<C, value of node>`` (R, B, S) at x (R, B, *X)."""
    y = evaluate_all(graph, x.flatten(0, 1))[node].unflatten(0, x.shape[:2])
    return (C * y.unsqueeze(2)).reshape(*y.shape[:2], C.shape[1], -1).sum(3)


def attacked_minimum(
    graph: Graph,
    region: Region,
    C: Tensor,
    generator: torch.Generator,
    node: str = "",
    count: int = 32,
    steps: int = 8,
) -> Tensor:
    """The least value (B, S) of each row over sampled points and what signed descent makes of them."""
    node = node or graph.output
    x = region.sample(count, generator)
    box = region.enclosing_box()
    best = values_at(graph, node, C, x).amin(0)
    for s in range(C.shape[1]):
        point = x
        for step in range(steps):
            point = point.detach().requires_grad_()
            value = values_at(graph, node, C[:, s : s + 1], point)
            best[:, s] = torch.minimum(best[:, s], value.detach().amin(0).squeeze(1))
            (grad,) = torch.autograd.grad(value.sum(), point, allow_unused=True)
            if grad is None:
                break
            point = region.project(point.detach() - grad.sign() * (box.upper - box.lower) / 2 ** (step + 1))
        last = values_at(graph, node, C[:, s : s + 1], point.detach())
        best[:, s] = torch.minimum(best[:, s], last.amin(0).squeeze(1))
    return best.detach()
