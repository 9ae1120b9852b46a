"""Copies and changes of shape: every entry stays, in order or permuted."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
from onnx import TensorProto

from verifier.graph.builder import Builder
from verifier.graph.calls import Activation, Call, axes_of, axis_of
from verifier.graph.faults import Invalid, Unsupported
from verifier.graph.importers.registry import Importer
from verifier.graph.shapes import broadcast


def _identity(call: Call, build: Builder) -> Activation:
    return call.activation()


def _dropout(call: Call, build: Builder) -> Activation:
    """A copy, as in inference."""
    call.refuse_outputs_after(1)
    if call.has(2) and call.constant(2).any():
        raise Unsupported("it is in training mode")
    return call.activation()


def _cast(call: Call, build: Builder) -> Activation:
    if call.attributes.get("to") not in (TensorProto.FLOAT, TensorProto.DOUBLE):
        raise Unsupported("only casts of activations to float32 and float64 keep their values")
    return call.activation()


def _shape(call: Call, build: Builder) -> np.ndarray:
    start, end = (call.attributes.get(name) for name in ("start", "end"))
    return np.array(call.activation().shape[slice(start, end)], np.int64)


def _size(call: Call, build: Builder) -> np.ndarray:
    return np.array(prod(call.activation().shape), np.int64)


def _flatten(call: Call, build: Builder) -> Activation:
    x = call.activation()
    axis = int(call.attributes.get("axis", 1))
    axis = axis if axis == x.rank else axis_of(axis, x.rank)
    return build.reshape(x, (prod(x.shape[:axis]), prod(x.shape[axis:])))


def _reshape(call: Call, build: Builder) -> Activation:
    """0 keeps a size unless ``allowzero`` is set, -1 takes what is left."""
    x, wanted = call.activation(), call.integers("shape", 1, since=5)
    if wanted is None:
        raise Invalid("its shape is missing")
    shape = list(wanted)
    if not call.attributes.get("allowzero", 0):
        if any(size == 0 and i >= x.rank for i, size in enumerate(shape)):
            raise Invalid(f"its shape {shape} keeps a size that the input of shape {list(x.shape)} does not have")
        shape = [x.shape[i] if size == 0 else size for i, size in enumerate(shape)]
    if shape.count(-1) > 1 or min(shape, default=1) < -1:
        raise Invalid(f"its shape is {shape}")
    if -1 in shape:
        known = -prod(shape)
        if known == 0 or prod(x.shape) % known:
            raise Invalid(f"the input of shape {list(x.shape)} cannot be reshaped to {shape}")
        shape[shape.index(-1)] = prod(x.shape) // known
    return build.reshape(x, shape)


def _transpose(call: Call, build: Builder) -> Activation:
    x = call.activation()
    return build.transpose(x, call.attributes.get("perm", range(x.rank)[::-1]))


def _squeeze(call: Call, build: Builder) -> Activation:
    x = call.activation()
    stated = call.integers("axes", 1, since=13)
    ones = tuple(axis for axis, size in enumerate(x.shape) if size == 1)
    axes = ones if stated is None else axes_of(stated, x.rank)
    if not set(axes) <= set(ones):
        raise Invalid(f"its axes {list(axes)} of the shape {list(x.shape)} are not all of size 1")
    return build.reshape(x, [size for axis, size in enumerate(x.shape) if axis not in axes])


def _unsqueeze(call: Call, build: Builder) -> Activation:
    x = call.activation()
    stated = call.integers("axes", 1, since=13)
    if stated is None:
        raise Invalid("its axes are missing")
    rank = x.rank + len(stated)
    axes, sizes = axes_of(stated, rank), iter(x.shape)
    return build.reshape(x, [1 if axis in axes else next(sizes) for axis in range(rank)])


def _expand(call: Call, build: Builder) -> Activation:
    x, shape = call.activation(), call.integers("shape", 1, since=8)
    if shape is None:
        raise Invalid("its shape is missing")
    return build.expand(x, broadcast(x.shape, shape))


IMPORTERS: Mapping[str, Importer] = {
    "Cast": _cast,
    "Dropout": _dropout,
    "Expand": _expand,
    "Flatten": _flatten,
    "Identity": _identity,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
