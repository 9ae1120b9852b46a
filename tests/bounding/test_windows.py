"""Windows are another way to evaluate the dual function at CROWN's point: the values must be those of the dense way."""

from __future__ import annotations

import pytest
import torch

from verifier.bounding.dual import DualPoint, lower_bound
from verifier.bounding.intermediate import IntermediateOptions, by_dual, relax_network, unit_rows
from verifier.bounding.window_shapes import largest_window
from verifier.bounding.windows import WindowRows
from verifier.graph.ir import Graph, Node
from verifier.operators import place
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
