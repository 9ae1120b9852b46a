"""Small ONNX models for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    """``node("Add", "x c", "y")``; ``_`` stands for an input left out."""
    names = ["" if name == "_" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), name=f"n_{outputs.split()[0]}", **attributes)


def model(
    nodes: Sequence[NodeProto],
    constants: Mapping[str, Any] | None = None,
    *,
    shape: Sequence[int | str] | None = (1, 4),
    opset: int = 13,
    output: str = "y",
    kind: int = FLOAT,
) -> onnx.ModelProto:
    """A model with input ``x`` of the given shape and output ``y``; float constants become float32."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(output, kind, None)],
        [tensor(name, value) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def tensor(name: str, value: Any) -> TensorProto:
    """A tensor; floats become float32, integers int64, unless given as numpy arrays of another small type."""
    array = np.asarray(value)
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    return numpy_helper.from_array(array, name)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal float32 values."""
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)
