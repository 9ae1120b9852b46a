"""Arithmetic entry by entry, and batch normalisation."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.graph.models import model, node, random
from tests.graph.parity import assert_parity, read
from verifier.errors import InputError

SHAPES = [(4,), (), (1,), (3, 4), (3, 1), (1, 1, 4), (2, 3, 4), (5, 1, 3, 4)]


@pytest.mark.parametrize("constant", SHAPES)
@pytest.mark.parametrize("inputs", ["x c", "c x"])
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Max", "Min", "Sum"])
def test_with_a_constant(op: str, inputs: str, constant: tuple[int, ...]):
    assert_parity(model([node(op, inputs, "y")], {"c": random(*constant)}, shape=(2, 3, 4)), samples=1)


@pytest.mark.parametrize("constant", SHAPES)
def test_division_by_a_constant(constant: tuple[int, ...]):
    assert_parity(model([node("Div", "x c", "y")], {"c": 1 + random(*constant) ** 2}, shape=(2, 3, 4)))


@pytest.mark.parametrize("op", ["Add", "Sub", "Max", "Min", "Sum"])
@pytest.mark.parametrize("inputs", ["x r", "r x", "x a", "a x", "x x"])
def test_of_two_activations(op: str, inputs: str):
    nodes = [
        node("LeakyRelu", "x", "r", alpha=-0.5),
        node("ReduceMean", "x", "m", axes=[0, 2], keepdims=1),
        node("Neg", "m", "a"),
        node(op, inputs, "y"),
    ]
    assert_parity(model(nodes, shape=(2, 3, 4)))


@pytest.mark.parametrize("op", ["Max", "Min", "Sum"])
@pytest.mark.parametrize("inputs", ["x", "x r n", "x c r d", "c x d n r"])
def test_of_any_number(op: str, inputs: str):
    nodes = [node("Relu", "x", "r"), node("Neg", "x", "n"), node(op, inputs, "y")]
    assert_parity(model(nodes, {"c": random(4), "d": random(3, 1)}, shape=(3, 4)))


@pytest.mark.parametrize("op", ["Neg", "Abs"])
def test_of_one(op: str):
    assert_parity(model([node(op, "x", "y")], shape=(2, 3)))


def test_an_extremum_goes_through_the_relu_of_the_difference():
    graph = read(model([node("Neg", "x", "n"), node("Min", "x n", "y")]))
    last = graph.nodes[-1]
    assert last.op == "minimum" and last.inputs[:2] == ("x", "n")
    assert [n.op for n in graph.nodes if n.name == last.inputs[2]] == ["relu"]


def test_division_by_zero_names_the_tensor():
    with pytest.raises(InputError, match="divisor 'c' holds zeros"):
        read(model([node("Div", "x c", "y")], {"c": [1.0, 0.0, 1.0, 1.0]}))


def test_a_constant_over_an_activation_is_refused():
    with pytest.raises(InputError, match="not linear"):
        read(model([node("Div", "c x", "y")], {"c": 1.0}))


def batch_norm(opset: int, shape: tuple[int, ...], **attributes: float) -> onnx.ModelProto:
    channels = shape[1]
    constants = {
        "s": random(channels, seed=1),
        "b": random(channels, seed=2),
        "m": random(channels, seed=3),
        "v": random(channels, seed=4) ** 2 + np.float32(0.1),
    }
    return model([node("BatchNormalization", "x s b m v", "y", **attributes)], constants, shape=shape, opset=opset)


@pytest.mark.parametrize("opset", [7, 9, 14, 15])
@pytest.mark.parametrize("shape", [(2, 3), (1, 3, 4), (1, 3, 4, 5)])
def test_batch_normalization(opset: int, shape: tuple[int, ...]):
    assert_parity(batch_norm(opset, shape))
    assert_parity(batch_norm(opset, shape, epsilon=0.25))


def test_batch_normalization_in_training_mode_is_refused():
    with pytest.raises(InputError, match="statistics of the batch"):
        read(batch_norm(14, (1, 3, 4), training_mode=1))


def test_a_variance_that_is_not_positive_names_the_tensor():
    net = batch_norm(15, (1, 3, 4), epsilon=0.0)
    net.graph.initializer[3].CopyFrom(onnx.numpy_helper.from_array(np.zeros(3, np.float32), "v"))
    with pytest.raises(InputError, match="variance 'v'"):
        read(net)
