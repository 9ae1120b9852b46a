"""A `torch.nn.Module` written as a `Graph` whose constants are the module's own parameters.

The layers are found once, by `torch.fx`. A graph with the tensors of the moment is then made for every step, so the
operators of `verifier.operators` and the dual function see live parameters, and gradients reach them. Batch
normalisation is folded into the layer before it, so it costs the bounds nothing.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.modules.batchnorm import _BatchNorm

from verifier.errors import InputError
from verifier.graph.ir import Graph, Node
from verifier.training.batch_norm import Moments

#: the moments by which a layer normalises
Statistics = Callable[[_BatchNorm], Moments]
#: the constants of a node at this moment
Constants = Callable[[Statistics], Mapping[str, Tensor]]


class Unsupported(Exception):
    """Why a layer cannot be bounded, in words."""


@dataclass(frozen=True)
class Layer:
    """A node of the graph, whose constants are looked up when they are needed."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    constants: Constants
    source: str = ""


@dataclass(frozen=True)
class Trace:
    """The layers of a module in order, and the shapes of their outputs for one input.

    Args:
        traced: the module as torch.fx sees it; it shares all parameters.
    """

    traced: fx.GraphModule
    layers: tuple[Layer, ...]
    input: str
    output: str
    shapes: Mapping[str, tuple[int, ...]]

    def graph(self, statistics: Statistics) -> Graph:
        """The graph of the module's parameters as they are now."""
        nodes = [Node(self.input, "input")]
        for layer in self.layers:
            constants = layer.constants(statistics)
            nodes.append(Node(layer.name, layer.op, layer.inputs, layer.attributes, constants, layer.source))
        return Graph(tuple(nodes), self.input, self.output, self.shapes)


def trace(module: nn.Module, example: Tensor) -> Trace:
    """The layers of a module.

    Args:
        module: of one input and one output.
        example: one input, (1, *X).

    Raises:
        InputError: the module cannot be traced, or has layers without a bound rule; all of them are named.
    """
    where = type(module).__name__
    try:
        traced = fx.symbolic_trace(module)
        training = [m for m in module.modules() if m.training]
        module.eval()
        try:
            with torch.no_grad():
                ShapeProp(traced).propagate(example)
        finally:
            for one in training:
                one.training = True
    except Exception as error:  # torch.fx lets through whatever the module's own code raises
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            where, f"it cannot be traced ({reason})", "write forward() without branches on values"
        ) from error
    return _Tracing(module, traced, where).run()


class _Tracing:
    """One pass over the traced module."""

    def __init__(self, module: nn.Module, traced: fx.GraphModule, where: str):
        self.module, self.traced, self.where = module, traced, where
        self.modules = dict(module.named_modules())
        self.layers: dict[str, Layer] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.same: dict[fx.Node, str] = {}  # the graph's node that holds the value of a traced one
        self.constant: dict[fx.Node, Callable[[], Tensor]] = {}

    def run(self) -> Trace:
        refused, source, result = [], "", None
        for node in self.traced.graph.nodes:
            if node.op == "placeholder":
                if source:
                    raise InputError(self.where, "it has several inputs", "give a network with exactly one input")
                source = self._name(node, node.name)
            elif node.op == "output":
                result = node.args[0]
            else:
                try:
                    self._add(node)
                except Unsupported as error:
                    refused.append(f"{self._source(node)} ({error})")
                    self._name(node, node.name)
        if refused:
            raise InputError(self.where, f"no bound rule for {', '.join(refused)}", "use other layers")
        if not isinstance(result, fx.Node) or result not in self.same:
            raise InputError(self.where, "its result is not one tensor that depends on its input", "return the logits")
        used = {*(name for layer in self.layers.values() for name in layer.inputs), self.same[result]}
        shapes = {name: shape for name, shape in self.shapes.items() if name == source or name in used}
        layers = tuple(layer for layer in self.layers.values() if layer.name in used)
        return Trace(self.traced, layers, source, self.same[result], shapes)

    def _name(self, node: fx.Node, name: str) -> str:
        """Let a traced node be the graph's node of that name."""
        self.same[node] = name
        meta = node.meta.get("tensor_meta")
        self.shapes.setdefault(name, tuple(getattr(meta, "shape", ())))
        return name

    def _source(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return f"{type(self.modules[str(node.target)]).__name__} '{node.target}'"
        return f"{getattr(node.target, '__name__', node.target)} '{node.name}'"

    def _add(self, node: fx.Node) -> None:
        if node.op == "get_attr":
            self.constant[node] = lambda: operator.attrgetter(str(node.target))(self.module)
        elif node.op == "call_module":
            self._module(node, self.modules[str(node.target)])
        else:
            name = getattr(node.target, "__name__", str(node.target)).rstrip("_")
            if name not in _FUNCTIONS:
                raise Unsupported("not a function that can be bounded")
            _FUNCTIONS[name](self, node)

    def _module(self, node: fx.Node, layer: nn.Module) -> None:
        rule = next((rule for kind, rule in _MODULES.items() if isinstance(layer, kind)), None)
        if rule is None or getattr(layer, "_forward_hooks", None):
            raise Unsupported("not a layer that can be bounded")
        rule(self, node, layer)

    def emit(
        self, node: fx.Node, op: str, sources: Sequence[Any], constants: Constants | None = None, **attributes: Any
    ):
        """Append the graph's node of a traced one."""
        names = []
        for source in sources:
            if source not in self.same:
                raise Unsupported("an input that is not computed from the network's")
            names.append(self.same[source])
        name = self._name(node, node.name)
        self.layers[name] = Layer(name, op, tuple(names), attributes, constants or _none, self._source(node))

    def pass_on(self, node: fx.Node) -> None:
        self.same[node] = self.same[node.args[0]]  # type: ignore[index]

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        return tuple(node.meta["tensor_meta"].shape)

    def value(self, argument: Any) -> Callable[[], Any] | None:
        """A number or a tensor of the module; None for what is computed from the input."""
        if isinstance(argument, fx.Node):
            return self.constant.get(argument)
        return lambda: argument


def _none(statistics: Statistics) -> Mapping[str, Tensor]:
    return {}


def _only_input(node: fx.Node) -> fx.Node:
    source = node.args[0] if node.args else node.kwargs.get("input")
    if not isinstance(source, fx.Node):
        raise Unsupported("its input is not a tensor")
    return source


def _weights(layer: Any) -> Constants:
    def constants(statistics: Statistics) -> Mapping[str, Tensor]:
        return {"weight": layer.weight} if layer.bias is None else {"weight": layer.weight, "bias": layer.bias}

    return constants


def _linear(tracing: _Tracing, node: fx.Node, layer: Any) -> None:
    tracing.emit(node, "linear", (_only_input(node),), _weights(layer))


def _convolution(tracing: _Tracing, node: fx.Node, layer: Any) -> None:
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


def _batch_norm(tracing: _Tracing, node: fx.Node, layer: _BatchNorm) -> None:
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


def _average(tracing: _Tracing, node: fx.Node, layer: Any) -> None:
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


def _relu(tracing: _Tracing, node: fx.Node, slope: float) -> None:
    # a number on the CPU, wherever the network is: it mixes with tensors of any device and is read without waiting
    value = torch.tensor(float(slope), dtype=next(tracing.module.parameters()).dtype)
    tracing.emit(node, "relu", (_only_input(node),), lambda statistics: {"slope": value})


def _plain(op: str) -> Callable[..., None]:
    return lambda tracing, node, layer=None: tracing.emit(node, op, (_only_input(node),))


def _clip(tracing: _Tracing, node: fx.Node, layer: Any) -> None:
    tracing.emit(node, "clip", (_only_input(node),), low=float(layer.min_val), high=float(layer.max_val))


def _reshape(tracing: _Tracing, node: fx.Node, layer: Any = None) -> None:
    shape = tracing.shape(node)
    if shape == tracing.shape(_only_input(node)):
        tracing.pass_on(node)
        return
    if shape[:1] != (1,):
        raise Unsupported("a shape that mixes the batch with other axes")
    tracing.emit(node, "reshape", (_only_input(node),), shape=shape)


def _sum(tracing: _Tracing, node: fx.Node) -> None:
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


def _product(tracing: _Tracing, node: fx.Node) -> None:
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
    tracing: _Tracing, node: fx.Node, source: Any, scale: Callable[[], Any] | None, shift: Callable[[], Any] | None
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


def _pass(tracing: _Tracing, node: fx.Node, layer: Any = None) -> None:
    tracing.pass_on(node)


_MODULES: Mapping[type[nn.Module], Callable[[_Tracing, fx.Node, Any], None]] = {
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
_FUNCTIONS: Mapping[str, Callable[[_Tracing, fx.Node], None]] = {
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
