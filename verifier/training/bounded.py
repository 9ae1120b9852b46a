"""A module together with bounds of its outputs, both by its live parameters.

There is no arithmetic of bounds here: boxes come from `interval_boxes`, margins from `lower_bound`, the functions that
verification uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from verifier.bounding.dual import Objective, Relaxation, lower_bound
from verifier.bounding.intermediate import interval_only, relax_network
from verifier.bounding.interval import interval_boxes
from verifier.errors import InputError
from verifier.graph.ir import Graph
from verifier.operators import evaluate
from verifier.specs.region import Box
from verifier.training.batch_norm import Moments, Recording, running_moments
from verifier.training.modes import evaluating
from verifier.training.switching import signs
from verifier.training.trace import trace

#: up to so many classes the differences of all pairs of logits are bounded
FEW_CLASSES = 20


@dataclass(frozen=True)
class Margins:
    """Lower bounds of ``z_y - z_k``, and the boxes that they rest on.

    Args:
        lower: (B, K-1), the other classes k in their order.
        boxes: of every node of the graph, (B, *X).
    """

    lower: Tensor
    boxes: Mapping[str, Box]


class BoundedModule:
    """A network of logits and its graph, whose constants are the module's parameters.

    Batch normalisation: in training mode its statistics are those of the last batch that went through `clean`, for
    bounds and for attacked inputs as well, where it is an affine layer with these; gradients flow through them. In
    evaluation mode they are the running statistics, which `clean` updates in training mode as torch does.

    Args:
        module: (B, *X) -> logits (B, K). Normalisation of pixels, if any, is its first layer.
        example: one input (1, *X).

    Raises:
        InputError: the module cannot be traced, has unsupported layers (all are named), or its graph computes
            something else.
    """

    def __init__(self, module: nn.Module, example: Tensor) -> None:
        self.module = module
        self._trace = trace(module, example)
        output = self._trace.shapes[self._trace.output]
        if len(output) != 2 or output[0] != 1 or output[1] < 2:
            where = type(module).__name__
            raise InputError(where, f"one input gives an array of shape {output}", "return one logit for each class")
        self.classes = output[1]
        self._moments: dict[_BatchNorm, Moments] = {}
        self._rows: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        self._recorder = self._trace.traced  # the same module, but that batch normalisation notes its moments
        for name, layer in module.named_modules():
            if isinstance(layer, _BatchNorm):
                self._recorder.set_submodule(name, Recording(layer, self._moments))
        self._check(example)

    def clean(self, x: Tensor) -> Tensor:
        """Logits (B, K) of inputs (B, *X); in training mode this pass sets the statistics of batch normalisation."""
        return self._recorder(channels_last(x))

    def graph(self) -> Graph:
        """The graph of the parameters, and statistics, of this moment."""
        return self._trace.graph(self._statistics)

    def logits(self, x: Tensor, graph: Graph | None = None) -> Tensor:
        """Logits (B, K) of other inputs than the clean ones (attacked): statistics stay as they are."""
        return evaluate(graph or self.graph(), x.unsqueeze(1)).squeeze(1)

    def ibp_margins(self, x: Tensor, y: Tensor, epsilon: float | Tensor) -> Tensor:
        """Lower bounds (B, K-1) of ``z_y - z_k`` over ``[x - epsilon, x + epsilon]`` cut with [0, 1], by intervals.

        The last layer is merged with the rows (Gowal et al. 2018, section 3).

        Args:
            x: (B, *X) in [0, 1].
            y: (B,) int64 labels.
            epsilon: of all, or (B,), in units of x.
        """
        return self.ibp(ball(x, epsilon), y).lower

    def crown_ibp_margins(self, x: Tensor, y: Tensor, epsilon: float | Tensor) -> Tensor:
        """The same by one backward pass over interval boxes (Zhang et al. 2019, arXiv 1906.06316)."""
        return self.crown_ibp(ball(x, epsilon), y).lower

    def ibp(self, box: Box, y: Tensor, graph: Graph | None = None) -> Margins:
        """Margins by intervals over a box (B, *X)."""
        graph, region = graph or self.graph(), _lifted(box)
        boxes = interval_boxes(graph, region)
        return Margins(self._interval_margins(graph, region, boxes, y, 1), boxes)

    def ibp_signed(self, box: Box, y: Tensor, graph: Graph | None = None) -> tuple[Tensor, Margins]:
        """Lower bounds (B, K) of ``z_y`` and of every ``-z_k`` over a box by intervals, and interval margins."""
        graph, region = graph or self.graph(), _lifted(box)
        margins = self.ibp(box, y, graph)
        rows = torch.diag_embed(signs(y, self.classes).to(box.lower)).unsqueeze(2)  # (B, K, 1, K)
        return lower_bound(graph, region, Relaxation(margins.boxes, {}), Objective(graph.output, rows)), margins

    def crown_ibp(self, box: Box, y: Tensor, graph: Graph | None = None) -> Margins:
        """Margins by one backward pass over interval boxes."""
        graph, region = graph or self.graph(), _lifted(box)
        relaxation = relax_network(graph, region, interval_only)
        lower = lower_bound(graph, region, relaxation, self._objective(graph, y, region))
        return Margins(lower, relaxation.boxes)

    def fused_crown_ibp(self, box: Box, y: Tensor, graph: Graph | None = None) -> tuple[Tensor, Margins]:
        """Upper bound (B,) of the cross entropy over a box by one backward pass for one row, and interval margins.

        Loss fusion (Xu et al. 2020, arXiv 2002.12920): with d_k = z_k - z_y between l_k and u_k by intervals, exp(d_k)
        lies below its chord, so the sum of all in ``log(1 + sum_k exp(d_k))`` lies below one linear function of the
        logits. It costs a pass for one row where `crown_ibp` has K-1, and is looser where the intervals are wide.
        """
        graph, region = graph or self.graph(), _lifted(box)
        relaxation = relax_network(graph, region, interval_only)
        rows = self._objective(graph, y, region)
        low, other = (self._interval_margins(graph, region, relaxation.boxes, y, sign) for sign in (1, -1))
        high = -other
        largest = (-low).amax(1, keepdim=True).clamp(min=0)  # numbers relative to exp of this
        slope, shift = _exponential_chord(-high - largest, -low - largest)
        fused = Objective(rows.node, (slope.unsqueeze(1) @ rows.C.squeeze(2)).unsqueeze(2))
        total = shift.sum(1) - lower_bound(graph, region, relaxation, fused).squeeze(1)
        total = torch.minimum(total + (slope * largest).sum(1).neg(), (-low - largest).exp().sum(1))
        return largest.squeeze(1) + torch.log(torch.exp(-largest.squeeze(1)) + total), Margins(low, relaxation.boxes)

    def margins_of(self, logits: Tensor, y: Tensor) -> Tensor:
        """``z_y - z_k`` (B, K-1) of logits (B, K)."""
        return (self._margin_rows(logits)[y] @ logits.unsqueeze(2)).squeeze(2)

    def _margin_rows(self, like: Tensor) -> Tensor:
        key = (like.device, like.dtype)
        if key not in self._rows:
            self._rows[key] = margin_rows(self.classes).to(*key)
        return self._rows[key]

    def _objective(self, graph: Graph, y: Tensor, box: Box) -> Objective:
        """Rows ``z_y - z_k`` on the logits, (B, K-1, 1, K)."""
        return Objective(graph.output, self._margin_rows(box.lower)[y].unsqueeze(2))

    def _interval_margins(self, graph: Graph, region: Box, boxes: Mapping[str, Box], y: Tensor, sign: int) -> Tensor:
        """Lower bounds (B, K-1) of ``sign * (z_y - z_k)`` by intervals.

        Rows that all samples share are bounded by products of matrices, so with few classes it takes less time to bound
        the differences of all pairs, and to pick, than those of each sample's label by rows of its own.
        """
        intervals = Relaxation(boxes, {})
        if self.classes > FEW_CLASSES:
            rows = self._objective(graph, y, region)
            return lower_bound(graph, region, intervals, replace(rows, C=sign * rows.C))
        rows = sign * self._margin_rows(region.lower).reshape(1, -1, 1, self.classes)
        pairs = lower_bound(graph, region, intervals, Objective(graph.output, rows))
        chosen = y.reshape(-1, 1, 1).expand(-1, 1, self.classes - 1)
        return pairs.reshape(len(pairs), self.classes, -1).gather(1, chosen).squeeze(1)

    def _statistics(self, layer: _BatchNorm) -> Moments:
        if not layer.training:
            return running_moments(layer)
        if layer not in self._moments:
            raise ValueError("in training mode, `clean` has to see the batch before its bounds are taken")
        return self._moments[layer]

    def _check(self, example: Tensor) -> None:
        """The graph computes what the module does."""
        with evaluating(self.module), torch.no_grad():
            ours, theirs = self.logits(example), self.module(example)
        if not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * (1 + float(theirs.abs().max()))):
            error = float((ours - theirs).abs().max())
            where = type(self.module).__name__
            raise InputError(where, f"its graph differs from it by {error:.3g}", "this is a mistake of ours: report it")


def ball(x: Tensor, epsilon: float | Tensor) -> Box:
    """``[x - epsilon, x + epsilon]`` cut with [0, 1], (B, *X); epsilon of all, or (B,)."""
    radius, x = per_sample(epsilon, x), channels_last(x)
    return Box((x - radius).clamp_(min=0), (x + radius).clamp_(max=1))


def part_around(box: Box, point: Tensor, half: Tensor) -> Box:
    """A smaller box in a box (B, *X) around a point: of half width `half`, or of the whole one's where that is less.

    Its middle is the point, or what lies next to it so that no side leaves the whole box.

    Args:
        point: (B, *X).
        half: broadcastable to (B, *X).
    """
    half = torch.minimum((box.upper - box.lower) / 2, half)
    middle = torch.minimum(torch.maximum(point, box.lower + half), box.upper - half)
    return Box(torch.maximum(middle - half, box.lower), torch.minimum(middle + half, box.upper))


def channels_last(x: Tensor) -> Tensor:
    """Images (B, C, H, W) with their channels together in memory, which layers keep: convolutions like it."""
    if x.dim() != 4 or x.stride(1) == 1:  # torch takes a single channel for both layouts, and goes on in the other
        return x
    return torch.empty_like(x, memory_format=torch.channels_last).copy_(x)


def per_sample(epsilon: float | Tensor, x: Tensor) -> Tensor:
    """A number, or one for each sample (B,), to be added to inputs (B, *X)."""
    tensor = torch.as_tensor(epsilon, dtype=x.dtype, device=x.device)
    return tensor.reshape(-1, *(1,) * (x.dim() - 1))


def margin_rows(classes: int) -> Tensor:
    """For every label y the rows ``e_y - e_k`` of the other classes: (K, K-1, K)."""
    unit = torch.eye(classes)
    others = torch.arange(classes - 1).unsqueeze(0).expand(classes, -1)
    others = others + (others >= torch.arange(classes).unsqueeze(1))
    return unit.unsqueeze(1) - unit[others]


def _exponential_chord(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and value at 0 of the chord of exp between low and high."""
    width = high - low
    there = width > 0
    safe = torch.where(there, width, 1.0)
    slope = high.exp() * torch.where(there, -torch.expm1(-safe) / safe, 1.0)
    return slope, high.exp() - slope * high


def cross_entropy(margins: Tensor) -> Tensor:
    """Cross entropy (B,) of logits that have these margins (B, K-1): ``log(1 + sum_k exp(-m_k))``."""
    return torch.logsumexp(F.pad(-margins, (1, 0)), 1)


def _lifted(box: Box) -> Box:
    """A box of inputs as the graph has them, with the batch axis of one that it was traced with."""
    return Box(box.lower.unsqueeze(1), box.upper.unsqueeze(1))
