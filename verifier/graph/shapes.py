"""Shapes of the graph's operators, from the shapes of their inputs; no arrays are touched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from types import MappingProxyType

import numpy as np

from verifier.graph.ir import Node

Shape = tuple[int, ...]


def shape_of(node: Node, inputs: Sequence[Shape]) -> Shape:
    """The full shape of a node's output.

    Args:
        node: any node but the graph's input.
        inputs: shapes of its inputs, in order.

    Raises:
        ValueError: the node's constants or attributes do not fit its inputs.
    """
    shape = RULES[node.op](node, *inputs)
    if any(size < 1 for size in shape):
        raise ValueError(f"{node.op} of {[list(s) for s in inputs]} would give the empty shape {list(shape)}")
    return shape


def broadcast(*shapes: Shape) -> Shape:
    """The common shape by numpy's rules; ValueError where there is none."""
    return tuple(np.broadcast_shapes(*shapes))


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _constant(node: Node) -> Shape:
    return tuple(node.constants["value"].shape)


def _linear(node: Node, x: Shape) -> Shape:
    out, size = node.constants["weight"].shape
    _require(len(x) > 0 and x[-1] == size, f"a weight for {size} inputs does not fit the shape {list(x)}")
    _check_bias(node, out)
    return (*x[:-1], out)


def _check_bias(node: Node, channels: int) -> None:
    bias = node.constants.get("bias")
    _require(bias is None or tuple(bias.shape) == (channels,), f"the bias does not have {channels} entries")


def _check_window(node: Node, x: Shape, channels: int) -> None:
    rank = len(node.constants["weight"].shape) - 2
    _require(1 <= rank <= 3 and len(x) == rank + 2, f"a convolution in {rank} dimensions of the shape {list(x)}")
    _require(x[1] == channels, f"a weight for {channels} channels does not fit the shape {list(x)}")
    _require(node.attributes["groups"] >= 1, "groups must be positive")
    for name, least in (("stride", 1), ("dilation", 1), ("padding", 0)):
        values = node.attributes[name]
        _require(len(values) == rank and min(values) >= least, f"{name} {list(values)} in {rank} dimensions")


def _conv(node: Node, x: Shape) -> Shape:
    out, per_group, *kernel = node.constants["weight"].shape
    a = node.attributes
    _check_window(node, x, per_group * a["groups"])
    _require(out % a["groups"] == 0, f"{out} channels in {a['groups']} groups")
    _check_bias(node, out)
    sizes = zip(x[2:], kernel, a["stride"], a["padding"], a["dilation"], strict=True)
    return (x[0], out, *((size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in sizes))


def _conv_transpose(node: Node, x: Shape) -> Shape:
    channels, per_group, *kernel = node.constants["weight"].shape
    a = node.attributes
    _check_window(node, x, channels)
    _require(channels % a["groups"] == 0, f"{channels} channels in {a['groups']} groups")
    _check_bias(node, per_group * a["groups"])
    extra = a["output_padding"]
    _require(len(extra) == len(kernel) and min(extra) >= 0, f"output_padding {list(extra)}")
    sizes = zip(x[2:], kernel, a["stride"], a["padding"], a["dilation"], extra, strict=True)
    spatial = ((size - 1) * s - 2 * p + d * (k - 1) + 1 + e for size, k, s, p, d, e in sizes)
    return (x[0], per_group * a["groups"], *spatial)


def _scale(node: Node, x: Shape) -> Shape:
    return _keeping(x, node.constants["scale"].shape, node.constants["shift"].shape)


def _relu(node: Node, x: Shape) -> Shape:
    return _keeping(x, node.constants["slope"].shape)


def _keeping(x: Shape, *constants: Shape) -> Shape:
    for shape in constants:
        _require(broadcast(x, tuple(shape)) == x, f"a constant of shape {list(shape)} does not fit into {list(x)}")
    return x


def _expand(node: Node, x: Shape) -> Shape:
    shape = tuple(node.attributes["shape"])
    _require(broadcast(x, shape) == shape, f"{list(x)} cannot be broadcast to {list(shape)}")
    return shape


def _same(node: Node, x: Shape, *others: Shape) -> Shape:
    _require(all(other == x for other in others), f"{node.op} of the shapes {[list(s) for s in (x, *others)]}")
    return x


def _reshape(node: Node, x: Shape) -> Shape:
    shape = tuple(node.attributes["shape"])
    _require(prod(shape) == prod(x), f"{list(x)} cannot be reshaped to {list(shape)}")
    return shape


def _transpose(node: Node, x: Shape) -> Shape:
    perm = node.attributes["perm"]
    _require(sorted(perm) == list(range(len(x))), f"{list(perm)} is not an order of {len(x)} axes")
    return tuple(x[axis] for axis in perm)


def _axis(axis: int, x: Shape) -> int:
    _require(0 <= axis < len(x), f"axis {axis} of the shape {list(x)}")
    return axis


def _concat(node: Node, *shapes: Shape) -> Shape:
    axis = _axis(node.attributes["axis"], shapes[0])
    rest = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
    _require(len(rest) == 1, f"shapes {[list(s) for s in shapes]} cannot be joined along axis {axis}")
    return (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])


def _take(node: Node, x: Shape) -> Shape:
    axis, indices = _axis(node.attributes["axis"], x), node.constants["indices"]
    _require(indices.ndim == 1, "indices must have one axis")
    _require(not len(indices) or 0 <= indices.min() <= indices.max() < x[axis], f"indices outside axis {axis} of {x}")
    return (*x[:axis], len(indices), *x[axis + 1 :])


def _pad(node: Node, x: Shape) -> Shape:
    pads = node.attributes["pads"]
    _require(len(pads) == len(x) and all(min(pair) >= 0 for pair in pads), f"pads {list(pads)} for {list(x)}")
    return tuple(size + before + after for size, (before, after) in zip(x, pads, strict=True))


def _sum(node: Node, x: Shape) -> Shape:
    axes = node.attributes["axes"]
    _require(len(set(axes)) == len(axes) and all(0 <= a < len(x) for a in axes), f"axes {list(axes)} of {list(x)}")
    return tuple(size for axis, size in enumerate(x) if axis not in axes)


def _softmax(node: Node, x: Shape) -> Shape:
    _axis(node.attributes["axis"], x)
    return x


#: operator -> (node, *input shapes) -> shape
RULES: Mapping[str, Callable[..., Shape]] = MappingProxyType(
    {
        "constant": _constant,
        "linear": _linear,
        "conv": _conv,
        "conv_transpose": _conv_transpose,
        "scale": _scale,
        "expand": _expand,
        "add": _same,
        "sub": _same,
        "reshape": _reshape,
        "transpose": _transpose,
        "concat": _concat,
        "take": _take,
        "pad": _pad,
        "sum": _sum,
        "relu": _relu,
        "maximum": _same,
        "minimum": _same,
        "clip": _same,
        "sigmoid": _same,
        "tanh": _same,
        "softmax": _softmax,
        "log_softmax": _softmax,
    }
)
