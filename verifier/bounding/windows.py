"""The dual function through windows: for entries of convolutional layers, whose coefficients are mostly zero.

Instead of whole maps, the backward pass keeps for each entry the window of its receptive field
(`verifier.bounding.window_shapes`): convolutions enlarge it, activations read their lines under it. The values are
those of `verifier.bounding.dual` up to rounding; the weights of a dual point lie under the windows as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import torch
from torch import Tensor

from verifier.bounding.dual import DualPoint, Relaxation
from verifier.bounding.relax import relax
from verifier.bounding.window_shapes import Window, entries_of, merged, read, within
from verifier.graph.ir import Graph, Node
from verifier.operators.convolution import transposed
from verifier.operators.table import OPERATORS
from verifier.relaxations.envelope import Envelope, Family, Line
from verifier.specs.region import Box

#: a convolution of a small window is one dense product while that takes at most this many times the multiplications;
#: on a CPU a product runs that much faster than a transposed convolution with few channels
DENSE_FACTOR = 8


class WindowRows:
    """Entries of a node, each with its negative, as the rows of an objective; evaluated through windows.

    What does not depend on the dual point (numbers under the windows, matrices of small convolutions) is gathered
    once, since an ascent evaluates the same rows many times.

    Args:
        graph, region, relaxation: as in `verifier.bounding.dual.lower_bound`.
        name: the node, to which `largest_window` applies.
        rows: (B, R) entries of it.
    """

    def __init__(self, graph: Graph, region: Box, relaxation: Relaxation, name: str, rows: Tensor):
        self._graph, self._region, self._relaxation, self._name = graph, region, relaxation, name
        self._shape, self._entries = rows.shape, entries_of(rows, graph.shapes[name])
        self._matrices: dict[str, Tensor] = {}
        self._read_before: dict[tuple[str, str], Tensor] = {}

    def bounds(self, dual: DualPoint) -> Tensor:
        """Lower bounds (N, 2) of the entries and of their negatives, sound for every dual point.

        Args:
            dual: weights (N, 2, h, w, C) as of `start`; where it has none, CROWN's.
        """

        def lines(window: Window, node: Node) -> tuple[Line, Line]:
            weights = dual.weights.get(node.name)
            if weights is None:
                return self._fixed_lines(window, node)
            envelope = self._envelope(window, node)
            return envelope.lower.line(weights[0]), envelope.upper.line(weights[1])

        return self._push(lines)

    def start(self) -> DualPoint:
        """CROWN's weights under the windows, (N, 2, h, w, C): where an ascent begins."""
        weights: dict[str, tuple[Tensor | None, Tensor | None]] = {}

        def lines(window: Window, node: Node) -> tuple[Line, Line]:
            envelope = self._envelope(window, node)
            low, high = (
                None if x.default is None else x.default.unsqueeze(1).repeat(1, 2, 1, 1, 1)
                for x in (envelope.lower, envelope.upper)
            )
            if low is not None or high is not None:
                weights[node.name] = low, high
            return envelope.lower.line(low), envelope.upper.line(high)

        with torch.no_grad():
            self._push(lines)
        return DualPoint(weights)

    def as_rows(self, bounds: Tensor) -> Tensor:
        """Bounds (N, 2) as (B, 2R): of the entries, and after them of their negatives."""
        batch, count = self._shape
        return bounds.reshape(batch, count, 2).transpose(1, 2).reshape(batch, 2 * count)

    def _push(self, lines: Callable[[Window, Node], tuple[Line, Line]]) -> Tensor:
        """The backward pass (see `verifier.bounding.dual.linear_bound`) and the minimum over the box, (N, 2)."""
        shapes = self._graph.shapes
        pending = {self._name: self._unit()}
        total = pending[self._name].A.new_zeros(self._shape.numel(), 2)
        for node in reversed(self._graph.nodes):
            window = pending.pop(node.name, None)
            if window is None:
                continue
            window = within(window, self._entries, shapes[node.name])
            if node.op == "input":  # where a window leaves the map it reads intervals of zeros
                return total + self._at_input(window, node)
            window = self._masked(window, node)
            if OPERATORS[node.op].envelope is not None:
                A, constant = relax(window.A, *lines(window, node))
                parts = {node.inputs[0]: replace(window, A=A)}
            else:
                affine = self._through_convolution if node.op == "conv" else _through_elementwise
                parts, constant = affine(window, node)
            total = total if constant is None else total + constant
            for source, part in parts.items():
                known = pending.get(source)
                pending[source] = part if known is None else merged(known, part, self._entries, shapes[source])
        return total

    def _unit(self) -> Window:
        """Coefficients of the entries and of their negatives on the node itself."""
        box, channel = self._relaxation.boxes[self._name].lower, self._entries.channel
        A = box.new_zeros(len(channel), 2, 1, 1, self._graph.shapes[self._name][1])
        which = torch.arange(len(channel), device=box.device)
        A[which, 0, 0, 0, channel] = 1.0
        A[which, 1, 0, 0, channel] = -1.0
        return Window(A, (1, 1), (0, 0), True)

    def _fixed_lines(self, window: Window, node: Node) -> tuple[Line, Line]:
        """CROWN's lines under the windows, (N, 1, h, w, C)."""
        envelope, names = self._relaxation.envelopes[node.name], iter("abcd")

        def under(line: Line) -> Line:
            slope, intercept = (None if x is None else self._under(x, window, node, next(names)) for x in line)
            assert slope is not None
            return slope.unsqueeze(1), None if intercept is None else intercept.unsqueeze(1)

        return under(envelope.lower.line(None)), under(envelope.upper.line(None))

    def _envelope(self, window: Window, node: Node) -> Envelope:
        """An activation's envelope under the windows: families of N elements (h, w, C)."""

        def under(family: Family, side: str) -> Family:
            tensors = {f.name: getattr(family, f.name) for f in fields(family)}  # type: ignore[arg-type]
            tensors = {name: x for name, x in tensors.items() if isinstance(x, Tensor)}
            read_here = {name: self._under(x, window, node, f"{side} {name}") for name, x in tensors.items()}
            return replace(family, **read_here)  # type: ignore[type-var]

        envelope = self._relaxation.envelopes[node.name]
        return Envelope(under(envelope.lower, "lower"), under(envelope.upper, "upper"))

    def _under(self, values: Tensor, window: Window, node: Node, what: str) -> Tensor:
        """Numbers (B, ..., C, H, W) of a node's entries (or of less, broadcast) under the windows, (N, h, w, C)."""
        if (node.name, what) not in self._read_before:
            maps = values.reshape(-1, *values.shape[-3:])
            maps = maps.expand(self._shape[0], -1, *self._graph.shapes[node.name][2:])
            self._read_before[node.name, what] = read(maps, window, self._entries)
        return self._read_before[node.name, what]

    def _masked(self, window: Window, node: Node) -> Window:
        """The window without coefficients on entries that do not exist."""
        if window.inside:
            return window
        exists = self._under(window.A.new_ones(1, 1, 1, 1), window, node, "exists")
        return replace(window, A=window.A * exists.unsqueeze(1), inside=True)

    def _through_convolution(self, window: Window, node: Node) -> tuple[dict[str, Window], Tensor | None]:
        weight, a, extent = node.constants["weight"], node.attributes, window.extent
        stride, pads = a["stride"], a["padding"]
        reach = [dilation * (k - 1) for dilation, k in zip(a["dilation"], weight.shape[2:], strict=True)]
        grown = [(n - 1) * step + r + 1 for n, step, r in zip(extent, stride, reach, strict=True)]
        if grown[0] * grown[1] * a["groups"] <= DENSE_FACTOR * weight[0, 0].numel():
            A = window.A.flatten(2) @ self._matrix(node, *extent)
        else:
            maps = window.A.flatten(0, 1).permute(0, 3, 1, 2)
            A = transposed(maps, node, (0, 0), (0, 0)).permute(0, 2, 3, 1)
        A = A.reshape(*window.A.shape[:2], *grown, -1)
        offset = (window.offset[0] * stride[0] - pads[0], window.offset[1] * stride[1] - pads[1])
        bias = node.constants.get("bias")
        constant = None if bias is None else window.A.sum((2, 3)) @ bias
        far = Window(A, (window.stride[0] * stride[0], window.stride[1] * stride[1]), offset, False)
        return {node.inputs[0]: far}, constant

    def _matrix(self, node: Node, height: int, width: int) -> Tensor:
        """The transposed convolution of a window as a matrix (h * w * C, h' * w' * C')."""
        if node.name not in self._matrices:
            weight = node.constants["weight"]
            size = height * width * len(weight)
            unit = torch.eye(size, dtype=weight.dtype, device=weight.device).reshape(size, height, width, len(weight))
            maps = transposed(unit.permute(0, 3, 1, 2), node, (0, 0), (0, 0))
            self._matrices[node.name] = maps.permute(0, 2, 3, 1).reshape(size, -1)
        return self._matrices[node.name]

    def _at_input(self, window: Window, node: Node) -> Tensor:
        """The minimum over the box."""
        lower, upper = self._region.lower, self._region.upper
        centre = self._under((lower + upper) / 2, window, node, "centre").flatten(1).unsqueeze(1)
        radius = self._under((upper - lower) / 2, window, node, "radius").flatten(1).unsqueeze(1)
        A = window.A.flatten(2)
        return torch.linalg.vecdot(A, centre) - torch.linalg.vecdot(A.abs(), radius)


def _through_elementwise(window: Window, node: Node) -> tuple[dict[str, Window], Tensor | None]:
    """A scale, a sum or a difference."""
    if node.op == "scale":
        scale, shift = (node.constants[key].reshape(-1) for key in ("scale", "shift"))
        return {node.inputs[0]: replace(window, A=window.A * scale)}, (window.A * shift).sum((2, 3, 4))
    left, right = node.inputs
    other = window if node.op == "add" else replace(window, A=-window.A)
    if left == right:
        return {left: replace(window, A=window.A + other.A)}, None
    return {left: window, right: other}, None
