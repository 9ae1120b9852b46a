"""A graph as an ONNX file: one ONNX operator (or two) for each node, so that what is read back is what was written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from verifier import __version__
from verifier.attacks.parity import check_parity
from verifier.attacks.replay import Replayer
from verifier.errors import InputError
from verifier.graph import load
from verifier.graph.ir import Graph, Node
from verifier.specs.region import Box
from verifier.training.bounded import BoundedModule

_OPSET, _IR_VERSION = 17, 8
#: of logits of the module and of the file, relative to the largest; both are float32
_TOLERANCE = 1e-3


def export(module: nn.Module, example: Tensor, path: Path, samples: Tensor) -> Graph:
    """Write a module for inference, and check the file against the module and against onnxruntime.

    Batch normalisation is folded into the layer before it, with the running statistics.

    Args:
        module: in evaluation mode afterwards.
        example: one input (1, *X).
        path: of the file; replaced at once.
        samples: (N, *X) in [0, 1], at which logits are compared.

    Returns:
        The graph as read back from the file.

    Raises:
        InputError: the module cannot be traced, or the file computes something else.
    """
    module = module.eval().cpu()
    with torch.no_grad():
        graph = BoundedModule(module, example.cpu()).graph()
        wanted = module(samples.cpu()).numpy()
    draft = path.with_name(f".{path.name}.draft")
    draft.write_bytes(to_onnx(graph).SerializeToString())
    draft.replace(path)
    read = load(path)
    replayer = Replayer(read)
    check_parity(replayer, Box(torch.zeros(1, *read.input_shape).double(), torch.ones(1, *read.input_shape).double()))
    found = np.stack([replayer.run(x).reshape(-1) for x in samples.cpu().numpy()])
    if not np.allclose(found, wanted, rtol=_TOLERANCE, atol=_TOLERANCE * (1 + np.abs(wanted).max())):
        error = float(np.abs(found - wanted).max())
        raise InputError(str(path), f"its logits differ from the module's by {error:.3g}", "please report this")
    return read


def to_onnx(graph: Graph) -> onnx.ModelProto:
    """The same function in ONNX, float32, with a dynamic batch where the graph's first axis is a batch of one.

    Raises:
        InputError: a node has no ONNX form here.
    """
    writer = _Writer(graph)
    for node in graph.nodes:
        if node.op != "input":
            if node.op not in _FORMS:
                raise InputError(node.source or node.name, f"{node.op} cannot be written as ONNX", "use other layers")
            _FORMS[node.op](writer, node)
    dynamic = graph.input_shape[0] == graph.output_shape[0] == 1
    values = [
        helper.make_tensor_value_info(
            name, TensorProto.FLOAT, ["N", *graph.shapes[name][1:]] if dynamic else graph.shapes[name]
        )
        for name in (graph.input, graph.output)
    ]
    made = helper.make_graph(writer.nodes, "network", values[:1], values[1:], writer.weights)
    opsets = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(
        made, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="verifier", producer_version=__version__
    )
    onnx.checker.check_model(model, full_check=True)
    return model


class _Writer:
    """Collects the ONNX nodes and weights of one graph."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def constant(self, value: Any, name: str, dtype: type = np.float32) -> str:
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array, dtype=dtype), name))
        return name

    def parameters(self, node: Node) -> list[str]:
        """Weight and, where there is one, bias."""
        given = [name for name in ("weight", "bias") if node.constants.get(name) is not None]
        return [self.constant(node.constants[name], f"{node.name}.{name}") for name in given]


def _plain(op: str, **attributes: Any) -> Callable[[_Writer, Node], Any]:
    return lambda writer, node: writer.node(op, list(node.inputs), node.name, **attributes)


def _linear(writer: _Writer, node: Node) -> None:
    parameters = writer.parameters(node)
    if len(writer.graph.shapes[node.inputs[0]]) == 2:
        writer.node("Gemm", [node.inputs[0], *parameters], node.name, transB=1)
        return
    turned = writer.node("Transpose", parameters[:1], f"{node.name}.turned", perm=[1, 0])
    last = len(parameters) == 1
    product = writer.node("MatMul", [node.inputs[0], turned], node.name if last else f"{node.name}.product")
    if not last:
        writer.node("Add", [product, parameters[1]], node.name)


def _convolution(writer: _Writer, node: Node) -> None:
    given = node.attributes
    writer.node(
        "Conv",
        [node.inputs[0], *writer.parameters(node)],
        node.name,
        kernel_shape=list(node.constants["weight"].shape[2:]),
        strides=list(given["stride"]),
        pads=list(given["padding"]) * 2,
        dilations=list(given["dilation"]),
        group=given["groups"],
    )


def _scale(writer: _Writer, node: Node) -> None:
    scale, shift = (writer.constant(node.constants[name], f"{node.name}.{name}") for name in ("scale", "shift"))
    writer.node("Add", [writer.node("Mul", [node.inputs[0], scale], f"{node.name}.scaled"), shift], node.name)


def _reshape(writer: _Writer, node: Node) -> None:
    before, after = writer.graph.shapes[node.inputs[0]], tuple(node.attributes["shape"])
    shape = (0, *after[1:]) if before[:1] == after[:1] else after  # 0: as it is, so the batch stays dynamic
    writer.node("Reshape", [node.inputs[0], writer.constant(shape, f"{node.name}.shape", np.int64)], node.name)


def _relu(writer: _Writer, node: Node) -> None:
    slope = np.asarray(torch.as_tensor(node.constants["slope"]).detach().cpu())
    if not slope.any():
        writer.node("Relu", list(node.inputs), node.name)
    else:
        writer.node("PRelu", [node.inputs[0], writer.constant(slope, f"{node.name}.slope")], node.name)


def _clip(writer: _Writer, node: Node) -> None:
    limits = [writer.constant(node.attributes[name], f"{node.name}.{name}") for name in ("low", "high")]
    writer.node("Clip", [node.inputs[0], *limits], node.name)


_FORMS: Mapping[str, Callable[[_Writer, Node], Any]] = MappingProxyType(
    {
        "linear": _linear,
        "conv": _convolution,
        "scale": _scale,
        "reshape": _reshape,
        "relu": _relu,
        "clip": _clip,
        "add": _plain("Add"),
        "sub": _plain("Sub"),
        "sigmoid": _plain("Sigmoid"),
        "tanh": _plain("Tanh"),
    }
)
