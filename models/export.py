"""Torch modules to ONNX, one node per layer.

torch's own exporters rewrite networks, and differently so from version to version; here every layer stays the
operator that it is (batch normalisation in particular), and equal weights give equal bytes.
"""

from __future__ import annotations

from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from models.architectures import CLASSES, Residual

OPSET = 17
IR_VERSION = 8


class _Writer:
    """Collects the nodes and weights of one graph; each method returns the name of the value it adds."""

    def __init__(self):
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, op: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def tensor(self, tensor: Tensor) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(tensor.detach().numpy(), name))
        return name

    def tensors(self, *tensors: Tensor | None) -> list[str]:
        return [self.tensor(t) for t in tensors if t is not None]

    def module(self, layer: nn.Module, x: str) -> str:
        match layer:
            case nn.Sequential():
                for child in layer:
                    x = self.module(child, x)
                return x
            case Residual():
                branches = [self.module(layer.body, x), self.module(layer.shortcut, x)]
                return self.node("Relu", [self.node("Add", branches)])
            case nn.Flatten():
                return self.node("Flatten", [x], axis=1)
            case nn.Linear():
                return self.node("Gemm", [x, *self.tensors(layer.weight, layer.bias)], transB=1)
            case nn.Conv2d():
                return self._convolution(layer, x)
            case nn.BatchNorm2d():
                weights = self.tensors(layer.weight, layer.bias, layer.running_mean, layer.running_var)
                return self.node("BatchNormalization", [x, *weights], epsilon=layer.eps)
            case nn.MaxPool2d() | nn.AvgPool2d():
                op = "MaxPool" if isinstance(layer, nn.MaxPool2d) else "AveragePool"
                return self.node(op, [x], kernel_shape=[layer.kernel_size] * 2, strides=[layer.stride] * 2)
            case nn.ReLU():
                return self.node("Relu", [x])
            case nn.Sigmoid():
                return self.node("Sigmoid", [x])
            case nn.Tanh():
                return self.node("Tanh", [x])
        raise TypeError(f"no ONNX form for the layer {layer}")

    def _convolution(self, layer: nn.Conv2d, x: str) -> str:
        before_and_after = [int(p) for p in layer.padding] * 2
        return self.node(
            "Conv",
            [x, *self.tensors(layer.weight, layer.bias)],
            kernel_shape=list(layer.kernel_size),
            strides=list(layer.stride),
            pads=before_and_after,
        )


def to_onnx(network: nn.Sequential, side: int) -> onnx.ModelProto:
    """The network for inference: ``x`` (N, 1, side, side) to ``logits`` (N, 10), N dynamic.

    Raises:
        TypeError: a layer that this folder does not use.
    """
    writer = _Writer()
    writer.module(network, "x")
    writer.nodes[-1].output[0] = "logits"
    graph = helper.make_graph(
        writer.nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, side, side])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        writer.weights,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="verifier")
    onnx.checker.check_model(model, full_check=True)
    return model
