"""The last step of the dual function over a box: through the network's first layer, and the minimum.

The coefficients on an image are many, and only the sum of their absolute values is wanted. So the product with the
first layer and the minimum over the box are made together, for a few elements of the batch at a time, which stay in
the processor's cache; and so is the gradient, since the minimiser is at hand there.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from verifier.graph.ir import Graph, Node
from verifier.operators.table import OPERATORS
from verifier.specs.box import Box, flat, flat_rows, pair

#: memory that coefficients on the input take at a time
CACHE_BYTES = 1 << 22
#: outputs of a layer are picked out where fewer than this share of them matter: picking takes time as well
MOST_USED = 0.8
#: operators that mix entries; the first of them ends the first layer
_MIXING = {"linear", "conv"}


def first_layer(graph: Graph) -> tuple[Node, ...]:
    """The nodes from the input's only consumer to the first that mixes entries; none where they are no chain."""
    consumers = Counter(name for node in graph.nodes for name in node.inputs)
    chain: list[Node] = []
    last = graph.input
    for node in graph.nodes[1:]:
        if consumers[last] != 1 or node.inputs != (last,) or OPERATORS[node.op].adjoint is None:
            break
        chain.append(node)
        if node.op in _MIXING:
            return tuple(chain)
        last = node.name
    return ()


def minimum_through(
    graph: Graph, chain: tuple[Node, ...], box: Box, A: Tensor, movable: Tensor | None = None
) -> Tensor:
    """``min <A, y>`` over the values y of the last node of a chain of affine nodes from a box: (B, S).

    Args:
        chain: nodes as of `first_layer`, at least one.
        box: the input's box.
        A: (B, S, *Y) coefficients; either batch may be 1.
        movable: bool (B, *Y), entries whose coefficients can be other than zero at some dual point; None for all.
    """
    middle = _forward(chain, (box.lower + box.upper) / 2)
    nearest = pair(flat_rows(A), flat(middle))
    # what is left is the minimum of the linear part over the box around zero
    nothing = _forward(chain, torch.zeros_like(box.lower[:1]))
    return nearest - _Reach.apply(A, graph, chain, (box.upper - box.lower) / 2, nothing, movable)


def _forward(chain: tuple[Node, ...], x: Tensor) -> Tensor:
    for node in chain:
        x = OPERATORS[node.op].forward(node, x)
    return x


class _Reach(torch.autograd.Function):
    """``max <A, y - y(0)>`` over the values of a chain from the box ``|x| <= radius``, (B, S)."""

    @staticmethod
    def forward(
        ctx: Any,
        A: Tensor,
        graph: Graph,
        chain: tuple[Node, ...],
        radius: Tensor,
        nothing: Tensor,
        movable: Tensor | None,
    ) -> Tensor:
        batch, size = max(A.shape[0], radius.shape[0]), _group(A, radius)
        ctx.wanted = ctx.needs_input_grad[0]
        values, points = [], []
        for start in range(0, batch, size):
            rows, reach = (x if x.shape[0] == 1 else x[start : start + size] for x in (A, radius))
            kept = movable if movable is None or movable.shape[0] == 1 else movable[start : start + size]
            used = None if kept is None else _used(chain[-1], kept)
            short = chain if used is None else (*chain[:-1], _rows_of(chain[-1], used))
            on_input = _linear_part(graph, short, rows if used is None else rows[..., used])
            if not ctx.wanted:
                values.append(torch.linalg.vecdot(flat_rows(on_input.abs_()), flat(reach).unsqueeze(1)))
                continue
            point = torch.copysign(reach.unsqueeze(1), on_input)
            values.append(torch.linalg.vecdot(flat_rows(on_input), flat_rows(point)))
            moved = _forward(short, point.flatten(0, 1)) - (nothing if used is None else nothing[..., used])
            moved = moved.reshape(*point.shape[:2], *moved.shape[1:])
            points.append(moved if used is None else _spread(moved, used, nothing.shape[-1]))
        if ctx.wanted:
            ctx.shared = A.shape[0] == 1 < batch
            ctx.save_for_backward(torch.cat(points))
        return torch.cat(values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor):  # type: ignore[override]
        (points,) = ctx.saved_tensors
        grad_A = points * grad.reshape(*grad.shape, *(1,) * (points.dim() - 2))
        return grad_A.sum(0, keepdim=True) if ctx.shared else grad_A, None, None, None, None, None


def _used(last: Node, movable: Tensor) -> Tensor | None:
    """Indices of the outputs of a fully connected layer that matter to some element; None where most of them do.

    Inactive neurons, which often are most of a layer, take no part in the products then.
    """
    if last.op != "linear":
        return None
    matters = movable.flatten(0, -2).any(0)
    used = matters.nonzero().squeeze(1)
    return used if len(used) < MOST_USED * len(matters) else None


def _rows_of(node: Node, used: Tensor) -> Node:
    """A fully connected layer with some of its outputs."""
    return replace(node, constants={name: value[used] for name, value in node.constants.items()})


def _spread(values: Tensor, used: Tensor, size: int) -> Tensor:
    """Values (..., k) at some of the places of (..., size), zeros elsewhere."""
    return values.new_zeros(*values.shape[:-1], size).index_copy_(-1, used, values)


def _group(A: Tensor, radius: Tensor) -> int:
    """How many elements of the batch are taken together."""
    bytes_of_one = A.shape[1] * radius[0].numel() * A.element_size()
    return max(1, CACHE_BYTES // bytes_of_one) if A.device.type == "cpu" else max(len(A), len(radius))


def _linear_part(graph: Graph, chain: tuple[Node, ...], A: Tensor) -> Tensor:
    """Coefficients on the input, without the constants on the way; a tensor of its own, since the chain mixes."""
    for node in reversed(chain):
        adjoint = OPERATORS[node.op].adjoint
        assert adjoint is not None
        (part,), _ = adjoint(node, A, tuple(graph.shapes[name] for name in node.inputs))
        assert part is not None
        A = part
    return A
