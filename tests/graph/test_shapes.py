"""Shapes of single nodes; whole networks are compared with onnx in `parity`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from verifier.graph.ir import Node
from verifier.graph.shapes import shape_of

WINDOW = {"stride": (1,), "padding": (0,), "dilation": (1,), "groups": 1}


@pytest.mark.parametrize(
    ("op", "attributes", "constants", "inputs"),
    [
        ("conv", WINDOW, {"weight": np.ones((1, 1, 5))}, [(1, 1, 4)]),
        ("conv", WINDOW, {"weight": np.ones((1, 2, 1))}, [(1, 1, 4)]),
        ("conv", WINDOW | {"groups": 2}, {"weight": np.ones((1, 1, 1))}, [(1, 2, 4)]),
        ("conv", WINDOW | {"stride": (0,)}, {"weight": np.ones((1, 1, 1))}, [(1, 1, 4)]),
        ("conv", WINDOW | {"padding": (1, 1)}, {"weight": np.ones((1, 1, 1))}, [(1, 1, 4)]),
        ("conv_transpose", WINDOW | {"output_padding": (-1,)}, {"weight": np.ones((1, 1, 2))}, [(1, 1, 4)]),
        ("conv_transpose", WINDOW | {"output_padding": (0,)}, {"weight": np.ones((2, 1, 2))}, [(1, 1, 4)]),
        ("scale", {}, {"scale": np.ones(3), "shift": np.zeros(())}, [(1,)]),
        ("relu", {}, {"slope": np.ones((2, 2))}, [(2,)]),
        ("expand", {"shape": (2, 3)}, {}, [(2, 2)]),
        ("add", {}, {}, [(2,), (1,)]),
        ("maximum", {}, {}, [(2,), (2,), (1,)]),
        ("reshape", {"shape": (2, 2)}, {}, [(5,)]),
        ("transpose", {"perm": (0, 0)}, {}, [(2, 2)]),
        ("concat", {"axis": 1}, {}, [(2, 1), (3, 1)]),
        ("concat", {"axis": 2}, {}, [(2, 1)]),
        ("take", {"axis": 0}, {"indices": np.array([2])}, [(2,)]),
        ("take", {"axis": 0}, {"indices": np.array([-1])}, [(2,)]),
        ("take", {"axis": 0}, {"indices": np.array([], np.int64)}, [(2,)]),
        ("take", {"axis": 0}, {"indices": np.array([[0]])}, [(2,)]),
        ("pad", {"pads": ((0, 1),), "value": 0.0}, {}, [(2, 2)]),
        ("pad", {"pads": ((0, -1),), "value": 0.0}, {}, [(2,)]),
        ("sum", {"axes": (0, 0)}, {}, [(2, 2)]),
        ("sum", {"axes": (2,)}, {}, [(2, 2)]),
        ("softmax", {"axis": 2}, {}, [(2, 2)]),
    ],
)
def test_what_does_not_fit_is_found(op: str, attributes: dict[str, Any], constants: dict[str, Any], inputs: list[Any]):
    with pytest.raises(ValueError):
        shape_of(Node("n", op, ("x",), attributes, constants), inputs)


def test_a_sum_over_all_axes_has_no_axes():
    assert shape_of(Node("n", "sum", ("x",), {"axes": (0, 1)}), [(2, 3)]) == ()
