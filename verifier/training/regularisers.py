"""Regularisers and initialisation that make short warm-up schedules possible (Shi et al. 2021, arXiv 2103.17268)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from verifier.bounding.intermediate import MIXING
from verifier.graph.ir import Graph
from verifier.specs.region import Box

#: ratios beyond this are good enough
TOLERANCE = 0.5


def tightness(graph: Graph, boxes: Mapping[str, Box]) -> Tensor:
    """How much wider the inputs of activations are than what enters the first layer: (), 0 where at most twice."""
    first = next(node for node in graph.nodes if node.op in MIXING)
    start = _radius(boxes[first.inputs[0]]).mean()
    terms = [
        (TOLERANCE - start / _radius(box).mean()).clamp(min=0) / TOLERANCE for box in _preactivations(graph, boxes)
    ]
    return torch.stack(terms).mean() if terms else start.new_zeros(())


def balance(graph: Graph, boxes: Mapping[str, Box]) -> Tensor:
    """How unlike active and inactive neurons are in mean and variance: (), 0 where neither ratio is beyond two."""
    terms = []
    for box in _preactivations(graph, boxes):
        center = (box.lower + box.upper) / 2
        active, inactive = box.lower > 0, box.upper < 0
        spread = (center - center.mean(0)).square()
        mean = _unlike((center * active).mean(), -(center * inactive).mean())
        variance = _unlike((spread * active).sum(), (spread * inactive).sum())
        terms.append(mean + variance)
    return torch.stack(terms).mean() if terms else next(iter(boxes.values())).lower.new_zeros(())


def _unlike(one: Tensor, other: Tensor) -> Tensor:
    """0 for positive numbers whose ratio is at most two, up to 1 for others; 0 as well where one is not there."""
    there = (one > 0) & (other > 0)
    one, other = torch.where(there, one, 1.0), torch.where(there, other, 1.0)
    return (TOLERANCE - torch.minimum(one / other, other / one)).clamp(min=0) / TOLERANCE


def _preactivations(graph: Graph, boxes: Mapping[str, Box]) -> list[Box]:
    return [boxes[node.inputs[0]] for node in graph.nodes if node.op == "relu"]


def _radius(box: Box) -> Tensor:
    return (box.upper - box.lower) / 2


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Weights of all layers but the last from N(0, sqrt(2 pi) / fan_in): boxes then keep their width.

    Args:
        module: its linear and convolutional layers are changed in place.
        generator: on the CPU.
    """
    layers = [m for m in module.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)]
    for layer in layers[:-1]:
        fan_in = layer.weight[0].numel()
        drawn = torch.randn(layer.weight.shape, generator=generator) * (math.sqrt(2 * math.pi) / fan_in)
        with torch.no_grad():
            layer.weight.copy_(drawn)
