"""Small feed-forward networks as plain arrays: their values in numpy, and their ONNX files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from onnx import TensorProto, helper, numpy_helper

ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Relu": lambda x: np.maximum(x, 0),
    "Sigmoid": lambda x: (1 + np.tanh(x / 2)) / 2,  # does not overflow
    "Tanh": np.tanh,
    "Identity": lambda x: x,
}


@dataclass(frozen=True)
class Layer:
    """An affine map and an activation.

    Args:
        weight: (m, n) of a dense layer, or (C', C, k, k) of a convolution of stride 2 without padding.
        bias: (m,) or (C',).
        activation: a key of `ACTIVATIONS`.
    """

    weight: np.ndarray
    bias: np.ndarray
    activation: str

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Values (N, m) or (N, C', H', W') for inputs (N, *X); a dense layer flattens them first."""
        if self.weight.ndim == 2:
            before = x.reshape(len(x), -1) @ self.weight.T + self.bias
        else:
            patches = sliding_window_view(x, self.weight.shape[2:], axis=(2, 3))[:, :, ::2, ::2]
            before = np.einsum("nchwij,ocij->nohw", patches, self.weight) + self.bias[:, None, None]
        return ACTIVATIONS[self.activation](before)


def evaluate(layers: Sequence[Layer], x: np.ndarray) -> np.ndarray:
    """Outputs (N, m) of the last layer, flat, for inputs (N, *X)."""
    for layer in layers:
        x = layer(x)
    return x.reshape(len(x), -1)


def write(layers: Sequence[Layer], shape: Sequence[int], path: Path) -> None:
    """The network as an ONNX file with input ``x`` (1, *shape) and output ``y``, in float32."""
    nodes, constants, value = [], [], "x"
    for i, layer in enumerate(layers):
        names = [f"w{i}", f"b{i}"]
        arrays = zip(names, (layer.weight, layer.bias), strict=True)
        constants += [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays]
        if layer.weight.ndim == 2:
            nodes.append(helper.make_node("Flatten", [value], [f"f{i}"]))
            nodes.append(helper.make_node("Gemm", [f"f{i}", *names], [f"a{i}"], transB=1))
        else:
            nodes.append(helper.make_node("Conv", [value, *names], [f"a{i}"], strides=[2, 2]))
        value = "y" if i == len(layers) - 1 else f"h{i}"
        nodes.append(helper.make_node(layer.activation, [f"a{i}"], [value]))
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *shape]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, len(layers[-1].bias)]),
    ]
    graph = helper.make_graph(nodes, "planted", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
