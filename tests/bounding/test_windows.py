"""Windows are another way to evaluate the dual function: the values must be those of the dense way."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.bounding.convolutional import convolutional
from verifier.bounding.ascent import AscentOptions
from verifier.bounding.dual import DualPoint, WindowPoint, linear_bound, lower_bound
from verifier.bounding.intermediate import IntermediateOptions, by_dual, interval_only, relax_network, unit_rows
from verifier.bounding.window_shapes import Entries, Window, largest_window
from verifier.bounding.windows import WindowRows
from verifier.graph.ir import Graph, Node
from verifier.operators import evaluate_all, place
from verifier.specs.box import Box


def _convolution(name: str, source: str, channels: tuple[int, int], **attributes) -> Node:
    groups = attributes.get("groups", 1)
    weight = torch.randn(channels[1], channels[0] // groups, *attributes.pop("kernel"), dtype=torch.float64)
    shape = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1} | attributes
    bias = torch.randn(channels[1], dtype=torch.float64)
    return Node(name, "conv", (source,), shape, {"weight": weight.numpy(), "bias": bias.numpy()})


def _relu(name: str, source: str) -> Node:
    return Node(name, "relu", (source,), constants={"slope": torch.zeros((), dtype=torch.float64).numpy()})


def _residual(stride: int, groups: int) -> Graph:
    """Two convolutions without an activation between them, a residual sum, a scale per channel, uneven extents."""
    torch.manual_seed(stride + groups)
    side, half = (9, 11), ((9 - 1) // stride + 1, (11 - 1) // stride + 1)
    scale = {"scale": torch.randn(4, 1, 1).double().numpy(), "shift": torch.randn(4, 1, 1).double().numpy()}
    nodes = (
        Node("x", "input"),
        _convolution("c0", "x", (2, 4), kernel=(3, 3)),
        _convolution("c1", "c0", (4, 4), kernel=(3, 3), groups=groups),
        _relu("r1", "c1"),
        _convolution("c2", "r1", (4, 4), kernel=(3, 3), stride=(stride, stride)),
        _convolution("skip", "r1", (4, 4), kernel=(1, 1), stride=(stride, stride), padding=(0, 0)),
        Node("sum", "add", ("c2", "skip")),
        Node("scaled", "scale", ("sum",), constants=scale),
        _relu("r3", "scaled"),
        _convolution("c4", "r3", (4, 3), kernel=(3, 3), dilation=(2, 2), padding=(2, 2)),
    )
    shapes = {"x": (1, 2, *side)} | dict.fromkeys(("c0", "c1", "r1"), (1, 4, *side))
    shapes |= dict.fromkeys(("c2", "skip", "sum", "scaled", "r3"), (1, 4, *half)) | {"c4": (1, 3, *half)}
    return place(Graph(nodes, "x", "c4", shapes))


@pytest.mark.parametrize("stride, groups", [(1, 1), (2, 1), (2, 2), (3, 1)])
@pytest.mark.parametrize("name", ["c1", "sum", "scaled", "c4"])
def test_windows_give_the_dense_bounds(stride: int, groups: int, name: str):
    graph = _residual(stride, groups)
    centre = torch.rand(3, *graph.input_shape, dtype=torch.float64)
    region = Box(centre - 0.05, centre + 0.02)
    relaxation = relax_network(graph, region, by_dual(graph, region, IntermediateOptions()))
    size = torch.Size(graph.shapes[name]).numel()
    rows = torch.stack([torch.randperm(size)[:20] for _ in range(3)])
    dense = lower_bound(graph, region, relaxation, unit_rows(graph, name, rows, torch.float64), DualPoint())
    entries = WindowRows(graph, region, relaxation, name, rows)
    torch.testing.assert_close(entries.as_rows(entries.bounds(DualPoint())), dense, rtol=1e-9, atol=1e-9)


def test_windows_are_used_where_they_are_small_and_refused_where_they_do_not_apply():
    graph = _residual(2, 1)
    region = Box(torch.zeros(1, *graph.input_shape), torch.ones(1, *graph.input_shape))
    assert largest_window(graph, region, "c1") == 2 * 5 * 5  # two kernels of 3, on two channels
    flat = Node("flat", "reshape", ("c4",), {"shape": (1, graph.shapes["c4"][1] * 5 * 6)})
    longer = Graph((*graph.nodes, flat), "x", "flat", {**graph.shapes, "flat": flat.attributes["shape"]})
    assert largest_window(longer, region, "flat") is None


class _Watched(WindowRows):
    """Notes where the windows of activations lie."""

    def _envelope(self, window: Window, node: Node):
        self.windows = {**getattr(self, "windows", {}), node.name: window}
        return super()._envelope(window, node)


def _scattered(weight: Tensor, window: Window, entries: Entries, shape: tuple[int, ...]) -> Tensor:
    """Weights under windows (N, 2, h, w, C) on whole maps (N, 2, *X), with others where no window lies."""
    dense = torch.rand(*weight.shape[:2], *shape, dtype=weight.dtype)
    for n, i, j in product(range(len(weight)), *(range(extent) for extent in window.extent)):
        row, column = (int(entries.position[n, k]) * window.stride[k] + window.offset[k] + (i, j)[k] for k in (0, 1))
        if 0 <= row < shape[-2] and 0 <= column < shape[-1]:
            dense[n, :, 0, :, row, column] = weight[n, :, i, j]
    return dense


@settings(max_examples=100)
@given(st.integers(0, 2**32))
def test_any_dual_point_under_windows_gives_its_dense_bounds(seed: int):
    """All activations, slopes and shapes; the dense way is the plain push to the input."""
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    graph = place(convolutional(random))
    batch, count = (int(n) for n in random.integers(1, 4, 2))
    centre = torch.randn(batch, *graph.input_shape, dtype=torch.float64)
    region = Box(centre - 0.4, centre + 0.3)
    relaxation = relax_network(graph, region, interval_only)
    name = graph.output
    size = torch.Size(graph.shapes[name]).numel()
    rows = torch.as_tensor(random.integers(0, size, (batch, count)))
    entries = _Watched(graph, region, relaxation, name, rows)
    point = {
        node: tuple(None if w is None else torch.rand_like(w) for w in pair)
        for node, pair in entries.start().weights.items()
    }
    dense = {
        node: tuple(None if w is None else _dense_rows(entries, w, node, graph, rows) for w in pair)
        for node, pair in point.items()
    }
    objective = unit_rows(graph, name, rows, torch.float64)
    linear = linear_bound(graph, relaxation.envelopes, objective, DualPoint(dense))  # type: ignore[arg-type]
    expected = linear.constant + region.minimum(linear.A["x"])
    torch.testing.assert_close(entries.as_rows(entries.bounds(DualPoint(point))), expected, rtol=1e-9, atol=1e-9)  # type: ignore[arg-type]


def _dense_rows(entries: _Watched, weight: Tensor, node: str, graph: Graph, rows: Tensor) -> Tensor:
    """Weights on whole maps in the order of `unit_rows`: (B, 2R, *X)."""
    batch, count = rows.shape
    shape = graph.shapes[node]
    dense = _scattered(weight, entries.windows[node], entries._entries, shape)
    return dense.reshape(batch, count, 2, *shape).transpose(1, 2).reshape(batch, 2 * count, *shape)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_ascent_through_windows_is_sound_where_they_leave_the_map(activation: str):
    """A tangent's lines are not zero where there is no entry: the coefficients there must be."""
    torch.manual_seed(0)
    nodes = (
        Node("x", "input"),
        _convolution("c1", "x", (1, 2), kernel=(3, 3)),
        Node("a1", activation, ("c1",)),
        _convolution("c2", "a1", (2, 2), kernel=(3, 3)),
        Node("a2", activation, ("c2",)),
    )
    shapes = {"x": (1, 1, 9, 9)} | dict.fromkeys(("c1", "a1", "c2", "a2"), (1, 2, 9, 9))
    graph = place(Graph(nodes, "x", "a2", shapes))
    region = Box(*(torch.full((1, 1, 1, 9, 9), end, dtype=torch.float64) for end in (0.0, 0.1)))
    options = IntermediateOptions(ascent=AscentOptions(iterations=8))
    relaxation = relax_network(graph, region, by_dual(graph, region, options))
    assert any(isinstance(point, WindowPoint) and point.point.weights for _, point in relaxation.steps["c2"])
    values = evaluate_all(graph, region.sample(1000, torch.Generator().manual_seed(0)).flatten(0, 1))["c2"]
    box = relaxation.boxes["c2"]
    assert bool((values >= box.lower - 1e-9).all()) and bool((values <= box.upper + 1e-9).all())
