"""Rewrites that make a graph smaller and leave what it computes unchanged in real arithmetic.

Each rule looks at one node and returns its replacement: a node of the same name that reads earlier inputs. Nodes that
nobody reads any more then disappear. So every name that survives keeps its value, and can still be compared with the
tensor of that name in the file. Weights are combined in float64.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from verifier.graph.checks import check
from verifier.graph.ir import Graph, Node
from verifier.graph.shapes import Shape, shape_of


@dataclass(frozen=True)
class View:
    """What a rule may look at.

    Args:
        nodes: all nodes by name, as rewritten so far.
        shapes: their shapes.
        readers: how many inputs read each node.
    """

    nodes: Mapping[str, Node]
    shapes: Mapping[str, Shape]
    readers: Mapping[str, int]

    def producer(self, node: Node, *ops: str) -> Node | None:
        """The node that `node` reads, if it is one of `ops` and nobody else reads it."""
        source = self.nodes[node.inputs[0]] if len(node.inputs) == 1 else None
        alone = source is not None and source.op in ops and self.readers[source.name] == 1
        return source if alone else None


Rule = Callable[[Node, View], Node | None]


def along(constant: np.ndarray, shape: Shape, axis: int) -> np.ndarray | None:
    """The constant as a vector along one axis of `shape`, or None where it varies along another axis."""
    full = (1,) * (len(shape) - constant.ndim) + constant.shape
    if any(size != 1 for i, size in enumerate(full) if i != axis):
        return None
    return np.broadcast_to(constant.reshape(-1), (shape[axis],)).copy()  # torch wants writable memory


def scale_after_layer(node: Node, view: View) -> Node | None:
    """``scale(layer(x))``: the layer's outputs are scaled instead."""
    layer = view.producer(node, "linear", "conv", "conv_transpose")
    if node.op != "scale" or layer is None:
        return None
    shape = view.shapes[node.name]
    axis = len(shape) - 1 if layer.op == "linear" else 1
    scale, shift = (along(node.constants[name], shape, axis) for name in ("scale", "shift"))
    if scale is None or shift is None:
        return None
    weight = layer.constants["weight"]
    if layer.op == "conv_transpose":
        weight = _times_transposed(weight, scale, layer.attributes["groups"])
    else:
        weight = weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    bias = layer.constants.get("bias")
    bias = shift if bias is None else bias * scale + shift
    return replace(layer, name=node.name, constants=_constants(weight, bias))


def _times_transposed(weight: np.ndarray, scale: np.ndarray, groups: int) -> np.ndarray:
    """Scale the output channels of a transposed convolution; weight (in, out/groups, *k)."""
    grouped = weight.reshape(groups, -1, *weight.shape[1:])
    return (grouped * scale.reshape(groups, 1, -1, *(1,) * (weight.ndim - 2))).reshape(weight.shape)


def scale_before_layer(node: Node, view: View) -> Node | None:
    """``layer(scale(x))``: the layer's inputs are scaled instead. Zero padding stays zero only without a shift."""
    first = view.producer(node, "scale")
    if node.op not in ("linear", "conv") or first is None:
        return None
    shape = view.shapes[first.name]
    axis = len(shape) - 1 if node.op == "linear" else 1
    scale, shift = (along(first.constants[name], shape, axis) for name in ("scale", "shift"))
    if scale is None or shift is None or (node.op == "conv" and any(node.attributes["padding"]) and shift.any()):
        return None
    weight = node.constants["weight"]
    if node.op == "linear":
        scaled, extra = weight * scale, weight @ shift
    else:
        scaled, extra = _times_inputs(weight, scale, shift, node.attributes["groups"])
    bias = node.constants.get("bias")
    bias = extra if bias is None else bias + extra
    return replace(node, inputs=first.inputs, constants=_constants(scaled, bias))


def _times_inputs(
    weight: np.ndarray, scale: np.ndarray, shift: np.ndarray, groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """Weight (out, in/groups, *k) with its input channels scaled, and what the shifts add to each output channel."""
    spatial = (1,) * (weight.ndim - 2)
    grouped = weight.reshape(groups, -1, *weight.shape[1:])
    scaled = grouped * scale.reshape(groups, 1, -1, *spatial)
    extra = (grouped * shift.reshape(groups, 1, -1, *spatial)).reshape(weight.shape[0], -1).sum(axis=1)
    return scaled.reshape(weight.shape), extra


def scale_of_scale(node: Node, view: View) -> Node | None:
    first = view.producer(node, "scale")
    if node.op != "scale" or first is None:
        return None
    scale = first.constants["scale"] * node.constants["scale"]
    shift = first.constants["shift"] * node.constants["scale"] + node.constants["shift"]
    return replace(node, inputs=first.inputs, constants={"scale": scale, "shift": shift})


def linear_of_linear(node: Node, view: View) -> Node | None:
    """One matrix for two, unless the product has more entries than both: a bottleneck is cheaper as it is."""
    first = view.producer(node, "linear")
    if node.op != "linear" or first is None:
        return None
    inner, outer = first.constants["weight"], node.constants["weight"]
    if outer.shape[0] * inner.shape[1] > outer.size + inner.size:
        return None
    bias = node.constants.get("bias")
    if "bias" in first.constants:
        bias = outer @ first.constants["bias"] + (0 if bias is None else bias)
    return replace(node, inputs=first.inputs, constants=_constants(outer @ inner, bias))


def reshape_of_reshape(node: Node, view: View) -> Node | None:
    first = view.nodes[node.inputs[0]] if node.op == "reshape" else None
    return replace(node, inputs=first.inputs) if first is not None and first.op == "reshape" else None


def _constants(weight: np.ndarray, bias: np.ndarray | None) -> dict[str, np.ndarray]:
    return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}


def does_nothing(node: Node, view: View) -> bool:
    """Whether a node returns its only input unchanged."""
    if node.op not in ("scale", "expand", "reshape", "transpose", "take", "pad", "sum", "concat"):
        return False
    if len(node.inputs) != 1 or view.shapes[node.inputs[0]] != view.shapes[node.name]:
        return False
    if node.op == "scale":
        return bool((node.constants["scale"] == 1).all() and not node.constants["shift"].any())
    if node.op == "transpose":
        return list(node.attributes["perm"]) == sorted(node.attributes["perm"])
    if node.op == "take":
        return bool((np.diff(node.constants["indices"]) == 1).all())
    return True  # of equal shapes


RULES: tuple[Rule, ...] = (
    scale_of_scale,
    scale_after_layer,
    scale_before_layer,
    linear_of_linear,
    reshape_of_reshape,
)


def simplify(graph: Graph) -> Graph:
    """Apply every rule until none applies; the result computes the same function, node by node of the same name."""
    while True:
        smaller = _apply_rules(_drop_idle(graph))
        if smaller is graph:
            return graph
        graph = smaller


def view_of(graph: Graph) -> View:
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    return View({node.name: node for node in graph.nodes}, graph.shapes, readers)


def _apply_rules(graph: Graph) -> Graph:
    view = view_of(graph)
    nodes = dict(view.nodes)
    view = replace(view, nodes=nodes)
    changed = False
    for name in view.nodes:
        while (better := _first_match(nodes[name], view)) is not None:
            nodes[name], changed = better, True
    return rebuild(graph, tuple(nodes.values()), graph.output) if changed else graph


def _first_match(node: Node, view: View) -> Node | None:
    """What the first rule that applies makes of a node; products that overflow float64 are not merged."""
    with np.errstate(all="ignore"):
        options = (rule(node, view) for rule in RULES)
        return next((better for better in options if better is not None and _finite(better)), None)


def _finite(node: Node) -> bool:
    return all(np.isfinite(value).all() for value in node.constants.values())


def _drop_idle(graph: Graph) -> Graph:
    """Readers of a node that does nothing read its input instead. As the output it gives its name to that input."""
    view = view_of(graph)
    instead: dict[str, str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        node = replace(node, inputs=tuple(instead.get(name, name) for name in node.inputs))
        keeps_input_apart = node.name == graph.output and node.inputs == (graph.input,)
        if does_nothing(node, view) and not keeps_input_apart:
            instead[node.name] = node.inputs[0]
        else:
            nodes.append(node)
    if not instead:
        return graph
    return _renamed(graph, nodes, instead.get(graph.output, graph.output))


def _renamed(graph: Graph, nodes: list[Node], output: str) -> Graph:
    """The graph of these nodes, where `output` takes the name of the former output, which is gone."""
    names = {output: graph.output}
    renamed = tuple(
        replace(node, name=names.get(node.name, node.name), inputs=tuple(names.get(x, x) for x in node.inputs))
        for node in nodes
    )
    return rebuild(graph, renamed, graph.output)


def rebuild(graph: Graph, nodes: tuple[Node, ...], output: str) -> Graph:
    """A checked graph of those of the nodes (in topological order) that the output needs, and of the input."""
    needed = {output, graph.input}
    for node in reversed(nodes):
        if node.name in needed:
            needed.update(node.inputs)
    shapes: dict[str, Shape] = {graph.input: graph.shapes[graph.input]}
    kept = [node for node in nodes if node.name in needed]
    for node in kept:
        if node.op != "input":
            shapes[node.name] = shape_of(node, [shapes[name] for name in node.inputs])
    return check(Graph(tuple(kept), graph.input, output, shapes, graph.file))
