"""Affine forms: every node as an affine function of the inputs and of what activations add, pushed forward.

For a box with few free coordinates this costs about as many passes through the network as there are of these and of
unstable neurons, and knows what intervals forget: that neurons depend on the same inputs. A form is the zonotope of
DeepZ (Singh et al. 2018, NeurIPS, *Fast and Effective Robustness Certification*), with one interval per neuron for what
there is no room for (the hybrid zonotopes of Mirman et al. 2018, ICML). Axes: B batch, n symbols.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import pad

from verifier.bounding.interval import outward, rounded
from verifier.graph.ir import Graph, Node
from verifier.operators.table import OPERATORS
from verifier.relaxations.envelope import Envelope, Family, Line, Mixture
from verifier.specs.box import flat, magnitude, overlap
from verifier.specs.region import Box
from verifier.workers import Workers

#: affine operators whose intervals know more than that they are sums -> the sum, and which of their inputs it takes
SUMS = {"maximum": ("add", (1, 2)), "minimum": ("sub", (0, 2))}
#: share of a form's width that comes from activations, up to which nothing else would be tighter by more than it costs
LOOSE = 0.3
#: layers whose rounding together is no reason to look at an entry again
LAYERS = 16
#: symbols that go through an operator together
CHUNK = 64


@dataclass(frozen=True)
class Form:
    """The values ``centre + sum_j t_j generators_j + e noise`` for symbols t_j in [-1, 1], and e in [-1, 1].

    Args:
        centre, noise: (B, *X); noise at least 0.
        generators: (B, n, *X), of the first n symbols; the others are zero.
    """

    centre: Tensor
    generators: Tensor
    noise: Tensor

    def size(self) -> Tensor:
        """The largest absolute values, (B, *X)."""
        return self.centre.abs() + self._spread()

    def box(self) -> Box:
        """Enclosure, infinite where something overflowed."""
        spread = self._spread()
        lower, upper = self.centre - spread, self.centre + spread
        return Box(
            lower.nan_to_num(-torch.inf, torch.inf, -torch.inf), upper.nan_to_num(torch.inf, torch.inf, -torch.inf)
        )

    def _spread(self) -> Tensor:
        return self.generators.abs().sum(1) + self.noise

    def of_symbols(self, count: int) -> Form:
        """With exactly so many generators: zeros are added, or the last ones become noise."""
        given = self.generators.shape[1]
        if given == count:
            return self
        noise = self.noise + self.generators[:, count:].abs().sum(1) if count < given else self.noise
        none = (0, 0) * self.noise.dim()
        return Form(self.centre, pad(self.generators, (*none[2:], 0, count - given)), noise)


class AffineForms:
    """Forms of all nodes of a network over boxes: `push` takes one node after the other, in topological order.

    The first symbols are the free coordinates of the boxes; every activation adds one for each unstable neuron.

    Args:
        graph: placed, in float64: the allowance for rounding in float32 would drown the forms of deep networks.
        box: input set.
        memory: bytes that the generators of a node may take.
    """

    def __init__(self, graph: Graph, box: Box, memory: int):
        self.graph, self.memory, self.workers = graph, memory, Workers.on(box.lower.device)
        self._released = {node.name: names for node, names in zip(graph.nodes, graph.releases, strict=True)}
        centre, radius = (box.lower + box.upper) / 2, (box.upper - box.lower) / 2
        free = (flat(radius) > 0).any(0).nonzero()[:, 0]
        self.free = self.symbols = len(free)
        generators = flat(radius).new_zeros(len(radius), self.free, *radius.shape[1:])
        generators.view(len(radius), self.free, flat(radius).shape[1])[:, torch.arange(self.free), free] = flat(radius)[
            :, free
        ]
        self.forms = {graph.input: Form(centre, generators, rounded(centre.abs() + radius))}

    def push(self, node: Node, boxes: Mapping[str, Box], relaxed: Mapping[str, Envelope]) -> Box:
        """The box of a node: what its interval and its form have in common.

        Args:
            boxes: of the nodes before it.
            relaxed: envelope of the node, if it is an activation.
        """
        interval, operator = outward(node, boxes, self.graph.input), OPERATORS[node.op]
        if operator.envelope is not None:
            source = node.inputs[0]
            form = self._activation(self.forms[source], relaxed[node.name], boxes[source])
        elif operator.adjoint is not None and node.inputs:
            form = self._affine(node)
        else:
            form = _of_box(interval)
        self.forms[node.name] = form
        for name in self._released[node.name]:
            del self.forms[name]
        return overlap(interval, form.box())

    def loose(self, name: str) -> Tensor:
        """Entries (B, *X) of the node taken last whose form can be much wider than their values, for activations."""
        form = self.forms[name]
        lost = form.generators[:, self.free :].abs().sum(1) + form.noise
        little = LOOSE * (form.generators[:, : self.free].abs().sum(1) + lost)
        return ~(lost <= torch.maximum(little, LAYERS * rounded(form.size())))  # what overflowed is loose

    def _affine(self, node: Node) -> Form:
        """Generators go through the linear part, centre and noise as an interval that holds the rounding as well."""
        if node.op in SUMS:
            op, which = SUMS[node.op]
            node = replace(node, op=op, inputs=tuple(node.inputs[i] for i in which))
        operator, forms = OPERATORS[node.op], [self.forms[name] for name in node.inputs]
        shapes = [self.graph.shapes[name] for name in (node.name, *node.inputs)]
        room = self._room(max(prod(shape) for shape in shapes), forms[0].centre)
        count = min(room, max(form.generators.shape[1] for form in forms))
        forms = [form.of_symbols(count) for form in forms]
        noises = [form.noise + rounded(form.size()) for form in forms]
        ends = (Box(form.centre - noise, form.centre + noise) for form, noise in zip(forms, noises, strict=True))
        image = operator.interval(node, *ends)
        centre, noise = (image.lower + image.upper) / 2, (image.upper - image.lower) / 2
        offset = operator.forward(node, *(torch.zeros_like(form.centre[:1]) for form in forms))
        parts = list(zip(*(form.generators.flatten(0, 1).split(CHUNK) for form in forms), strict=True))
        moved = self.workers.map(lambda part: operator.forward(node, *part) - offset, parts)
        generators = torch.cat(moved) if moved else centre.new_zeros(0, *centre.shape[1:])
        rounding = rounded(centre.abs() + (1 + count) * offset.abs())
        return Form(centre, generators.reshape(len(centre), count, *centre.shape[1:]), noise + rounding)

    def _activation(self, form: Form, envelope: Envelope, box: Box) -> Form:
        """The activation as ``slope x`` and what its lines differ from that over the box of its input."""
        lower, upper = _line(envelope.lower, envelope.upper), _line(envelope.upper, envelope.lower)
        slope = (lower[0] + upper[0]) / 2
        low, high = torch.minimum(*_rests(lower, slope, box)), torch.maximum(*_rests(upper, slope, box))
        half = flat(high - low) / 2
        steeper = (upper[0] - lower[0]).abs() * magnitude(box)
        rounding = rounded(slope.abs() * form.size() + low.abs() + high.abs() + steeper)
        room = self._room(half.shape[1], half)
        most = half.topk(max(0, min(room - self.symbols, int((half > 0).sum(1).max()))))
        before, form = min(self.symbols, room), form.of_symbols(min(self.symbols, room))
        self.symbols += most.indices.shape[1]  # numbers are never given twice: other branches keep theirs
        generators = form.centre.new_zeros(len(half), before + most.indices.shape[1], *slope.shape[1:])
        torch.mul(slope.unsqueeze(1), form.generators, out=generators[:, :before])
        _put(generators[:, before:], most.indices, most.values)
        noise = slope.abs() * form.noise + half.scatter(1, most.indices, 0).reshape(slope.shape) + rounding
        return Form(slope * form.centre + (low + high) / 2, generators, noise)

    def _room(self, numbers: int, like: Tensor) -> int:
        """How many symbols a node of so many entries may have."""
        return self.memory // (len(like) * numbers * like.element_size())


def _of_box(box: Box) -> Form:
    """A box without anything known of what it depends on."""
    centre = (box.lower + box.upper) / 2
    noise = torch.maximum(box.upper - centre, centre - box.lower)
    return Form(centre, centre.new_zeros(len(centre), 0, *centre.shape[1:]), noise)


def _put(generators: Tensor, index: Tensor, value: Tensor) -> None:
    """Give each of some generators (B, n, *X) one entry `value` (B, n), at flat indices (B, n)."""
    rows = generators.view(*index.shape, prod(generators.shape[2:]))
    rows.scatter_(2, index.unsqueeze(2), value.unsqueeze(2))


def _line(family: Family, other: Family) -> Line:
    """A line (B, *X) of a family, parallel to the other's default line where it can be: so the two lie closest."""
    weight = None
    if isinstance(family, Mixture) and not isinstance(other, Mixture):
        wanted, span = other.line(None)[0].squeeze(1), family.slope_1 - family.slope_0
        share = (wanted - family.slope_0) / torch.where(span == 0, 1, span)
        weight = torch.where(span == 0, family.default, share.clamp(0, 1)).unsqueeze(1)
    slope, intercept = (None if part is None else part.squeeze(1) for part in family.line(weight))
    assert slope is not None
    return slope, torch.zeros_like(slope) if intercept is None else intercept


def _rests(line: Line, slope: Tensor, box: Box) -> tuple[Tensor, Tensor]:
    """``line(x) - slope x`` at both ends of a box."""
    steeper, intercept = line[0] - slope, 0 if line[1] is None else line[1]
    return steeper * box.lower + intercept, steeper * box.upper + intercept
