"""Activations."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from verifier.graph.builder import Builder
from verifier.graph.calls import Activation, Call, axis_of
from verifier.graph.faults import Unsupported
from verifier.graph.importers.arithmetic import above, below
from verifier.graph.importers.registry import Importer
from verifier.graph.shapes import broadcast

#: a bound at the end of float32's range bounds nothing; exporters write it for "none"
_NO_BOUND = float(np.finfo(np.float32).max)


def _relu(call: Call, build: Builder) -> Activation:
    return build.relu(call.activation())


def _abs(call: Call, build: Builder) -> Activation:
    return build.relu(call.activation(), -1.0)


def _leaky_relu(call: Call, build: Builder) -> Activation:
    return build.relu(call.activation(), float(call.attributes.get("alpha", np.float32(0.01))))


def _p_relu(call: Call, build: Builder) -> Activation:
    """Slopes that stretch the shape of x are refused, as ONNX does."""
    x, slope = call.activation(), call.weight(1)
    if broadcast(x.shape, slope.shape) != x.shape:
        raise Unsupported(f"slopes of shape {list(slope.shape)} for an input of shape {list(x.shape)}")
    return build.relu(x, slope)


def _sigmoid(call: Call, build: Builder) -> Activation:
    return build.emit("sigmoid", call.activation())


def _tanh(call: Call, build: Builder) -> Activation:
    return build.emit("tanh", call.activation())


def _hard_sigmoid(call: Call, build: Builder) -> Activation:
    """``max(0, min(1, alpha x + beta))``."""
    alpha = float(call.attributes.get("alpha", np.float32(0.2)))
    beta = float(call.attributes.get("beta", np.float32(0.5)))
    return _clipped(build.scale(call.activation(), alpha, beta), 0.0, 1.0, build)


def _clip(call: Call, build: Builder) -> Activation:
    """Two bounds make a clip, one a ReLU between scales, none a copy."""
    x = call.activation()
    return _clipped(x, _bound(call, "min", 1, -_NO_BOUND), _bound(call, "max", 2, _NO_BOUND), build)


def _bound(call: Call, attribute: str, index: int, default: float) -> float:
    """A bound of Clip: an attribute before operator set 11, an input from there on."""
    if call.opset < 11:
        return float(call.attributes.get(attribute, default))
    if not call.has(index):
        return default
    value = call.numbers(index)
    if value.size != 1 or np.isnan(value).any():
        raise Unsupported(f"its bound '{call.input_names[index]}' is not one number")
    return float(value.reshape(-1)[0])


def _clipped(x: Activation, low: float, high: float, build: Builder) -> Activation:
    bounded_below, bounded_above = low > -_NO_BOUND, high < _NO_BOUND
    if low >= _NO_BOUND or high <= -_NO_BOUND or low > high:
        raise Unsupported(f"its bounds {low:g} and {high:g} leave no room")
    if not bounded_below and not bounded_above:
        return x
    if not bounded_above:
        return above(x, np.asarray(low), build)
    if not bounded_below:
        return below(x, np.asarray(high), build)
    if low == high:
        return build.scale(x, 0.0, low)
    return build.emit("clip", x, attributes={"low": low, "high": high})


def _softmax(op: str) -> Importer:
    def importer(call: Call, build: Builder) -> Activation:
        if not call.final:
            raise Unsupported("it is supported as the final layer only")
        x = call.activation()
        return build.emit(op, x, attributes={"axis": _softmax_axis(call, x)})

    return importer


def _softmax_axis(call: Call, x: Activation) -> int:
    """The one axis that is normalised; before operator set 13 that is all axes from the stated one on, as one."""
    axis = axis_of(int(call.attributes.get("axis", 1 if call.opset < 13 else -1)), x.rank)
    if call.opset >= 13:
        return axis
    long = [i for i in range(axis, x.rank) if x.shape[i] > 1] or [axis]
    if len(long) > 1:
        raise Unsupported("it normalises several axes at once")
    return long[0]


IMPORTERS: Mapping[str, Importer] = {
    "Abs": _abs,
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": _leaky_relu,
    "LogSoftmax": _softmax("log_softmax"),
    "PRelu": _p_relu,
    "Relu": _relu,
    "Sigmoid": _sigmoid,
    "Softmax": _softmax("softmax"),
    "Tanh": _tanh,
}
