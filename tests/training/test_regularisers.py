"""Regularisers by their formulas, and the initialisation by what it is for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.training.networks import batch
from verifier.graph.ir import Graph, Node
from verifier.specs.region import Box
from verifier.training.bounded import BoundedModule, ball
from verifier.training.regularisers import balance, initialise, tightness

WEIGHT = torch.eye(2)
GRAPH = Graph(
    (
        Node("x", "input"),
        Node("h", "linear", ("x",), {}, {"weight": WEIGHT}),
        Node("a", "relu", ("h",), {}, {"slope": torch.zeros(())}),
        Node("z", "linear", ("a",), {}, {"weight": WEIGHT}),
    ),
    "x",
    "z",
    dict.fromkeys("xhaz", (1, 2)),
)


def boxes(center: list[list[float]], radius: float) -> dict[str, Box]:
    """Inputs of half width 1, and the activation's input around some centres."""
    middle = torch.tensor(center).unsqueeze(1)
    one = torch.zeros_like(middle)
    return {"x": Box(one - 1, one + 1), "h": Box(middle - radius, middle + radius)}


@pytest.mark.parametrize(("radius", "expected"), [(1.0, 0.0), (2.0, 0.0), (4.0, 0.5), (1e9, 1.0)])
def test_tightness(radius: float, expected: float):
    assert float(tightness(GRAPH, boxes([[0.0, 0.0]], radius))) == pytest.approx(expected)


def test_balance_of_means_and_variances():
    # centres 8 and 4 are active, -2 and -2 inactive; per neuron the batch means are 3 and 1
    found = float(balance(GRAPH, boxes([[8.0, 4.0], [-2.0, -2.0]], 0.5)))
    mean = (2 + 2) / (8 + 4)
    variance = (25 + 9) / (25 + 9)
    assert found == pytest.approx(max(0.0, 0.5 - mean) / 0.5 + max(0.0, 0.5 - variance) / 0.5)


def test_balance_leaves_out_what_is_not_there():
    for center in ([[8.0, 4.0]], [[-8.0, -4.0]], [[0.0, 0.0]]):
        assert float(balance(GRAPH, boxes(center, 0.5))) == 0


def test_initialisation_keeps_the_width_of_boxes():
    widths = [128] * 6
    layers = [m for a, b in zip(widths, widths[1:], strict=False) for m in (nn.Linear(a, b, bias=False), nn.ReLU())]
    output = nn.Linear(128, 3)
    network = nn.Sequential(*layers, output)
    last = output.weight.detach().clone()
    initialise(network, torch.Generator().manual_seed(0))
    assert torch.equal(output.weight, last)
    drawn = torch.cat([m.weight.detach().flatten() for m in layers if isinstance(m, nn.Linear)])
    assert float(drawn.std()) == pytest.approx(math.sqrt(2 * math.pi) / 128, rel=0.02)
    live = BoundedModule(network, torch.rand(1, 128))
    x = batch((128,), 3)[0].float()
    boxes = live.ibp(ball(0.4 * x + 0.3, 0.1), torch.zeros(len(x), dtype=torch.int64)).boxes
    inputs = [boxes[node.inputs[0]] for node in live.graph().nodes if node.op == "relu"]
    width = [float((box.upper - box.lower).mean().detach()) for box in inputs]
    assert width[0] == pytest.approx(2 * 0.1 * 2, rel=0.05)  # E|w| = sqrt(2 / pi) * std makes a factor of 2
    assert all(0.5 < b / a < 1.5 for a, b in zip(width, width[1:], strict=False))  # of which ReLU halves the next


def test_the_same_seed_gives_the_same_weights():
    layers = [nn.Conv2d(1, 2, 3) for _ in range(2)]
    for layer in layers:
        initialise(nn.Sequential(layer, nn.Flatten(), nn.Linear(8, 2)), torch.Generator().manual_seed(4))
    assert torch.equal(layers[0].weight, layers[1].weight)
