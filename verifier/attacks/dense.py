"""Values and derivatives of a plain fully connected network, written down.

Such a network is so small that what automatic differentiation does around its products takes as long as these. The
numbers are the same. Axes: A inputs, Y outputs, ``*X`` the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from verifier.graph.ir import Graph


@dataclass(frozen=True)
class Dense:
    """Fully connected layers with a ReLU after each but the last.

    Args:
        layers: weight (outputs, inputs) and bias (outputs,) or None.
    """

    layers: tuple[tuple[Tensor, Tensor | None], ...]

    @staticmethod
    def of(graph: Graph) -> Dense | None:
        """A placed graph that is nothing but such layers and reshapes, else None."""
        layers: list[tuple[Tensor, Tensor | None]] = []
        last, linear = graph.input, False  # whether the last layer was a linear one
        for node in graph.nodes:
            if node.op == "input":
                continue
            if node.inputs != (last,):
                return None
            if node.op == "linear" and not linear and prod(graph.shapes[last][:-1]) == 1:
                layers.append((node.constants["weight"], node.constants.get("bias")))
                linear = True
            elif node.op == "relu" and linear and not bool(node.constants["slope"].any()):
                linear = False
            elif node.op != "reshape":
                return None
            last = node.name
        return Dense(tuple(layers)) if linear and last == graph.output else None

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Outputs (A, Y) of inputs x (A, *X), and those of the ReLUs."""
        active: list[Tensor] = []
        y = x.flatten(1)
        for number, (weight, bias) in enumerate(self.layers):
            if number > 0:
                y = F.relu(y)
                active.append(y)
            y = F.linear(y, weight, bias)
        return y, active

    def backward(self, slope: Tensor, active: list[Tensor]) -> Tensor:
        """Derivative (A, n) of ``<slope, y>`` by the flat inputs, for slopes (A, Y) and the ReLUs' outputs."""
        for number in reversed(range(len(self.layers))):
            slope = slope @ self.layers[number][0]
            if number > 0:
                slope = torch.ops.aten.threshold_backward(slope, active[number - 1], 0)
        return slope
