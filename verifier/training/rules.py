"""How layers and functions of torch enter the graph: one rule each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from verifier.training.layers import Constants, Layer, Statistics, Unsupported

if TYPE_CHECKING:
    from verifier.training.trace import Tracing


def _only_input(node: fx.Node) -> fx.Node:
    source = node.args[0] if node.args else node.kwargs.get("input")
    if not isinstance(source, fx.Node):
        raise Unsupported("its input is not a tensor")
    return source


def _weights(layer: Any) -> Constants:
    def constants(statistics: Statistics) -> Mapping[str, Tensor]:
        return {"weight": layer.weight} if layer.bias is None else {"weight": layer.weight, "bias": layer.bias}

    return constants


def _linear(tracing: Tracing, node: fx.Node, layer: Any) -> None:
    tracing.emit(node, "linear", (_only_input(node),), _weights(layer))


def _convolution(tracing: Tracing, node: fx.Node, layer: Any) -> None:
    if layer.padding_mode != "zeros" or layer.padding == "same":
        raise Unsupported("padding that is not zeros of a fixed number")
    padding = (0,) * len(layer.kernel_size) if layer.padding == "valid" else layer.padding
    tracing.emit(
        node,
        "conv",
        (_only_input(node),),
        _weights(layer),
        stride=layer.stride,
        padding=padding,
        dilation=layer.dilation,
        groups=layer.groups,
    )


def _batch_norm(tracing: Tracing, node: fx.Node, layer: _BatchNorm) -> None:
    """Folded into the layer before it where nobody else reads that."""
    source = _only_input(node)
    before = tracing.layers.get(tracing.same[source])
    if before is not None and before.op in ("linear", "conv") and len(source.users) == 1:
        tracing.same[node] = before.name
        tracing.layers[before.name] = Layer(
            before.name, before.op, before.inputs, before.attributes, _folded(before.constants, layer), before.source
        )
        return
    spatial = (1,) * (len(tracing.shape(node)) - 2)

    def constants(statistics: Statistics) -> Mapping[str, Tensor]:
        scale, shift = _normalising(layer, statistics)
        return {"scale": scale.reshape(-1, *spatial), "shift": shift.reshape(-1, *spatial)}

    tracing.emit(node, "scale", (source,), constants)


def _normalising(layer: _BatchNorm, statistics: Statistics) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) that batch normalisation amounts to."""
    mean, scale = statistics(layer)
    scale = scale if layer.weight is None else scale * layer.weight
    shift = -mean * scale
    return scale, shift if layer.bias is None else shift + layer.bias


def _folded(before: Constants, layer: _BatchNorm) -> Constants:
    def constants(statistics: Statistics) -> Mapping[str, Tensor]:
        scale, shift = _normalising(layer, statistics)
        given = before(statistics)
        weight, bias = given["weight"], given.get("bias")
        scaled = weight * scale.reshape(-1, *(1,) * (weight.dim() - 1))
        return {"weight": scaled, "bias": shift if bias is None else torch.addcmul(shift, bias, scale)}

    return constants


def _average(tracing: Tracing, node: fx.Node, layer: Any) -> None:
    """Average pooling as a convolution of every channel with itself."""
    source = _only_input(node)
    channels, rank = tracing.shape(source)[1], len(tracing.shape(source)) - 2

    def each(value: Any) -> tuple[int, ...]:
        return (value,) * rank if isinstance(value, int) else tuple(value)

    kernel, padding = each(layer.kernel_size), each(layer.padding)
    if layer.ceil_mode or getattr(layer, "divisor_override", None) or (any(padding) and not layer.count_include_pad):
        raise Unsupported("windows that are not all of one size")
    like = next(tracing.module.parameters())

    def constants(statistics: Statistics) -> Mapping[str, Tensor]:
        weight = torch.ones(channels, 1, *kernel, dtype=like.dtype, device=like.device)
        return {"weight": weight / weight[0].numel()}

    settings = {"stride": each(layer.stride), "padding": padding, "dilation": (1,) * rank, "groups": channels}
    tracing.emit(node, "conv", (source,), constants, **settings)


def _relu(tracing: Tracing, node: fx.Node, slope: float) -> None:
    # a number on the CPU, wherever the network is: it mixes with tensors of any device and is read without waiting
    value = torch.tensor(float(slope), dtype=next(tracing.module.parameters()).dtype)
    tracing.emit(node, "relu", (_only_input(node),), lambda statistics: {"slope": value})


def _plain(op: str) -> Callable[..., None]:
    return lambda tracing, node, layer=None: tracing.emit(node, op, (_only_input(node),))


def _clip(tracing: Tracing, node: fx.Node, layer: Any) -> None:
    tracing.emit(node, "clip", (_only_input(node),), low=float(layer.min_val), high=float(layer.max_val))


def _reshape(tracing: Tracing, node: fx.Node, layer: Any = None) -> None:
    shape = tracing.shape(node)
    if shape == tracing.shape(_only_input(node)):
        tracing.pass_on(node)
        return
    if shape[:1] != (1,):
        raise Unsupported("a shape that mixes the batch with other axes")
    tracing.emit(node, "reshape", (_only_input(node),), shape=shape)


def _sum(tracing: Tracing, node: fx.Node) -> None:
    """``add`` and ``sub`` of two values, or of a value and a constant."""
    left, right = node.args[:2]
    negative = getattr(node.target, "__name__", str(node.target)).rstrip("_") in ("sub", "isub")
    constant, other = tracing.value(right), tracing.value(left)
    sign = -1 if negative else 1
    if constant is not None:
        _affine(tracing, node, left, None, lambda: sign * constant())
    elif other is not None:
        _affine(tracing, node, right, (lambda: sign), other)
    elif tracing.shape(left) == tracing.shape(right):  # type: ignore[arg-type]
        tracing.emit(node, "sub" if negative else "add", (left, right))
    else:
        raise Unsupported("operands of different shapes")


def _product(tracing: Tracing, node: fx.Node) -> None:
    """``mul`` and ``truediv`` of a value by a constant."""
    left, right = node.args[:2]
    divides = "div" in getattr(node.target, "__name__", str(node.target))
    constant, other = tracing.value(right), tracing.value(left)
    if constant is not None:
        _affine(tracing, node, left, (lambda: 1 / constant()) if divides else constant, None)
    elif other is not None and not divides:
        _affine(tracing, node, right, other, None)
    else:
        raise Unsupported("a product of two values that depend on the input")


def _affine(
    tracing: Tracing, node: fx.Node, source: Any, scale: Callable[[], Any] | None, shift: Callable[[], Any] | None
) -> None:
    if tracing.shape(node) != tracing.shape(source):
        raise Unsupported("a constant that changes the shape")
    like = next(tracing.module.parameters())

    def tensor(value: Callable[[], Any] | None, default: float) -> Tensor:
        now = default if value is None else value()
        return now if isinstance(now, Tensor) else torch.tensor(float(now), dtype=like.dtype, device=like.device)

    def constants(statistics: Statistics) -> Mapping[str, Tensor]:
        return {"scale": tensor(scale, 1.0), "shift": tensor(shift, 0.0)}

    tracing.emit(node, "scale", (source,), constants)


def _pass(tracing: Tracing, node: fx.Node, layer: Any = None) -> None:
    tracing.pass_on(node)


#: layer -> how it enters the graph
MODULES: Mapping[type[nn.Module], Callable[[Tracing, fx.Node, Any], None]] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Conv3d: _convolution,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
    nn.AvgPool1d: _average,
    nn.AvgPool2d: _average,
    nn.AvgPool3d: _average,
    nn.ReLU: lambda tracing, node, layer: _relu(tracing, node, 0.0),
    nn.LeakyReLU: lambda tracing, node, layer: _relu(tracing, node, layer.negative_slope),
    nn.Sigmoid: _plain("sigmoid"),
    nn.Tanh: _plain("tanh"),
    nn.ReLU6: _clip,
    nn.Hardtanh: _clip,
    nn.Flatten: _reshape,
    nn.Unflatten: _reshape,
    nn.Identity: _pass,
}
#: function or method -> the same
FUNCTIONS: Mapping[str, Callable[[Tracing, fx.Node], None]] = {
    "relu": lambda tracing, node: _relu(tracing, node, 0.0),
    "sigmoid": _plain("sigmoid"),
    "tanh": _plain("tanh"),
    "flatten": _reshape,
    "reshape": _reshape,
    "view": _reshape,
    "contiguous": _pass,
    **dict.fromkeys(("add", "iadd", "sub", "isub"), _sum),
    **dict.fromkeys(("mul", "imul", "truediv", "div"), _product),
}
