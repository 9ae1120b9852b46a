"""Measures of looseness: widths of boxes, areas between lines, volumes that cuts leave.

Axes: B batch, L lines of a family, P points on an axis, n neurons, G groups of k neurons, N samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.analysis.comparison import Layer, mean
from verifier.bounding.dual import Relaxation
from verifier.bounding.ladder import Bounds
from verifier.graph.ir import Graph, Node
from verifier.operators.table import OPERATORS
from verifier.relaxations.cuts import Cuts
from verifier.relaxations.envelope import Envelope, Family, Tangents
from verifier.specs.box import flat, flat_rows
from verifier.specs.region import Box

#: tangents that stand for the family of all of them; one more changes the area by less than a hundredth
_TANGENTS = 9
#: of the volumes: groups of a layer that are sampled, and points of each
_GROUPS, _SAMPLES = 64, 4096
_QUARTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def activations(graph: Graph) -> list[Node]:
    """Nodes with lines."""
    return [node for node in graph.nodes if node.op != "input" and OPERATORS[node.op].envelope is not None]


@torch.no_grad()
def layers(graph: Graph, found: Sequence[Bounds], intervals: Sequence[Bounds], seed: int = 0) -> tuple[Layer, ...]:
    """Looseness of every activation of a network.

    Args:
        graph: the network that was bounded.
        found: of each batch of properties, what a method found.
        intervals: the same of IBP.
        seed: of the volumes.
    """
    made, counts = [], {}
    for node in activations(graph):
        counts[node.op] = counts.get(node.op, 0) + 1
        source = node.inputs[0]
        ratios = [
            width_ratios(bounds.relaxation.boxes[source], interval.relaxation.boxes[source])
            for bounds, interval in zip(found, intervals, strict=True)
        ]
        share = torch.cat(ratios)
        areas = torch.cat([relaxation_areas(node, bounds).reshape(-1) for bounds in found])
        joint = mean([joint_volume(node, bounds.relaxation, seed) for bounds in found])
        quartiles = [_quantile(share, q) for q in _QUARTILES] if len(share) else None
        made.append(
            Layer(
                node.name,
                f"{node.op} {counts[node.op]}",
                flat(found[0].relaxation.boxes[source].lower).shape[1],
                float(share.mean()) if len(share) else None,
                None if quartiles is None else tuple(quartiles),
                float(areas.mean()),
                joint,
            )
        )
    return tuple(made)


def width_ratios(box: Box, interval: Box) -> Tensor:
    """Widths of the entries of a box by those of another (float64, flat), without those where the other has none."""
    width, whole = (flat(b.upper - b.lower).double().reshape(-1).cpu() for b in (box, interval))
    return width[whole > 0] / whole[whole > 0]


def relaxation_areas(node: Node, bounds: Bounds) -> Tensor:
    """Area (B, n) in the plane of input and output that the relaxation of each neuron leaves.

    Without lines it is the box of the intervals. A dual point that chooses weights ranges over all lines of a family,
    which leaves what lies between all of them (for ReLU the triangle); else the two lines of CROWN count.
    """
    relaxation = bounds.relaxation
    box = relaxation.boxes[node.inputs[0]]
    low, high = flat(box.lower).double(), flat(box.upper).double()
    envelope = relaxation.envelopes.get(node.name)
    if envelope is None:
        image = relaxation.boxes[node.name]
        return (high - low) * flat(image.upper - image.lower).double()
    chosen = any(weight is not None for weight in bounds.dual.weights.get(node.name, ()))
    return lines_area(Lines.of(envelope, box, whole=chosen), low, high)


@dataclass(frozen=True)
class Lines:
    """Lines of the neurons of an activation on either side, slopes and intercepts (B, L, n) in float64."""

    lower: tuple[Tensor, Tensor]
    upper: tuple[Tensor, Tensor]

    @staticmethod
    def of(envelope: Envelope, box: Box, whole: bool = True) -> Lines:
        """Those of the whole families, or the ones that CROWN takes."""
        return Lines(_lines(envelope.lower, box, whole), _lines(envelope.upper, box, whole))

    def at(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the lines leave at inputs (B, P, n): the least and the largest output."""
        low, high = (
            slope.unsqueeze(2) * x.unsqueeze(1) + icept.unsqueeze(2) for slope, icept in (self.lower, self.upper)
        )
        return low.amax(1), high.amin(1)

    def pick(self, index: Tensor) -> Lines:
        """The lines of neurons (G, k) of the batch's first element: B is G then."""
        lower, upper = (tuple(x[0][:, index].transpose(0, 1) for x in side) for side in (self.lower, self.upper))
        return Lines((lower[0], lower[1]), (upper[0], upper[1]))


def lines_area(lines: Lines, low: Tensor, high: Tensor) -> Tensor:
    """Area (B, n) between the lines over intervals (B, n): exact, since bends lie where neighbouring lines cross."""
    ends = [low.unsqueeze(1), high.unsqueeze(1)]
    for slope, icept in (lines.lower, lines.upper):
        across = (icept[:, :-1] - icept[:, 1:]) / (slope[:, 1:] - slope[:, :-1])
        bend = torch.where(across.isfinite(), across, ends[0])
        ends.append(torch.minimum(torch.maximum(bend, ends[0]), ends[1]))
    x = torch.cat([end.expand(-1, -1, low.shape[1]) for end in ends], 1).sort(1).values
    bottom, top = lines.at(x)
    return torch.trapezoid((top - bottom).clamp(min=0), x, dim=1)


def joint_volume(node: Node, relaxation: Relaxation, seed: int) -> float | None:
    """Share of the volume between the lines of the neurons of a group that the group's cuts leave, mean over groups.

    By Monte Carlo on groups spread evenly over those of the first property: inputs are drawn from the box, outputs
    between the lines, each point with the weight of the lengths between them.
    """
    cuts = relaxation.cuts.get(node.name)
    if not isinstance(cuts, Cuts):
        return None
    index = cuts.index if cuts.index.dim() == 2 else cuts.index[0]
    chosen = torch.linspace(0, len(index) - 1, min(_GROUPS, len(index))).round().long().unique()
    index = index[chosen.to(index.device)]
    P, R, p = (x[0][chosen.to(x.device)].double() for x in (cuts.P, cuts.R, cuts.p))
    box = relaxation.boxes[node.inputs[0]]
    low, high = (flat(x)[0].double()[index].unsqueeze(1) for x in (box.lower, box.upper))
    draw = torch.rand(2, len(index), _SAMPLES, index.shape[1], generator=torch.Generator().manual_seed(seed))
    draw = draw.double().to(low.device)
    x = low + (high - low) * draw[0]
    bottom, top = Lines.of(relaxation.envelopes[node.name], box).pick(index).at(x)
    z = bottom + (top - bottom) * draw[1]
    inside = (z @ P.transpose(1, 2) + x @ R.transpose(1, 2) <= p.unsqueeze(1)).all(2)
    weight = (top - bottom).clamp(min=0).prod(2)
    whole = weight.sum(1)
    share = (weight * inside).sum(1)[whole > 0] / whole[whole > 0]
    return float(share.mean()) if len(share) else None


def _lines(family: Family, box: Box, whole: bool) -> tuple[Tensor, Tensor]:
    weights = None
    if whole and family.default is not None:
        count = _TANGENTS if isinstance(family, Tangents) else 2
        spread = torch.linspace(0, 1, count, dtype=box.lower.dtype, device=box.lower.device)
        weights = spread.reshape(1, -1, *[1] * (box.lower.dim() - 1)).expand(len(box.lower), -1, *box.lower.shape[1:])
    slope, icept = family.line(weights)
    slope = flat_rows(slope).double()
    return slope, torch.zeros_like(slope) if icept is None else flat_rows(icept).double().expand_as(slope)


def _quantile(values: Tensor, share: float) -> float:
    """`torch.quantile` refuses more than 16 million values."""
    return float(values.sort().values[round(share * (len(values) - 1))])
