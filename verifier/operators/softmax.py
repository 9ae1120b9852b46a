"""Softmax and its logarithm: evaluated and enclosed, but without a linear bound rule.

They are accepted as a final layer only, where the property is carried over to the logits (see
`verifier.operators.tail`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.graph.ir import Node
from verifier.operators.registry import Operator
from verifier.specs.region import Box


def _log_softmax(node: Node, x: Tensor) -> Tensor:
    return torch.log_softmax(x, node.attributes["axis"] + 1)


def _log_softmax_interval(node: Node, box: Box) -> Box:
    """Entry i is least where z_i is least and all others are greatest."""
    axis = node.attributes["axis"] + 1
    return Box(_against_others(box.lower, box.upper, axis), _against_others(box.upper, box.lower, axis))


def _against_others(own: Tensor, others: Tensor, axis: int) -> Tensor:
    own, others = own.movedim(axis, -1), others.movedim(axis, -1)
    count = own.shape[-1]
    rows = others.unsqueeze(-2).expand(*others.shape[:-1], count, count)
    diagonal = torch.eye(count, dtype=torch.bool, device=own.device)
    mixed = torch.where(diagonal, own.unsqueeze(-1), rows)
    return (own - mixed.logsumexp(-1)).movedim(-1, axis)


def _softmax(node: Node, x: Tensor) -> Tensor:
    return torch.softmax(x, node.attributes["axis"] + 1)


def _softmax_interval(node: Node, box: Box) -> Box:
    logarithm = _log_softmax_interval(node, box)
    return Box(logarithm.lower.exp(), logarithm.upper.exp())


OPERATORS = (
    Operator("softmax", _softmax, _softmax_interval),
    Operator("log_softmax", _log_softmax, _log_softmax_interval),
)
