"""Copies, changes of shape, reductions."""

from __future__ import annotations

from typing import Any

import onnx
import pytest

from tests.graph.models import model, node
from tests.graph.parity import assert_parity, read
from verifier.errors import InputError


@pytest.mark.parametrize("axis", [0, 1, 2, 3, 4, -1, -4])
def test_flatten(axis: int):
    assert_parity(model([node("Flatten", "x", "y", axis=axis)], shape=(2, 3, 4, 5)))


@pytest.mark.parametrize("shape", [[-1], [2, -1], [0, 0, 20], [0, -1, 5], [6, 20], [1, 2, 3, 4, 5], [4, 5, 6]])
def test_reshape(shape: list[int]):
    assert_parity(model([node("Reshape", "x s", "y")], {"s": shape}, shape=(2, 3, 4, 5)))


@pytest.mark.parametrize("shape", [[7, -1], [-1, -1], [0, 0, 0, 0, 0], [3, 3], [-2, 60]])
def test_shapes_that_do_not_fit(shape: list[int]):
    with pytest.raises(InputError, match="Reshape 'n_y'"):
        read(model([node("Reshape", "x s", "y")], {"s": shape}, shape=(2, 3, 4, 5)))


def test_reshape_to_zero_entries_is_refused():
    with pytest.raises(InputError, match="Reshape"):
        read(model([node("Reshape", "x s", "y", allowzero=1)], {"s": [0, 4]}, opset=14))


def test_reshape_to_an_activation_is_refused():
    with pytest.raises(InputError, match="not a constant"):
        read(model([node("Reshape", "x x", "y")], {}))


@pytest.mark.parametrize("perm", [None, [0, 2, 3, 1], [3, 2, 1, 0], [0, 1, 2, 3]])
def test_transpose(perm: list[int] | None):
    attributes = {} if perm is None else {"perm": perm}
    assert_parity(model([node("Transpose", "x", "y", **attributes)], shape=(2, 3, 4, 5)))


@pytest.mark.parametrize("axes", [None, [0], [-1], [0, 2]])
@pytest.mark.parametrize("opset", [11, 13])
def test_squeeze(axes: list[int] | None, opset: int):
    shape = (1, 3, 1, 4, 1)
    assert_parity(by_axes("Squeeze", axes, opset, shape))


@pytest.mark.parametrize("axes", [[0], [-1], [0, 3], [1, 2]])
@pytest.mark.parametrize("opset", [11, 13])
def test_unsqueeze(axes: list[int], opset: int):
    assert_parity(by_axes("Unsqueeze", axes, opset, (3, 4)))


def by_axes(
    op: str, axes: list[int] | None, opset: int, shape: tuple[int, ...], input_since: int = 13, **attributes: Any
) -> onnx.ModelProto:
    """The axes as an attribute, or from some operator set on as an input."""
    if axes is None:
        return model([node(op, "x", "y", **attributes)], shape=shape, opset=opset)
    if opset < input_since:
        return model([node(op, "x", "y", axes=axes, **attributes)], shape=shape, opset=opset)
    return model([node(op, "x a", "y", **attributes)], {"a": axes}, shape=shape, opset=opset)


@pytest.mark.parametrize("axes", [None, [1], [-1, 0], [2, 1]])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize(
    ("op", "opset", "input_since"),
    [("ReduceSum", 11, 13), ("ReduceSum", 13, 13), ("ReduceMean", 13, 18), ("ReduceMean", 18, 18)],
)
def test_reductions(op: str, opset: int, input_since: int, keepdims: int, axes: list[int] | None):
    assert_parity(by_axes(op, axes, opset, (2, 3, 4), input_since, keepdims=keepdims))


@pytest.mark.parametrize("noop", [0, 1])
def test_a_reduction_over_no_axes(noop: int):
    attributes = {"noop_with_empty_axes": noop, "keepdims": 0}
    assert_parity(model([node("ReduceSum", "x", "y", **attributes)], shape=(2, 3), opset=13))


@pytest.mark.parametrize("op", ["Squeeze", "Unsqueeze", "ReduceSum"])
@pytest.mark.parametrize("axes", [[7], [1, 1], [1]])
def test_axes_that_do_not_exist(op: str, axes: list[int]):
    if axes == [1] and op != "Squeeze":  # these two may use a long axis
        axes = [-9]
    with pytest.raises(InputError, match=f"{op} 'n_y'"):
        read(by_axes(op, axes, 13, (2, 3)))


@pytest.mark.parametrize(
    "nodes", [[node("Identity", "x", "y")], [node("Dropout", "x", "y")], [node("Cast", "x", "y", to=1)]]
)
def test_a_network_that_is_a_copy(nodes: list[onnx.NodeProto]):
    graph = assert_parity(model(nodes))
    assert graph.input != graph.output


@pytest.mark.parametrize("opset", [7, 12, 13, 22])
def test_dropout_is_a_copy(opset: int):
    inputs, attributes = ("x", {"ratio": 0.5}) if opset < 12 else ("x r", {})
    nodes = [node("Dropout", inputs, "d m", **attributes), node("Relu", "d", "y")]
    graph = assert_parity(model(nodes, {"r": 0.5} if opset >= 12 else {}, opset=opset))
    assert [n.op for n in graph.nodes] == ["input", "relu"]


def test_dropout_in_training_mode_is_refused():
    with pytest.raises(InputError, match="training mode"):
        read(model([node("Dropout", "x r t", "y")], {"r": 0.5, "t": True}))


def test_casts_between_floats_are_copies():
    nodes = [node("Cast", "x", "d", to=11), node("Relu", "d", "r"), node("Cast", "r", "y", to=1)]
    assert [n.op for n in assert_parity(model(nodes)).nodes] == ["input", "relu"]


@pytest.mark.parametrize("kind", [6, 7, 9, 10, 16])
def test_casts_that_round_are_refused(kind: int):
    with pytest.raises(InputError, match="keep their values"):
        read(model([node("Cast", "x", "i", to=kind), node("Cast", "i", "y", to=1)]))


@pytest.mark.parametrize("shape", [[2, 3, 4], [3, 1], [1], [5, 1, 1, 4]])
def test_expand(shape: list[int]):
    assert_parity(model([node("Expand", "x s", "y")], {"s": shape}, shape=(3, 4) if shape[-2:] != [3, 4] else (3, 1)))
