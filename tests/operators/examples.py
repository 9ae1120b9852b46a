"""Examples of every operator of the registry: the laws are tested on all of them.

An entry of `verifier.operators.OPERATORS` without an example fails `test_registry.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.operators.build import Builder, Shape, only
from verifier.graph.ir import Graph

_RANDOM = np.random.default_rng(20240607)


def _numbers(*shape: int) -> np.ndarray:
    return _RANDOM.normal(size=shape)


def _linear(shape: Shape, out: int, bias: bool = True) -> Graph:
    constants: dict[str, Any] = {"weight": _numbers(out, shape[-1])} | ({"bias": _numbers(out)} if bias else {})
    return only("linear", [shape], None, **constants)


def convolution(
    shape: Shape,
    out: int,
    kernel: Shape,
    stride: Shape,
    padding: Shape,
    dilation: Shape,
    groups: int = 1,
    bias: bool = True,
    output_padding: Shape | None = None,
    random: np.random.Generator = _RANDOM,
) -> Graph:
    """A convolution, or its transpose where `output_padding` is given; all geometry per spatial axis."""
    attributes: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    channels = shape[1]
    if output_padding is None:
        op, weight = "conv", random.normal(size=(out, channels // groups, *kernel))
    else:
        op, weight = "conv_transpose", random.normal(size=(channels, out // groups, *kernel))
        attributes["output_padding"] = output_padding
    constants: dict[str, Any] = {"weight": weight} | ({"bias": random.normal(size=out)} if bias else {})
    return only(op, [shape], attributes, **constants)


def _constant(*shape: int) -> Graph:
    builder = Builder(2, 2)
    builder.add("constant", value=_numbers(*shape))
    return builder.graph()


def _concat_with_constant() -> Graph:
    builder = Builder(1, 2, 3)
    constant = builder.add("constant", value=_numbers(1, 1, 3))
    builder.add("concat", "x", constant, "x", attributes={"axis": 1})
    return builder.graph()


def _with_constant(op: str) -> Graph:
    builder = Builder(1, 5)
    constant = builder.add("constant", value=_numbers(1, 5))
    if op in ("maximum", "minimum"):
        builder.extremum(op, "x", constant)
    else:
        builder.add(op, constant, "x")
    return builder.graph()


def _same_twice(op: str) -> Graph:
    builder = Builder(1, 4)
    builder.add(op, "x", "x")
    return builder.graph()


#: operator -> graphs whose output is that operator
EXAMPLES: dict[str, list[Graph]] = {
    "constant": [_constant(1, 3), _constant(4), _constant()],
    "linear": [
        _linear((5,), 3),
        _linear((1, 5), 4),
        _linear((1, 5), 4, bias=False),
        _linear((1, 2, 3, 4), 2),
        _linear((2, 3, 2), 1, bias=False),
    ],
    "conv": [
        convolution((1, 2, 7), 3, (3,), (2,), (1,), (1,)),
        convolution((1, 4, 9), 4, (2,), (3,), (0,), (2,), groups=2, bias=False),
        convolution((1, 3, 6, 6), 4, (3, 3), (1, 1), (1, 1), (1, 1)),
        convolution((1, 2, 8, 7), 3, (3, 2), (3, 2), (2, 1), (1, 2)),  # positions that the stride never reaches
        convolution((1, 4, 5, 5), 8, (3, 3), (2, 2), (1, 1), (1, 1), groups=4),
        convolution((1, 3, 6, 5), 3, (2, 2), (2, 2), (1, 1), (1, 1), groups=3, bias=False),  # as average pooling
        convolution((1, 2, 4, 4), 2, (1, 1), (3, 3), (0, 0), (1, 1)),
        convolution((2, 2, 4, 4), 2, (2, 2), (1, 1), (0, 0), (1, 1)),  # two images in the file's own batch axis
        convolution((1, 2, 4, 5, 4), 2, (2, 3, 2), (2, 1, 2), (1, 0, 1), (1, 2, 1), groups=2),
    ],
    "conv_transpose": [
        convolution((1, 2, 4), 3, (3,), (2,), (1,), (1,), output_padding=(0,)),
        convolution((1, 2, 4), 3, (3,), (2,), (0,), (1,), output_padding=(1,), bias=False),
        convolution((1, 4, 3, 4), 6, (3, 2), (3, 2), (1, 0), (1, 1), groups=2, output_padding=(2, 1)),
        convolution((1, 2, 3, 3), 2, (2, 2), (1, 2), (0, 1), (3, 2), output_padding=(2, 1)),  # more than the stride
        convolution((1, 3, 4, 3), 3, (3, 3), (2, 2), (2, 1), (1, 2), groups=3, output_padding=(0, 0)),
        convolution((1, 2, 2, 3, 2), 2, (2, 2, 2), (2, 1, 2), (0, 1, 0), (1, 1, 1), output_padding=(1, 0, 0)),
    ],
    "scale": [
        only("scale", [(1, 4)], scale=_numbers(1, 4), shift=_numbers(1, 4)),
        only("scale", [(1, 3, 2, 2)], scale=_numbers(3, 1, 1), shift=_numbers(1, 3, 1, 1)),
        only("scale", [(1, 3, 2)], scale=-2.0, shift=0.5),
        only("scale", [(5,)], scale=[0.0, 1.0, -1.0, 1e-6, 1e6], shift=0.0),
        only("scale", [(2, 3)], scale=_numbers(3), shift=_numbers(2, 1)),
    ],
    "expand": [
        only("expand", [(1, 3)], {"shape": (4, 3)}),
        only("expand", [(3, 1)], {"shape": (2, 3, 5)}),
        only("expand", [(2, 1, 3, 1)], {"shape": (2, 2, 3, 2)}),
        only("expand", [(2, 2)], {"shape": (2, 2)}),
    ],
    "add": [
        only("add", [(1, 4), (1, 4)]),
        only("add", [(2, 2, 3), (2, 2, 3)]),
        _same_twice("add"),
        _with_constant("add"),
    ],
    "sub": [
        only("sub", [(1, 4), (1, 4)]),
        only("sub", [(2, 3), (2, 3)]),
        _same_twice("sub"),
        _with_constant("sub"),
    ],
    "reshape": [only("reshape", [(1, 2, 6)], {"shape": (3, 4)}), only("reshape", [(4,)], {"shape": (1, 2, 1, 2)})],
    "transpose": [
        only("transpose", [(2, 3, 4)], {"perm": (1, 2, 0)}),
        only("transpose", [(1, 2, 3, 4)], {"perm": (0, 3, 1, 2)}),
    ],
    "concat": [
        only("concat", [(1, 2, 3), (1, 4, 3)], {"axis": 1}),
        only("concat", [(2, 1), (2, 3), (2, 2)], {"axis": 1}),
        only("concat", [(2, 2), (1, 2)], {"axis": 0}),
        _concat_with_constant(),
    ],
    "take": [
        only("take", [(1, 5)], {"axis": 1}, indices=[3, 1]),
        only("take", [(2, 3, 4)], {"axis": 2}, indices=[0, 0, 3, 0]),  # repeated
        only("take", [(3, 2)], {"axis": 0}, indices=[2]),
    ],
    "pad": [
        only("pad", [(1, 3)], {"pads": ((0, 0), (1, 2)), "value": 0.0}),
        only("pad", [(1, 2, 3)], {"pads": ((0, 1), (2, 0), (1, 3)), "value": -1.5}),
        only("pad", [(1, 1, 2, 2)], {"pads": ((0, 0), (0, 0), (1, 0), (0, 1)), "value": 3.0}),
    ],
    "sum": [
        only("sum", [(1, 4)], {"axes": (1,)}),
        only("sum", [(2, 3, 4)], {"axes": (0, 2)}),
        only("sum", [(1, 2, 3, 3)], {"axes": (3, 2)}),
        only("sum", [(2, 3)], {"axes": (0, 1)}),  # a scalar
    ],
    "relu": [
        only("relu", [(1, 4)], slope=0.0),
        only("relu", [(1, 4)], slope=0.1),
        only("relu", [(1, 4)], slope=-1.0),  # the absolute value
        only("relu", [(4,)], slope=-0.3),
        only("relu", [(4,)], slope=1.0),
        only("relu", [(3, 2)], slope=2.5),
        only("relu", [(1, 5, 1, 1)], slope=np.reshape([-2.0, 0.0, 0.5, 1.0, 3.0], (5, 1, 1))),  # both sides of 1
        only("relu", [(1, 2, 3)], slope=np.reshape([0.25, 4.0], (2, 1))),
        only("relu", [(1, 4)], slope=np.reshape([1e-3, -1.5, 1.5, 20.0], (1, 4))),
    ],
    "maximum": [only("maximum", [(1, 4), (1, 4)]), only("maximum", [(2, 2, 2), (2, 2, 2)]), _with_constant("maximum")],
    "minimum": [only("minimum", [(1, 4), (1, 4)]), only("minimum", [(2, 2, 2), (2, 2, 2)]), _with_constant("minimum")],
    "clip": [
        only("clip", [(1, 4)], {"low": 0.0, "high": 6.0}),
        only("clip", [(4,)], {"low": -1.0, "high": 1.0}),
        only("clip", [(2, 3)], {"low": 0.25, "high": 0.75}),
        only("clip", [(3,)], {"low": -3.0, "high": -2.5}),
        only("clip", [(3,)], {"low": 0.5, "high": 0.5}),
    ],
    "sigmoid": [only("sigmoid", [(1, 4)]), only("sigmoid", [(2, 1, 3)])],
    "tanh": [only("tanh", [(1, 4)]), only("tanh", [(2, 1, 3)])],
    "softmax": [only("softmax", [(1, 4)], {"axis": 1}), only("softmax", [(2, 3, 2)], {"axis": 1})],
    "log_softmax": [only("log_softmax", [(1, 4)], {"axis": 1}), only("log_softmax", [(2, 3, 2)], {"axis": 0})],
}


def output_node(graph: Graph):
    """The node that a graph of `EXAMPLES` is an example of."""
    return next(node for node in graph.nodes if node.name == graph.output)
