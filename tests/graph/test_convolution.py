"""Conv and ConvTranspose, over their attributes."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graph.models import model, node, random
from tests.graph.parity import assert_parity, read
from verifier.errors import InputError

AUTO = st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"])


def several(draw: Any, count: int, low: int, high: int) -> list[int]:
    return draw(st.lists(st.integers(low, high), min_size=count, max_size=count))


@st.composite
def conv(draw: Any) -> onnx.ModelProto:
    rank, groups = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2]))
    kernel = several(draw, rank, 1, 3)
    attributes: dict[str, Any] = {"strides": several(draw, rank, 1, 3), "group": groups}
    padding = draw(st.sampled_from(["none", "pads", "auto"]))
    if padding == "pads":
        attributes["pads"] = several(draw, 2 * rank, 0, 2)
    if padding == "auto":
        attributes["auto_pad"] = draw(AUTO)
    else:
        attributes["dilations"] = several(draw, rank, 1, 2)
    if draw(st.booleans()):
        attributes["kernel_shape"] = kernel
    shape = [draw(st.integers(1, 2)), 4, *several(draw, rank, 5, 8)]
    return window_model(draw, "Conv", attributes, (6, 4 // groups, *kernel), 6, shape)


@st.composite
def conv_transpose(draw: Any) -> onnx.ModelProto:
    rank, groups = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2]))
    strides = several(draw, rank, 1, 3)
    attributes: dict[str, Any] = {"strides": strides, "dilations": several(draw, rank, 1, 2), "group": groups}
    shape = [draw(st.integers(1, 2)), 4, *several(draw, rank, 2, 5)]
    padding = draw(st.sampled_from(["none", "pads", "auto", "output_shape"]))
    if padding == "pads":
        attributes["pads"] = several(draw, 2 * rank, 0, 1)
    if padding == "auto":
        attributes["auto_pad"] = draw(AUTO)
    if padding == "output_shape":
        full = [(n - 1) * s + 1 for n, s in zip(shape[2:], strides, strict=True)]
        attributes["output_shape"] = [n + draw(st.integers(0, 2)) for n in full]
        attributes["auto_pad"] = draw(st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER"]))
    if draw(st.booleans()):
        attributes["output_padding"] = [draw(st.integers(0, s - 1)) for s in strides]
    return window_model(draw, "ConvTranspose", attributes, (4, 3, *[3] * rank), 3 * groups, shape)


def window_model(
    draw: Any, op: str, attributes: dict[str, Any], weight: tuple[int, ...], channels: int, shape: list[int]
) -> onnx.ModelProto:
    constants, inputs = {"w": random(*weight)}, "x w"
    if draw(st.booleans()):
        constants["b"], inputs = random(channels), "x w b"
    opset = draw(st.sampled_from([7, 11, 13, 22]))
    return model([node(op, inputs, "y", **attributes)], constants, shape=shape, opset=opset)


@given(conv())
def test_conv(net: onnx.ModelProto):
    assert_parity(net, samples=1)


@given(conv_transpose())
def test_conv_transpose(net: onnx.ModelProto):
    try:  # what onnx infers of auto_pad is not what onnxruntime computes
        assert_parity(net, samples=1, inferred_shapes=False)
    except InputError as error:
        assert "larger than its kernel reaches" in str(error)


def test_the_odd_row_of_a_transposed_convolution_is_cut_off_on_the_stated_side():
    for mode in ("SAME_UPPER", "SAME_LOWER", "NOTSET"):
        attributes = {"strides": [2], "auto_pad": mode, "output_shape": [6]}
        assert_parity(model([node("ConvTranspose", "x w", "y", **attributes)], {"w": random(1, 1, 3)}, shape=(1, 1, 3)))


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"auto_pad": "SAME_UPPER", "dilations": [2, 2]}, "state pads instead"),
        ({"pads": [-1, 0, 0, 0]}, "attribute pads"),
        ({"strides": [0, 1]}, "attribute strides"),
        ({"strides": [1]}, "1 entries instead of 2"),
        ({"kernel_shape": [2, 2]}, "kernel_shape"),
        ({"group": 3}, "does not fit"),
        ({"group": 0}, "0 channels"),
        ({"auto_pad": "MAYBE"}, "auto_pad"),
        ({"dilations": [9, 9]}, "does not fit into"),
    ],
)
def test_attributes_that_cannot_be(attributes: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        read(model([node("Conv", "x w", "y", **attributes)], {"w": random(2, 2, 3, 3)}, shape=(1, 2, 6, 6)))


def test_a_weight_that_is_no_constant_is_refused():
    with pytest.raises(InputError, match=r"Conv 'n_y' \(its input 'r' is not a constant\)"):
        read(model([node("Relu", "x", "r"), node("Conv", "x r", "y")], shape=(2, 2, 3, 3)))


def test_four_spatial_dimensions_are_refused():
    with pytest.raises(InputError, match="4 dimensions"):
        read(model([node("Conv", "x w", "y")], {"w": random(1, 1, 1, 1, 1, 1)}, shape=(1, 1, 2, 2, 2, 2)))
