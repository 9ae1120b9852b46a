"""Activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.graph.models import model, node, random
from tests.graph.parity import assert_parity, read
from verifier.errors import InputError


@pytest.mark.parametrize("op", ["Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid"])
def test_with_defaults(op: str):
    graph = assert_parity(model([node(op, "x", "y")], shape=(2, 3)))
    assert graph.nodes[-1].name == "y"


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.5, -0.5])
def test_leaky_relu(alpha: float):
    assert_parity(model([node("LeakyRelu", "x", "y", alpha=alpha)]))


def test_hard_sigmoid():
    assert_parity(model([node("HardSigmoid", "x", "y", alpha=0.4, beta=0.1)]))


@pytest.mark.parametrize("slope", [(1,), (3, 1, 1), (1, 3, 1, 1), (5,), (4, 5)])
def test_p_relu(slope: tuple[int, ...]):
    assert_parity(model([node("PRelu", "x s", "y")], {"s": random(*slope)}, shape=(1, 3, 4, 5)))


def test_slopes_that_stretch_the_input_are_refused():
    with pytest.raises(InputError, match="slopes of shape"):
        read(model([node("PRelu", "x s", "y")], {"s": random(3, 4)}))


@pytest.mark.parametrize(
    "bounds", [{"min": -0.5, "max": 1.0}, {"min": 0.25}, {"max": 0.5}, {"min": 0.0, "max": 6.0}, {}]
)
def test_clip_by_attributes(bounds: dict[str, float]):
    assert_parity(model([node("Clip", "x", "y", **bounds)], opset=7))


@pytest.mark.parametrize(
    "inputs", ["x", "x a", "x a b", "x _ b", "x zero b", "x zero", "x low high", "x low b", "x a a"]
)
@pytest.mark.parametrize("opset", [11, 13])
def test_clip_by_inputs(inputs: str, opset: int):
    constants = {"a": -0.5, "b": 0.75, "zero": 0.0, "low": -np.inf, "high": np.finfo(np.float32).max}
    assert_parity(model([node("Clip", inputs, "y")], constants, opset=opset))


def test_clip_at_zero_is_a_relu():
    graph = read(model([node("Clip", "x zero", "y")], {"zero": 0.0}))
    assert [n.op for n in graph.nodes] == ["input", "relu"]


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (np.nan, 1.0), (np.inf, np.inf)])
def test_bounds_that_leave_no_room_are_refused(bounds: tuple[float, float]):
    with pytest.raises(InputError, match="Clip"):
        read(model([node("Clip", "x a b", "y")], {"a": bounds[0], "b": bounds[1]}))


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize(
    ("opset", "attributes", "shape"),
    [
        (7, {}, (1, 5)),
        (11, {}, (2, 5)),
        (11, {"axis": 1}, (1, 5, 1, 1)),
        (11, {"axis": 0}, (1, 5)),
        (11, {"axis": -1}, (2, 3, 5)),
        (13, {}, (2, 3, 5)),
        (13, {"axis": 1}, (2, 3, 5)),
        (13, {"axis": -2}, (2, 3, 5)),
    ],
)
def test_softmax_as_the_final_layer(op: str, opset: int, attributes: dict[str, Any], shape: tuple[int, ...]):
    graph = assert_parity(model([node(op, "x", "y", **attributes)], shape=shape, opset=opset))
    assert graph.nodes[-1].op == {"Softmax": "softmax", "LogSoftmax": "log_softmax"}[op]


def test_a_copy_may_follow_a_final_softmax():
    graph = assert_parity(model([node("Softmax", "x", "s"), node("Identity", "s", "y")]))
    assert graph.nodes[-1].op == "softmax" and graph.output == "y"


def test_softmax_over_several_axes_is_refused():
    with pytest.raises(InputError, match="several axes at once"):
        read(model([node("Softmax", "x", "y", axis=1)], shape=(1, 2, 3), opset=11))


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_softmax_before_other_layers_is_refused(op: str):
    with pytest.raises(InputError, match="final layer only"):
        read(model([node(op, "x", "s"), node("Relu", "s", "y")]))
