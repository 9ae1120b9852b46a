"""Pools, over their attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graph.ir_interpreter import run
from tests.graph.models import model, node
from tests.graph.parity import assert_parity, read
from tests.graph.test_convolution import AUTO, several
from verifier.errors import InputError


@st.composite
def pool(draw: Any, op: str, opsets: list[int], dilated_since: int) -> onnx.ModelProto:
    rank, opset = draw(st.integers(1, 3)), draw(st.sampled_from(opsets))
    kernel = several(draw, rank, 1, 4)
    attributes: dict[str, Any] = {"kernel_shape": kernel}
    padding = draw(st.sampled_from(["none", "pads", "auto"]))
    # onnxruntime refuses auto_pad with strides that leave gaps
    attributes["strides"] = [1] * rank if padding == "auto" else several(draw, rank, 1, 3)
    if opset >= 10:
        attributes["ceil_mode"] = draw(st.integers(0, 1))
    if padding == "pads":
        attributes["pads"] = [draw(st.integers(0, size - 1)) for size in kernel * 2]
    if padding == "auto":
        attributes["auto_pad"] = draw(AUTO)
    elif opset >= dilated_since:
        attributes["dilations"] = several(draw, rank, 1, 2)
    if op == "AveragePool":
        attributes["count_include_pad"] = draw(st.integers(0, 1))
    return model([node(op, "x", "y", **attributes)], shape=[1, 2, *several(draw, rank, 7, 9)], opset=opset)


@given(pool("MaxPool", [8, 10, 11, 12, 22], dilated_since=10))
def test_max_pool(net: onnx.ModelProto):
    # in ceil mode onnx infers one window more than onnxruntime computes, if that one starts in the padding
    assert_parity(net, samples=1, tolerance=1e-6, inferred_shapes=False)


@given(pool("AveragePool", [7, 10, 11, 13, 19, 22], dilated_since=19))
def test_average_pool(net: onnx.ModelProto):
    assert_parity(net, samples=1, inferred_shapes=False)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_average_pool_with_auto_pad_and_strides(stride: int):
    attributes = {"kernel_shape": [3, 3], "strides": [stride] * 2, "auto_pad": "SAME_UPPER"}
    assert_parity(model([node("AveragePool", "x", "y", **attributes)], shape=(1, 2, 7, 8)))


@pytest.mark.parametrize("opset", [10, 11, 19])
@pytest.mark.parametrize("inclusive", [0, 1])
def test_average_over_a_window_that_hangs_over_the_padding(inclusive: int, opset: int):
    attributes = {"kernel_shape": [3], "strides": [3], "pads": [1, 1], "ceil_mode": 1, "count_include_pad": inclusive}
    graph = assert_parity(model([node("AveragePool", "x", "y", **attributes)], shape=(1, 2, 6), opset=opset))
    assert graph.output_shape == (1, 2, 3)


@pytest.mark.parametrize("op, opset", [("MaxPool", 13), ("AveragePool", 10), ("AveragePool", 13), ("AveragePool", 19)])
@pytest.mark.parametrize("size, kernel, stride, pads", [(2, 3, 2, (0, 0)), (1, 3, 3, (1, 0)), (2, 4, 3, (0, 1))])
def test_a_window_larger_than_its_input_in_ceil_mode(op: str, opset: int, size: int, kernel: int, stride: int, pads):
    attributes = {"kernel_shape": [kernel], "strides": [stride], "pads": list(pads), "ceil_mode": 1}
    net = model([node(op, "x", "y", **attributes)], shape=(1, 2, size), opset=opset)
    assert assert_parity(net, inferred_shapes=False).output_shape == (1, 2, 1)


@pytest.mark.parametrize("ceil", [0, 1])
def test_a_window_that_does_not_fit_is_refused(ceil: int):
    attributes = {"kernel_shape": [5], "strides": [2], "ceil_mode": ceil}
    with pytest.raises(InputError, match="reaches over 5 entries does not fit into 3"):
        read(model([node("MaxPool", "x", "y", **attributes)], shape=(1, 1, 3)))


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("shape", [(2, 3, 5), (1, 3, 4, 7), (1, 2, 3, 2, 3), (1, 3, 1, 1)])
def test_global_pools(op: str, shape: tuple[int, ...]):
    assert_parity(model([node(op, "x", "y")], shape=shape))


def test_max_pool_keeps_ties_and_large_values():
    graph = read(model([node("MaxPool", "x", "y", kernel_shape=[2, 2], strides=[2, 2])], shape=(1, 1, 2, 4)))
    x = np.array([[[[1e30, 1e30, -3.0, -3.0], [-1e30, 0.0, -3.0, -4.0]]]])
    assert np.array_equal(run(graph, x)["y"], [[[[1e30, -3.0]]]])


def test_max_pool_is_a_tournament_of_maxima():
    graph = read(model([node("MaxPool", "x", "y", kernel_shape=[2, 2], strides=[2, 2])], shape=(1, 1, 4, 4)))
    ops = [n.op for n in graph.nodes]
    assert ops == ["input", *["take", "take", "sub", "relu", "maximum"] * 2]
    assert all(n.name.startswith("y/") for n in graph.nodes[1:-1])
    assert [n.attributes["axis"] for n in graph.nodes if n.op == "take"] == [3, 3, 2, 2]


def test_a_window_of_padding_only_is_refused():
    net = model([node("MaxPool", "x", "y", kernel_shape=[1], pads=[1, 0])], shape=(1, 1, 4))
    with pytest.raises(InputError, match="in the padding entirely"):
        read(net)


def test_indices_of_a_max_pool_are_refused_where_they_are_used():
    nodes = [node("MaxPool", "x", "m i", kernel_shape=[2]), node("Cast", "i", "y", to=1)]
    with pytest.raises(InputError, match="optional output 'i'"):
        read(model(nodes, shape=(1, 1, 4)))
    assert_parity(model([node("MaxPool", "x", "y i", kernel_shape=[2])], shape=(1, 1, 4)))


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_a_kernel_must_be_stated(op: str):
    with pytest.raises(InputError, match="kernel_shape is missing"):
        read(model([node(op, "x", "y")], shape=(1, 1, 4)))
