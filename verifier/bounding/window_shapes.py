"""Where windows lie: the geometry behind `verifier.bounding.windows`.

The coefficients that one entry of a convolutional layer has on an earlier layer fill its receptive field and nothing
else: a window, whose place in the map is linear in the entry's own position.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from verifier.graph.ir import Graph, Node
from verifier.operators.table import OPERATORS
from verifier.specs.box import Box
from verifier.specs.region import Region

Pair = tuple[int, int]
WHOLE: Pair = (0, 0)  # the stride of windows that all lie at one place


@dataclass(frozen=True)
class Window:
    """Coefficients of N entries on one node, S rows each.

    Args:
        A: (N, S, h, w, C), contiguous.
        stride, offset: the window of an entry begins at ``stride * position + offset``, for positions (N, 2).
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
class Entries:
    """Which entries are bounded: batch element (N,), channel (N,) and position (N, 2) of each."""

    element: Tensor
    channel: Tensor
    position: Tensor


def entries_of(rows: Tensor, shape: tuple[int, ...]) -> Entries:
    """The entries `rows` (B, R) of a map (1, C, H, W), one batch element after the other."""
    batch, count = rows.shape
    height, width = shape[2:]
    entry = rows.reshape(-1)
    place = entry % (height * width)
    element = torch.arange(batch, device=rows.device).repeat_interleave(count)
    return Entries(element, entry // (height * width), torch.stack([place // width, place % width], 1))


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
            step, pads = a["stride"], a["padding"]
            reach = [d * (k - 1) for d, k in zip(a["dilation"], kernel, strict=True)]
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


def read(values: Tensor, window: Window, entries: Entries) -> Tensor:
    """Values (B, C, H, W) under the window of each entry, (N, h, w, C); zero outside the map."""
    corner, (height, width) = _corner(window, entries), window.extent
    above, below, left, right = _margins(corner, window.extent, values.shape)
    padded = F.pad(values, (left, right, above, below)).permute(0, 2, 3, 1).contiguous()
    batch, down, across, channels = padded.shape
    # channels last, a window is `height` runs of memory: each row of it is one, and they lie `across` pixels apart
    starts = batch * down * across - (height - 1) * across - (width - 1)
    windows = padded.as_strided((starts, height, width * channels), (channels, across * channels, 1))
    first = (entries.element * down + corner[:, 0] + above) * across + corner[:, 1] + left
    return windows[first].reshape(-1, height, width, channels)


def within(window: Window, entries: Entries, shape: tuple[int, ...]) -> Window:
    """Windows as large as the map become the map."""
    small = window.extent[0] < shape[2] or window.extent[1] < shape[3]
    return window if small and window.stride != WHOLE else _on_map(window, entries, shape)


def merged(x: Window, y: Window, entries: Entries, shape: tuple[int, ...]) -> Window:
    """The sum of two windows on one node."""
    if x.stride != y.stride:  # one of them has outgrown a map on its way
        x, y = _on_map(x, entries, shape), _on_map(y, entries, shape)
    offset = (min(x.offset[0], y.offset[0]), min(x.offset[1], y.offset[1]))
    end = tuple(max(z.offset[i] + z.extent[i] for z in (x, y)) for i in (0, 1))

    def grown(z: Window) -> Tensor:
        top, left = z.offset[0] - offset[0], z.offset[1] - offset[1]
        bottom, right = end[0] - z.offset[0] - z.extent[0], end[1] - z.offset[1] - z.extent[1]
        return F.pad(z.A, (0, 0, left, right, top, bottom))

    return Window(grown(x) + grown(y), x.stride, offset, x.inside and y.inside)


def _on_map(window: Window, entries: Entries, shape: tuple[int, ...]) -> Window:
    """The same coefficients at one place for all entries, with what lies outside the map cut off."""
    height, width = shape[2:]
    if window.stride == WHOLE:
        top, left = window.offset
        above, before = max(0, top), max(0, left)
        A = window.A[:, :, above - top : height - top, before - left : width - left]
        return Window(A.contiguous(), WHOLE, (above, before), True)
    corner = _corner(window, entries)
    above, below, left, right = _margins(corner, window.extent, shape)
    number, rows, _, _, channels = window.A.shape
    whole = window.A.new_zeros(number, above + height + below, left + width + right, rows, channels)
    which = torch.arange(number, device=whole.device)[:, None, None]
    down = torch.arange(window.extent[0], device=whole.device)[:, None] + (corner[:, 0] + above)[:, None, None]
    across = torch.arange(window.extent[1], device=whole.device) + (corner[:, 1] + left)[:, None, None]
    whole[which, down, across] = window.A.permute(0, 2, 3, 1, 4)
    cut = whole[:, above : above + height, left : left + width].permute(0, 3, 1, 2, 4)
    return Window(cut.contiguous(), WHOLE, (0, 0), True)


def _corner(window: Window, entries: Entries) -> Tensor:
    """First row and column (N, 2) of each window in the node's map."""
    stride, offset = (torch.tensor(pair, device=entries.position.device) for pair in (window.stride, window.offset))
    return entries.position * stride + offset


def _margins(corner: Tensor, extent: Pair, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """How far windows reach beyond the map: above, below, left, right."""
    first, last = corner.amin(0).tolist(), corner.amax(0).tolist()
    above, left = (max(0, -value) for value in first)
    below, right = (max(0, last[i] + extent[i] - shape[i - 2]) for i in (0, 1))
    return above, below, left, right
