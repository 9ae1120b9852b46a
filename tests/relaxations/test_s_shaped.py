"""Envelopes of s-shaped activations: sound on a grid, and the first tangent passes through the far end."""

from __future__ import annotations

import pytest
import torch

from verifier.graph.ir import Node
from verifier.operators.table import OPERATORS
from verifier.relaxations.envelope import Family
from verifier.specs.region import Box

BOXES = Box(
    torch.tensor([[-8.0, -3.0, -0.5, -1.0, -0.01, -20.0, 0.0, 1.0, -4.0, -1e-9]]).double(),
    torch.tensor([[8.0, 0.4, 3.0, 1.0, 5.0, 0.02, 2.0, 3.0, -1.0, 1e-9]]).double(),
)
#: what float64 rounds
SLACK = 1e-14


def _line(family: Family, weight: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    slope, intercept = family.line(weight)
    assert intercept is not None
    return slope[:, 0], intercept[:, 0]


@pytest.mark.parametrize("op", ["sigmoid", "tanh"])
@pytest.mark.parametrize("weight", [None, 0.0, 0.3, 1.0])
def test_every_line_holds_over_the_whole_interval(op: str, weight: float | None):
    operator, node = OPERATORS[op], Node("y", op, ("x",))
    envelope = operator.envelope(node, BOXES)  # type: ignore[misc]
    x = torch.lerp(BOXES.lower, BOXES.upper, torch.linspace(0, 1, 2001).double().unsqueeze(1))
    y = operator.forward(node, x)
    for family, sign in ((envelope.lower, 1), (envelope.upper, -1)):
        given = None if weight is None else torch.full_like(BOXES.lower, weight).unsqueeze(1)
        slope, intercept = _line(family, given)
        assert bool((sign * (y - slope * x - intercept) >= -SLACK).all())


@pytest.mark.parametrize("op", ["sigmoid", "tanh"])
def test_the_first_tangent_passes_through_the_far_end(op: str):
    operator, node = OPERATORS[op], Node("y", op, ("x",))
    lower = -torch.logspace(-2, 1, 40).double().unsqueeze(0)
    envelope = operator.envelope(node, Box(lower, -2 * lower))  # type: ignore[misc]
    weight = torch.zeros_like(lower).unsqueeze(1)
    slope, intercept = _line(envelope.upper, weight)
    gap = slope * lower + intercept - operator.forward(node, lower)
    assert bool((gap >= -SLACK).all() and (gap <= 1e-4 * slope * -lower).all())
    mirrored = operator.envelope(node, Box(2 * lower, -lower))  # type: ignore[misc]
    slope, intercept = _line(mirrored.lower, weight)
    gap = operator.forward(node, -lower) + slope * lower - intercept
    assert bool((gap >= -SLACK).all() and (gap <= 1e-4 * slope * -lower).all())
