"""Constants that a file computes."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.graph.models import model, node, random, tensor
from tests.graph.parity import assert_parity, read
from verifier.errors import InputError


@pytest.mark.parametrize(
    "attributes",
    [
        {"value": tensor("v", [1.0, 2.0, 3.0, 4.0])},
        {"value_float": 2.5},
        {"value_floats": [1.0, 2.0, 3.0, 4.0]},
    ],
)
def test_constant_nodes(attributes: dict[str, Any]):
    assert_parity(model([node("Constant", "", "c", **attributes), node("Add", "x c", "y")]))


@pytest.mark.parametrize("attributes", [{"value_int": 1}, {"value_ints": [1, 2]}])
def test_constant_nodes_of_integers(attributes: dict[str, Any]):
    nodes = [node("Constant", "", "c", **attributes), node("Unsqueeze", "x c", "y")]
    if "value_int" in attributes:
        nodes.insert(1, node("Unsqueeze", "c zero", "d"))
        nodes[2] = node("Unsqueeze", "x d", "y")
    assert_parity(model(nodes, {"zero": [0]}))


@pytest.mark.parametrize("attributes", [{"value_string": "a"}, {}])
def test_constants_that_are_no_numbers_are_refused(attributes: dict[str, Any]):
    with pytest.raises(InputError, match="neither a tensor nor numbers"):
        read(model([node("Constant", "", "c", **attributes), node("Add", "x c", "y")]))


def test_the_shape_of_an_activation_is_known():
    nodes = [
        node("Relu", "x", "r"),
        node("Shape", "r", "s"),
        node("Gather", "s zero", "n"),
        node("Unsqueeze", "n axis", "m"),
        node("Concat", "m minus", "t", axis=0),
        node("Reshape", "r t", "y"),
    ]
    constants = {"zero": np.array(0), "axis": [0], "minus": [-1]}
    graph = assert_parity(model(nodes, constants, shape=(2, 3, 4)))
    assert graph.output_shape == (2, 12)


def test_parts_of_a_shape_and_the_size():
    nodes = [
        node("Shape", "x", "s", start=1, end=-1),
        node("Size", "x", "n"),
        node("Div", "n s", "d"),
        node("Concat", "s d", "t", axis=0),
        node("Reshape", "x t", "y"),
    ]
    assert assert_parity(model(nodes, shape=(2, 3, 4), opset=15)).output_shape == (3, 8)


def test_arithmetic_on_weights():
    nodes = [
        node("Transpose", "w", "t", perm=[1, 0]),
        node("Mul", "t two", "s"),
        node("ConstantOfShape", "shape", "ones", value=tensor("v", [0.5])),
        node("Add", "s ones", "u"),
        node("Cast", "u", "d", to=11),
        node("Cast", "d", "f", to=1),
        node("MatMul", "x f", "y"),
    ]
    constants = {"w": random(3, 4), "two": 2.0, "shape": [4, 3]}
    graph = assert_parity(model(nodes, constants))
    assert [n.op for n in graph.nodes] == ["input", "linear"]


def test_weights_in_half_precision_that_are_cast():
    half = random(4, 3).astype(np.float16)
    graph = assert_parity(model([node("Cast", "w", "f", to=1), node("MatMul", "x f", "y")], {"w": half}))
    assert np.array_equal(graph.nodes[1].constants["weight"], half.T.astype(np.float64))


def test_results_whose_size_depends_on_values():
    nodes = [node("NonZero", "c", "n"), node("Squeeze", "n zero", "i"), node("Gather", "x i", "y", axis=1)]
    assert assert_parity(model(nodes, {"c": [0.0, 1.0, 1.0], "zero": [0]})).output_shape == (1, 2)


BOMBS = {
    "ConstantOfShape": ([node("ConstantOfShape", "huge", "c"), node("MatMul", "x c", "y")]),
    "Tile": [node("Tile", "row huge", "c"), node("ReduceSum", "c", "d"), node("Add", "x d", "y")],
    "Expand": [node("Expand", "row huge4", "c"), node("ReduceSum", "c", "d"), node("Add", "x d", "y")],
    "Range": [node("Range", "zero many one", "c"), node("ReduceSum", "c", "d"), node("Add", "x d", "y")],
    "Pad": [node("Pad", "row pads", "c"), node("ReduceSum", "c", "d"), node("Add", "x d", "y")],
    "OneHot": [node("OneHot", "row many ends", "c"), node("ReduceSum", "c", "d"), node("Add", "x d", "y")],
    "an activation's Expand": [node("Expand", "x huge4", "y")],
    "an activation's Tile": [node("Tile", "x huge", "y")],
    "an activation's Pad": [node("Pad", "x pads", "y")],
    "an outer sum": [node("Expand", "x tall", "a"), node("Add", "a wide", "y")],
    "a kernel": [node("Reshape", "x image", "i"), node("ConvTranspose", "i w", "y", strides=[60_000, 60_000])],
    "a pool": [node("Reshape", "x long", "i"), node("AveragePool", "i", "y", kernel_shape=[9], pads=[10**9, 10**9])],
}


@pytest.mark.parametrize("kind", BOMBS)
def test_shape_bombs_are_refused_before_they_are_made(kind: str):
    constants = {
        "huge": [50_000, 50_000],
        "huge4": [50_000, 50_000, 1, 1],
        "row": np.zeros((1, 4), np.float32),
        "zero": np.array(0.0, np.float32),
        "one": np.array(1.0, np.float32),
        "many": np.array(3e9, np.float32),
        "ends": [0.0, 1.0],
        "pads": [50_000, 50_000, 50_000, 50_000],
        "tall": [1_000_000, 1, 1],
        "wide": np.zeros((1, 100_000, 1), np.float32),
        "image": [1, 1, 2, 2],
        "long": [1, 1, 4],
        "w": random(1, 1, 1, 1),
    }
    net = model(BOMBS[kind], constants, shape=(1, 4))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="entries, more than the"):
            read(net)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


def test_a_huge_input_is_refused():
    with pytest.raises(InputError, match="input 'x': .*entries"):
        read(model([node("Relu", "x", "y")], shape=(50_000, 50_000)))


@pytest.mark.parametrize("op", ["RandomNormal", "RandomUniform"])
def test_random_constants_are_refused(op: str):
    with pytest.raises(InputError, match="random"):
        read(model([node(op, "", "c", shape=[1, 4]), node("Add", "x c", "y")]))


def test_a_constant_that_cannot_be_computed_names_the_node():
    nodes = [node("Reshape", "c s", "d"), node("Add", "x d", "y")]
    with pytest.raises(InputError, match="Reshape 'n_d': its"):
        read(model(nodes, {"c": random(5), "s": [2, 2]}))


def test_constants_of_text_are_refused():
    nodes = [
        helper.make_node("Cast", ["c"], ["t"], to=onnx.TensorProto.STRING, name="text"),
        node("Cast", "t", "f", to=1),
        node("Add", "x f", "y"),
    ]
    with pytest.raises(InputError, match="real numbers"):
        read(model(nodes, {"c": random(4)}))
