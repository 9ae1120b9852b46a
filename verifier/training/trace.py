"""A `torch.nn.Module` written as a `Graph` whose constants are the module's own parameters.

The layers are found once, by `torch.fx`. A graph with the tensors of the moment is then made for every step, so the
operators of `verifier.operators` and the dual function see live parameters, and gradients reach them. Batch
normalisation is folded into the layer before it, so it costs the bounds nothing.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from verifier.errors import InputError
from verifier.training.graph_network import GraphNetwork
from verifier.training.layers import Constants, Layer, Statistics, Trace, Unsupported, nothing
from verifier.training.modes import evaluating
from verifier.training.rules import FUNCTIONS, MODULES


def trace(module: nn.Module, example: Tensor) -> Trace:
    """The layers of a module.

    Args:
        module: of one input and one output.
        example: one input, (1, *X).

    Raises:
        InputError: the module cannot be traced, or has layers without a bound rule; all of them are named.
    """
    if isinstance(module, GraphNetwork):
        return _structure(module)
    where = type(module).__name__
    try:
        traced = fx.symbolic_trace(module)
        with evaluating(module), torch.no_grad():
            ShapeProp(traced).propagate(example)
    except Exception as error:  # torch.fx lets through whatever the module's own code raises
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            where, f"it cannot be traced ({reason})", "write forward() without branches on values"
        ) from error
    return Tracing(module, traced, where).run()


def _structure(network: GraphNetwork) -> Trace:
    """The layers of a module that has its graph already."""
    graph = network.structure
    layers = tuple(
        Layer(node.name, node.op, node.inputs, node.attributes, partial(_of_node, network, i), node.source)
        for i, node in enumerate(graph.nodes)
        if node.op != "input"
    )
    return Trace(network, layers, graph.input, graph.output, graph.shapes)


def _of_node(network: GraphNetwork, number: int, statistics: Statistics) -> Mapping[str, Tensor]:
    return network.constants(number)


class Tracing:
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
            if name not in FUNCTIONS:
                raise Unsupported("not a function that can be bounded")
            FUNCTIONS[name](self, node)

    def _module(self, node: fx.Node, layer: nn.Module) -> None:
        rule = next((rule for kind, rule in MODULES.items() if isinstance(layer, kind)), None)
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
        self.layers[name] = Layer(name, op, tuple(names), attributes, constants or nothing, self._source(node))

    def pass_on(self, node: fx.Node) -> None:
        self.same[node] = self.same[node.args[0]]  # type: ignore[index]

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        return tuple(node.meta["tensor_meta"].shape)

    def value(self, argument: Any) -> Callable[[], Any] | None:
        """A number or a tensor of the module; None for what is computed from the input."""
        if isinstance(argument, fx.Node):
            return self.constant.get(argument)
        return lambda: argument
