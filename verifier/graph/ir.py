"""The intermediate representation: a frozen, topologically ordered graph of few operators.

ONNX has many ways to write the same function; the reader lowers all of them to the vocabulary of
`OPS`, so every rule about bounds is written once. Shapes are *full* ONNX shapes with every dynamic
dimension set to 1, so no assumption about a batch axis is made: tensors that flow through a graph
carry one extra leading axis B of ours in front of the shape recorded here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

#: name -> what it computes. ``x`` is the first input; constants are named in brackets.
OPS: Mapping[str, str] = MappingProxyType(
    {
        "input": "the network's input",
        "constant": "[value]",
        "linear": "x @ weight.T + bias over the last axis  [weight (out, in), bias (out)]",
        "conv": "1-D/2-D/3-D convolution; attributes stride, padding (symmetric, per spatial axis), dilation, groups "
        "[weight (out, in/groups, *k), bias (out)]",
        "conv_transpose": "attributes stride, padding, output_padding, dilation, groups "
        "[weight (in, out/groups, *k), bias (out)]",
        "scale": "x * scale + shift, same shape as x  [scale, shift: broadcastable to x]",
        "expand": "x broadcast to attribute shape",
        "add": "x + y, equal shapes",
        "sub": "x - y, equal shapes",
        "reshape": "attribute shape",
        "transpose": "attribute perm",
        "concat": "attribute axis",
        "take": "the entries [indices] (1-D, non-negative) along attribute axis",
        "pad": "constant padding; attributes pads ((before, after) per axis, non-negative), value",
        "sum": "sum over attribute axes, which are removed",
        "relu": "max(x, 0) + slope * min(x, 0)  [slope: broadcastable to x; 0 for Relu, -1 for Abs]",
        "maximum": "max(x, y); inputs (x, y, relu(x - y))",
        "minimum": "min(x, y); inputs (x, y, relu(x - y))",
        "clip": "attributes low, high (both finite)",
        "sigmoid": "",
        "tanh": "",
        "softmax": "attribute axis; final layer only",
        "log_softmax": "attribute axis; final layer only",
    }
)


@dataclass(frozen=True)
class Node:
    """One operation.

    Args:
        name: name of its output; where the value also exists in the file, the ONNX tensor's name.
        op: a key of `OPS`.
        inputs: names of earlier nodes.
        attributes: plain Python values.
        constants: arrays (numpy float64/int64 as read; torch tensors once placed on a device).
        source: the ONNX node it comes from, as ``Op 'name'``, for messages.
    """

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self):
        object.__setattr__(self, "attributes", MappingProxyType(dict(self.attributes)))
        object.__setattr__(self, "constants", MappingProxyType(dict(self.constants)))


@dataclass(frozen=True)
class ModelFile:
    """The file a graph was read from: path as given, and SHA-256 of its (decompressed) bytes."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Graph:
    """A network with one input and one output.

    Args:
        nodes: in topological order; the first is the ``input`` node.
        input: name of the input node.
        output: name of the output node.
        shapes: full shape of every node, dynamic dimensions set to 1.
        file: where it was read from; None for a graph built in memory (nothing can be replayed then).
    """

    nodes: tuple[Node, ...]
    input: str
    output: str
    shapes: Mapping[str, tuple[int, ...]]
    file: ModelFile | None = None

    def __post_init__(self):
        object.__setattr__(self, "shapes", MappingProxyType(dict(self.shapes)))

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.shapes[self.input]

    @cached_property
    def releases(self) -> tuple[tuple[str, ...], ...]:
        """For each node the values that no later node takes, so that they need not be kept."""
        last = {name: i for i, node in enumerate(self.nodes) for name in node.inputs}
        return tuple(
            tuple(name for name in dict.fromkeys(node.inputs) if last[name] == i and name != self.output)
            for i, node in enumerate(self.nodes)
        )

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.shapes[self.output]
