"""Small ONNX files, good and bad, and specifications for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def tensor(name: str, values: object, dtype: type = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype=dtype), name)


def model(
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[TensorProto] = (),
    inputs: Sequence[tuple[str, Sequence[int | str]]] = (("x", (1, 2)),),
    outputs: Sequence[int | str] = (1, 2),
) -> onnx.ModelProto:
    """A model whose output is called y; dimensions may have names."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, outputs)
    graph = helper.make_graph(nodes, "net", values, [result], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def linear(weight: object = ((1.0, 0.0), (0.0, 1.0)), bias: object = (0.0, 0.0)) -> onnx.ModelProto:
    """y = weight x + bias, of two inputs and two outputs; the identity unless told otherwise."""
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="layer", transB=1)
    return model([node], [tensor("w", weight), tensor("b", bias)])


def save(made: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(made.SerializeToString())
    return path


DECLARED = "".join(f"(declare-const {name} Real)\n" for name in ("X_0", "X_1", "Y_0", "Y_1"))
BOX = "".join(f"(assert (>= X_{i} 0.0))\n(assert (<= X_{i} 1.0))\n" for i in (0, 1))
#: with `linear`: the sum of two numbers in [0, 1] never exceeds 3 ...
SAFE = DECLARED + BOX + "(assert (>= Y_0 3.0))\n"
#: ... and the first of them can exceed 0.5
UNSAFE = DECLARED + BOX + "(assert (>= Y_0 0.5))\n"
