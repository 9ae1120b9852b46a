"""Activations: what is not affine, entry by entry."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from verifier.graph.ir import Node
from verifier.operators.registry import Operator
from verifier.relaxations import piecewise
from verifier.relaxations.envelope import Envelope
from verifier.relaxations.pieces import s_shaped_pieces
from verifier.relaxations.s_shaped import s_shaped
from verifier.specs.region import Box


def _relu(node: Node, x: Tensor) -> Tensor:
    slope = node.constants["slope"]
    return F.relu(x) if _plain(slope) else x.clamp(min=0) + slope * x.clamp(max=0)


def _plain(slope: Tensor) -> bool:
    """Whether a slope is zero, asked only where the answer does not wait for a device."""
    return slope.device.type == "cpu" and not bool(slope.any())


def _relu_interval(node: Node, box: Box) -> Box:
    slope = node.constants["slope"]
    one, other = _relu(node, box.lower), _relu(node, box.upper)
    if _plain(slope):
        return Box(one, other)
    lower, upper = torch.minimum(one, other), torch.maximum(one, other)
    if bool((slope >= 0).all()):
        return Box(lower, upper)
    # a negative slope makes a valley: zero is the least value wherever the interval holds it
    valley = (slope < 0) & (box.lower < 0) & (box.upper > 0)
    return Box(torch.where(valley, torch.zeros_like(lower), lower), upper)


def _relu_envelope(node: Node, box: Box) -> Envelope:
    return piecewise.two_piece(box, node.constants["slope"])


def _relu_splits(node: Node, box: Box) -> Tensor:
    slope = node.constants["slope"]
    unstable = (box.lower < 0) & (box.upper > 0)
    return unstable if _plain(slope) else unstable & (slope != 1)


def _clip(node: Node, x: Tensor) -> Tensor:
    return x.clamp(node.attributes["low"], node.attributes["high"])


def _clip_envelope(node: Node, box: Box) -> Envelope:
    return piecewise.clip(box, node.attributes["low"], node.attributes["high"])


def _clip_splits(node: Node, box: Box) -> Tensor:
    low, high = node.attributes["low"], node.attributes["high"]
    return ((box.lower < low) & (box.upper > low)) | ((box.lower < high) & (box.upper > high))


def _sigmoid_with_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    value = torch.sigmoid(x)
    return value, value * torch.sigmoid(-x)  # 1 - value would lose all digits for large x


def _sigmoid_at_slope(slope: Tensor) -> Tensor:
    """Where right of zero v (1 - v) is the slope, for the value v."""
    value = (1 + (1 - 4 * slope).clamp(min=0).sqrt()) / 2
    return (value * value / slope).log()


def _tanh_with_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    value, half = torch.tanh(x), torch.sigmoid(2 * x)
    return value, 4 * half * torch.sigmoid(-2 * x)


def _tanh_at_slope(slope: Tensor) -> Tensor:
    """Where right of zero 1 - v * v is the slope, for the value v."""
    return ((1 + (1 - slope).clamp(min=0).sqrt()) / slope.sqrt()).log()


def _rising(function: type(torch.sigmoid)):  # type: ignore[valid-type]
    def interval(node: Node, box: Box) -> Box:
        return Box(function(box.lower), function(box.upper))

    return interval


def _always(node: Node, box: Box) -> Tensor:
    return box.upper > box.lower


OPERATORS = (
    Operator("relu", _relu, _relu_interval, envelope=_relu_envelope, splits=_relu_splits, kinks=lambda node: (0.0,)),
    Operator(
        "clip",
        _clip,
        lambda node, box: Box(_clip(node, box.lower), _clip(node, box.upper)),
        envelope=_clip_envelope,
        splits=_clip_splits,
        kinks=lambda node: (node.attributes["low"], node.attributes["high"]),
    ),
    Operator(
        "sigmoid",
        lambda node, x: torch.sigmoid(x),
        _rising(torch.sigmoid),
        envelope=lambda node, box: s_shaped(box, _sigmoid_with_slope, _sigmoid_at_slope),
        splits=_always,
        pieces=lambda node, box: s_shaped_pieces(box, _sigmoid_with_slope),
    ),
    Operator(
        "tanh",
        lambda node, x: torch.tanh(x),
        _rising(torch.tanh),
        envelope=lambda node, box: s_shaped(box, _tanh_with_slope, _tanh_at_slope),
        splits=_always,
        pieces=lambda node, box: s_shaped_pieces(box, _tanh_with_slope),
    ),
)
