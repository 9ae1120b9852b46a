"""CROWN's backward pass through windows: for entries of convolutional layers, whose coefficients are mostly zero.

The coefficients that one entry has on an earlier layer fill its receptive field and nothing else. So they are kept as a
small window for each row, with the place where it lies, instead of a whole map. The window of row n covers the
rectangle that begins at ``stride * position[n] + offset``; convolutions enlarge it, activations read lines under it.

This is an evaluation of the dual function at CROWN's point, equal to `verifier.bounding.dual` up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from verifier.bounding.dual import Relaxation
from verifier.graph.ir import Graph, Node
from verifier.operators.table import OPERATORS
from verifier.specs.box import Box
from verifier.specs.region import Region

Pair = tuple[int, int]
WHOLE: Pair = (0, 0)  # the stride of windows that all lie at one place


@dataclass(frozen=True)
class Window:
    """Coefficients of N rows on one node.

    Args:
        A: (N, C, h, w).
        stride, offset: where the windows begin, for rows at ``position`` (N, 2).
        inside: no coefficient lies outside the node's map.
    """

    A: Tensor
    stride: Pair
    offset: Pair
    inside: bool

    @property
    def extent(self) -> Pair:
        return self.A.shape[2], self.A.shape[3]


@dataclass(frozen=True)
class Rows:
    """Which entries are bounded: batch element (N,), channel (N,), position (N, 2), and sign (N,) of each row."""

    element: Tensor
    channel: Tensor
    position: Tensor
    sign: Tensor


def largest_window(graph: Graph, region: Region, name: str) -> int | None:
    """Numbers in the largest window of a row of node `name`; None where windows do not apply.

    They apply to two-dimensional convolutions, elementwise operators and residual sums over a box, where all
    paths to a node have the same stride.
    """
    if not isinstance(region, Box):
        return None
    strides: dict[str, Pair] = {name: (1, 1)}
    spans: dict[str, tuple[Pair, Pair]] = {name: ((0, 0), (1, 1))}  # begin and end of the window at position (0, 0)
    largest = 1
    for node in reversed(graph.nodes):
        if node.name not in strides:
            continue
        shape = graph.shapes[node.name]
        if len(shape) != 4 or shape[0] != 1 or not _applies(node, shape):
            return None
        stride, (begin, end) = strides[node.name], spans[node.name]
        if node.op == "conv":
            a, kernel = node.attributes, node.constants["weight"].shape[2:]
            step, pads, reach = (
                a["stride"],
                a["padding"],
                [d * (k - 1) for d, k in zip(a["dilation"], kernel, strict=True)],
            )
            stride = (stride[0] * step[0], stride[1] * step[1])
            begin = (begin[0] * step[0] - pads[0], begin[1] * step[1] - pads[1])
            last = ((end[0] - 1) * step[0] - pads[0] + reach[0], (end[1] - 1) * step[1] - pads[1] + reach[1])
            end = (last[0] + 1, last[1] + 1)
        for source in node.inputs:
            if strides.setdefault(source, stride) != stride:
                return None
            (top, left), (bottom, right) = spans.get(source, (begin, end))
            top, left = min(top, begin[0]), min(left, begin[1])
            bottom, right = max(bottom, end[0]), max(right, end[1])
            spans[source] = ((top, left), (bottom, right))
            shape = graph.shapes[source]
            if len(shape) == 4:
                largest = max(largest, shape[1] * min(bottom - top, shape[2]) * min(right - left, shape[3]))
    whole = max(prod(graph.shapes[node]) for node in strides)
    return largest if largest < whole else None


def _applies(node: Node, shape: tuple[int, ...]) -> bool:
    if node.op == "scale":  # one number for each channel, or one for all
        return all(_per_channel(node.constants[key], shape) for key in ("scale", "shift"))
    if node.op == "conv":
        return node.constants["weight"].dim() == 4
    return node.op in ("input", "add", "sub") or OPERATORS[node.op].envelope is not None


def _per_channel(constant: Tensor, shape: tuple[int, ...]) -> bool:
    return constant.numel() == 1 or (constant.dim() >= 3 and constant.numel() == constant.shape[-3] == shape[1])


def window_bounds(graph: Graph, region: Box, relaxation: Relaxation, name: str, rows: Tensor) -> Tensor:
    """Lower bounds (B, 2R) of the entries `rows` (B, R) of a node and of their negatives, at CROWN's dual point."""
    batch, count = rows.shape
    height, width = graph.shapes[name][2:]
    entry = torch.cat([rows, rows], 1).reshape(-1)
    place = entry % (height * width)
    which = Rows(
        element=torch.arange(batch, device=rows.device).repeat_interleave(2 * count),
        channel=entry // (height * width),
        position=torch.stack([place // width, place % width], 1),
        sign=torch.ones(batch, 2, count, dtype=region.lower.dtype, device=rows.device)
        .mul_(torch.tensor([1.0, -1.0], device=rows.device).reshape(1, 2, 1))
        .reshape(-1),
    )
    return _push(graph, region, relaxation, name, which).reshape(batch, 2 * count)


def _push(graph: Graph, region: Box, relaxation: Relaxation, name: str, rows: Rows) -> Tensor:
    """Bounds (N,) of the rows."""
    start = torch.zeros(len(rows.sign), graph.shapes[name][1], 1, 1, dtype=rows.sign.dtype, device=rows.sign.device)
    start.scatter_(1, rows.channel.reshape(-1, 1, 1, 1), rows.sign.reshape(-1, 1, 1, 1))
    start = start.to(memory_format=torch.channels_last)  # as the maps are read
    pending: dict[str, Window] = {name: Window(start, (1, 1), (0, 0), True)}
    total = torch.zeros_like(rows.sign)
    for node in reversed(graph.nodes):
        window = pending.pop(node.name, None)
        if window is None:
            continue
        window = _within(window, rows, graph.shapes[node.name])
        if node.op == "input":
            return total + _at_input(window, rows, region)
        if OPERATORS[node.op].envelope is not None:
            window, constant = _through_lines(window, rows, relaxation, node)
            parts: Mapping[str, Window] = {node.inputs[0]: window}
        else:
            window = window if window.inside else _masked(window, rows, graph.shapes[node.name])
            parts, constant = _through_affine(window, node)
        total = total + constant
        for source, part in parts.items():
            shape = graph.shapes[source]
            pending[source] = _merged(pending[source], part, rows, shape) if source in pending else part
    return total


def _through_lines(window: Window, rows: Rows, relaxation: Relaxation, node: Node) -> tuple[Window, Tensor]:
    """An activation, as in `verifier.bounding.relax`; where the window leaves the map it reads zeros."""
    envelope = relaxation.envelopes[node.name]
    (slope_l, icept_l), (slope_u, icept_u) = envelope.lower.line(None), envelope.upper.line(None)

    def under(line: Tensor) -> Tensor:
        shape = relaxation.boxes[node.inputs[0]].lower.shape
        return _read(line.squeeze(1).expand(shape).squeeze(1), window, rows)

    A, low, high = window.A, under(slope_l), under(slope_u)
    negative = A.clamp(max=0)
    total = torch.zeros_like(rows.sign)
    if icept_u is not None:
        total = total + _inner(negative, under(icept_u))
    if icept_l is not None:
        total = total + _inner(A.clamp(min=0), under(icept_l))
    return Window((A * low).addcmul_(negative, high - low), window.stride, window.offset, True), total


def _through_affine(window: Window, node: Node) -> tuple[Mapping[str, Window], Tensor]:
    A = window.A
    nothing = A.new_zeros(len(A))
    if node.op == "conv":
        weight, bias, a = node.constants["weight"], node.constants.get("bias"), node.attributes
        weight = weight.to(memory_format=torch.channels_last)
        parts = F.conv_transpose2d(A, weight, None, a["stride"], 0, 0, a["groups"], a["dilation"])
        stride, pads = a["stride"], a["padding"]
        offset = (window.offset[0] * stride[0] - pads[0], window.offset[1] * stride[1] - pads[1])
        grown = Window(parts, (window.stride[0] * stride[0], window.stride[1] * stride[1]), offset, False)
        return {node.inputs[0]: grown}, nothing if bias is None else A.sum((2, 3)) @ bias
    if node.op == "scale":
        scale, shift = (node.constants[key].reshape(1, -1, 1, 1) for key in ("scale", "shift"))
        scaled = Window(A * scale, window.stride, window.offset, window.inside)
        return {node.inputs[0]: scaled}, (A * shift).sum((1, 2, 3))
    sign = 1 if node.op == "add" else -1
    left, right = node.inputs
    other = Window(sign * A, window.stride, window.offset, window.inside)
    both = Window(A + other.A, window.stride, window.offset, window.inside)
    return {left: both} if left == right else {left: window, right: other}, nothing


def _at_input(window: Window, rows: Rows, region: Box) -> Tensor:
    lower, upper = region.lower.squeeze(1), region.upper.squeeze(1)
    nearest = _inner(window.A, _read((lower + upper) / 2, window, rows))
    return nearest - _inner(window.A.abs(), _read((upper - lower) / 2, window, rows))


def _inner(x: Tensor, y: Tensor) -> Tensor:
    flat = (z.permute(0, 2, 3, 1).flatten(1) for z in (x, y))
    return torch.linalg.vecdot(*flat)


def _corner(window: Window, rows: Rows) -> Tensor:
    """First row and column (N, 2) of each window in the node's map."""
    stride, offset = (torch.tensor(pair, device=rows.position.device) for pair in (window.stride, window.offset))
    return rows.position * stride + offset


def _margins(corner: Tensor, extent: Pair, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """How far windows reach beyond the map: above, below, left, right."""
    first, last = corner.amin(0).tolist(), corner.amax(0).tolist()
    above, left = (max(0, -value) for value in first)
    below, right = (max(0, last[i] + extent[i] - shape[i - 2]) for i in (0, 1))
    return above, below, left, right


def _read(values: Tensor, window: Window, rows: Rows) -> Tensor:
    """Values (B, C, H, W) under each window, (N, C, h, w); zero outside the map."""
    corner, (height, width) = _corner(window, rows), window.extent
    above, below, left, right = _margins(corner, window.extent, values.shape)
    padded = F.pad(values, (left, right, above, below)).permute(0, 2, 3, 1).contiguous()
    batch, down, across, channels = padded.shape
    # channels last, a window is `height` runs of memory: each row of it is one, and they lie `across` pixels apart
    starts = batch * down * across - (height - 1) * across - (width - 1)
    windows = padded.as_strided((starts, height, width * channels), (channels, across * channels, 1))
    first = (rows.element * down + corner[:, 0] + above) * across + corner[:, 1] + left
    return windows[first].reshape(-1, height, width, channels).permute(0, 3, 1, 2)


def _masked(window: Window, rows: Rows, shape: tuple[int, ...]) -> Window:
    """The window without coefficients on entries that do not exist."""
    one = window.A.new_ones(1, 1, *shape[2:])
    everywhere = Rows(torch.zeros_like(rows.element), rows.channel, rows.position, rows.sign)
    return Window(window.A * _read(one, window, everywhere), window.stride, window.offset, True)


def _within(window: Window, rows: Rows, shape: tuple[int, ...]) -> Window:
    """Windows as large as the map become the map."""
    small = window.extent[0] < shape[2] or window.extent[1] < shape[3]
    return window if small and window.stride != WHOLE else _on_map(window, rows, shape)


def _on_map(window: Window, rows: Rows, shape: tuple[int, ...]) -> Window:
    """The same coefficients at one place for all rows, with what lies outside the map cut off."""
    height, width = shape[2:]
    if window.stride == WHOLE:
        top, left = window.offset
        above, before = max(0, top), max(0, left)
        A = window.A[:, :, above - top : height - top, before - left : width - left]
        return Window(A, WHOLE, (above, before), True)
    corner = _corner(window, rows)
    above, below, left, right = _margins(corner, window.extent, shape)
    whole = window.A.new_zeros(len(window.A), above + height + below, left + width + right, window.A.shape[1])
    number = torch.arange(len(whole), device=whole.device)[:, None, None]
    down = torch.arange(window.extent[0], device=whole.device)[:, None] + (corner[:, 0] + above)[:, None, None]
    across = torch.arange(window.extent[1], device=whole.device) + (corner[:, 1] + left)[:, None, None]
    whole[number, down, across] = window.A.permute(0, 2, 3, 1)
    cut = whole.permute(0, 3, 1, 2)[:, :, above : above + height, left : left + width]
    return Window(cut, WHOLE, (0, 0), True)


def _merged(x: Window, y: Window, rows: Rows, shape: tuple[int, ...]) -> Window:
    """The sum of two windows on one node."""
    if x.stride != y.stride:  # one of them has outgrown a map on its way
        x, y = _on_map(x, rows, shape), _on_map(y, rows, shape)
    offset = (min(x.offset[0], y.offset[0]), min(x.offset[1], y.offset[1]))
    end = tuple(max(z.offset[i] + z.extent[i] for z in (x, y)) for i in (0, 1))

    def grown(z: Window) -> Tensor:
        top, left = z.offset[0] - offset[0], z.offset[1] - offset[1]
        bottom, right = end[0] - z.offset[0] - z.extent[0], end[1] - z.offset[1] - z.extent[1]
        return F.pad(z.A, (left, right, top, bottom))

    return Window(grown(x) + grown(y), x.stride, offset, x.inside and y.inside)
