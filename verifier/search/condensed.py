"""A network over a region as its undecided neurons alone.

A ReLU that is decided all over a region is affine there. Where most are, as behind the convolutions of networks that
were trained for robustness, every undecided neuron is an affine function of the input and of few other neurons: a
search then takes small products of dense matrices in place of all layers. Subproblems stay the same, entry by entry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from verifier.bounding.dual import DualPoint, Objective, Relaxation
from verifier.bounding.rounding import bound_with_scale
from verifier.graph.ir import Graph, Node
from verifier.operators.cost import multiply_adds
from verifier.operators.table import OPERATORS
from verifier.relaxations.cuts import Cuts
from verifier.relaxations.envelope import Chord, Envelope
from verifier.search.subproblem import Frame
from verifier.specs.box import flat, flat_rows
from verifier.specs.region import Box

#: what convolutions take in the time of a multiply-add of dense products: one of theirs, and an entry of an activation
CONVOLVED, ENTRY = 2.75, 550.0
#: multiply-adds that finding the condensed network may take, some seconds
MOST_WORK = 10**10
#: beginnings of the names of the condensed network's own nodes
NAMES = ENTRIES, AFFINE, OUTPUTS, OUTPUT, OF_INPUT, OF_NEURONS, UP_TO = (
    *("condensed input", "condensed affine part", "condensed output entries", "condensed outputs"),
    *("condensed from the input", "condensed from neurons", "condensed up to"),
)
#: memory that coefficients on the widest layer take meanwhile
CHUNK_BYTES = 32 << 20


@dataclass(frozen=True)
class _Layer:
    """The neurons of an activation that stay.

    Args:
        node: the activation; None for the network's output, all of whose entries stay.
        source: node whose entries they are.
        index: (k,) flat indices.
        slope: (*X) of all others, zero for those that stay.
    """

    node: Node | None
    source: str
    index: Tensor
    slope: Tensor | None = None


@dataclass(frozen=True)
class _Affine:
    """The entries of a layer as an affine function.

    Args:
        weight: (k, n) coefficients on the input.
        links: (k, m) coefficients on the outputs of all neurons that stay in the layers before.
        bias: (k,).
        scale: (B, k) sum of the absolute values of all products behind them, as of `bound_with_scale`.
    """

    weight: Tensor
    links: Tensor
    bias: Tensor
    scale: Tensor


def condensed(frame: Frame, most: float) -> Frame | None:
    """The same subproblems of the condensed network.

    Args:
        frame: in float64.
        most: time that the condensed network takes by estimate, at most, in multiples of the network's own.

    Returns:
        None where the network has no undecided neurons or too many, or activations other than ReLUs that have their
        input for themselves.
    """
    problem = frame.problem
    layers = _layers(frame)
    outputs = _outputs(problem.graph, problem.rows.objective)
    own, open_ = multiply_adds(problem.graph), sum(len(layer.index) for layer in layers)
    count = open_ + len(outputs.index)
    entries = sum(torch.Size(problem.graph.shapes[layer.source]).numel() for layer in layers)
    time = CONVOLVED * own + ENTRY * entries
    work = _work(problem.graph, [*layers, outputs])
    if open_ == 0 or count * own > MOST_WORK or work > most * time or _taken(problem.graph):
        return None
    envelopes = {layer.node.name: _decided(layer) for layer in layers if layer.node is not None}
    layers = [*(layer for layer in layers if len(layer.index)), outputs]
    parts = [_affine(frame, envelopes, layers[:number], layer) for number, layer in enumerate(layers)]
    graph, names = _graph(problem.graph, layers, parts)
    kept = {layer.node.name: layer for layer in layers if layer.node is not None}
    boxes = {
        name: _picked(frame.boxes[name], layer.index) for node, layer in kept.items() for name in (layer.source, node)
    }
    # in the order of the frame's, which is that of the subproblems' multipliers
    cuts = {name: _renumbered(cut, kept[name].index) for name, cut in frame.cuts.items()}
    rows = replace(problem.rows, objective=replace(problem.rows.objective, node=graph.output))
    scales = {name: part.scale for name, part in zip(names, parts, strict=True)}
    return replace(Frame.of(replace(problem, graph=graph, rows=rows), boxes, cuts), scales=scales)


def _layers(frame: Frame) -> list[_Layer]:
    """The neurons of all activations that are undecided or that cuts name; none where some activations are no ReLUs, or
    not alone on an affine node before them.

    Cuts can be older than the boxes, and groups of few neurons are filled up with any: decided ones among them stay.
    """
    graph, found = frame.problem.graph, list[_Layer]()
    for node in graph.nodes:
        if node.op == "input" or OPERATORS[node.op].adjoint is not None:
            continue
        taken = {graph.input, *(layer.source for layer in found), *(layer.node.name for layer in found if layer.node)}
        if node.op != "relu" or node.inputs[0] in taken:
            return []
        box, slope = frame.boxes[node.inputs[0]], node.constants["slope"]
        on, off = (box.lower >= 0).all(0), (box.upper <= 0).all(0)
        kept = (~on & ~off).reshape(-1)
        if node.name in frame.cuts:
            kept[frame.cuts[node.name].index.reshape(-1)] = True
        through = torch.where(on, 1, torch.where(off, slope, 0)).to(slope).masked_fill(kept.reshape(on.shape), 0)
        found.append(_Layer(node, node.inputs[0], kept.nonzero()[:, 0], through))
    return found


def _decided(layer: _Layer) -> Envelope:
    """What is passed back through an activation to its decided neurons; its coefficients on the others are kept."""
    assert layer.slope is not None
    line = Chord(layer.slope.unsqueeze(0), None)
    return Envelope(line, line)


def _outputs(graph: Graph, objective: Objective) -> _Layer:
    size = torch.Size(graph.shapes[objective.node]).numel()
    return _Layer(None, objective.node, torch.arange(size, device=objective.C.device))


def _taken(graph: Graph) -> bool:
    """Whether a network uses a name that the condensed one needs."""
    return any(name.startswith(NAMES) for name in graph.shapes)


def _work(graph: Graph, layers: Sequence[_Layer]) -> int:
    """Multiply-adds of the undecided neurons as functions of the input and of each other."""
    total, before = 0, torch.Size(graph.input_shape).numel()
    for layer in layers:
        total += before * len(layer.index)
        before += len(layer.index)
    return total


@torch.no_grad()
def _affine(frame: Frame, envelopes: Mapping[str, Envelope], before: Sequence[_Layer], layer: _Layer) -> _Affine:
    """The entries of a layer, pushed back through what is decided to the input and to the neurons that stay."""
    graph, like = frame.problem.graph, frame.problem.rows.objective.C
    relaxation, shape = Relaxation(frame.boxes, envelopes), graph.shapes[layer.source]
    wanted = {graph.input, *(b.node.name for b in before if b.node is not None)}

    def pushed(index: Tensor) -> _Affine:
        C = like.new_zeros(1, len(index), torch.Size(shape).numel()).scatter_(2, index.reshape(1, -1, 1), 1.0)
        objective = Objective(layer.source, C.reshape(1, len(index), *shape))
        found: dict[str, Tensor] = {}

        def note(name: str, A: Tensor | None) -> None:
            if A is not None and name in wanted:
                found[name] = A

        linear, scale = bound_with_scale(
            graph, relaxation, objective, DualPoint(), watch=lambda node, A: note(node.name, A)
        )
        note(graph.input, linear.A.get(graph.input))

        def on(name: str, shape: tuple[int, ...]) -> Tensor:
            size = torch.Size(shape).numel()
            return flat_rows(found[name])[0] if name in found else like.new_zeros(len(index), size)

        weight = on(graph.input, graph.input_shape)
        links = [on(b.node.name, graph.shapes[b.source])[:, b.index] for b in before if b.node is not None]
        links = torch.cat([weight[:, :0], *links], 1)
        return _Affine(weight, links, linear.constant[0].expand(len(index)), scale.expand(-1, len(index)))

    widest = max(torch.Size(shape).numel() for shape in graph.shapes.values())
    parts = [pushed(index) for index in layer.index.split(max(1, CHUNK_BYTES // (widest * like.element_size())))]
    weight, links, bias = (torch.cat([getattr(part, name) for part in parts]) for name in ("weight", "links", "bias"))
    return _Affine(weight, links, bias, torch.cat([part.scale for part in parts], 1))


@dataclass
class _Builder:
    """A graph in the making."""

    nodes: list[Node]
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def add(self, node: Node, shape: tuple[int, ...]) -> str:
        self.nodes.append(node)
        self.shapes[node.name] = shape
        return node.name


def _graph(old: Graph, layers: Sequence[_Layer], parts: Sequence[_Affine]) -> tuple[Graph, list[str]]:
    """The condensed network, and the nodes that hold the entries of each layer.

    All of the input's parts are one product, so that the minimum over the input set is taken once.
    """
    built = _Builder([old.nodes[0]], {old.input: old.input_shape})
    size = torch.Size(old.input_shape).numel()
    entries = built.add(Node(ENTRIES, "reshape", (old.input,), {"shape": (size,)}), (size,))
    constants = {"weight": torch.cat([p.weight for p in parts]), "bias": torch.cat([p.bias for p in parts])}
    affine = built.add(Node(AFFINE, "linear", (entries,), constants=constants), tuple(constants["bias"].shape))
    numbers = torch.arange(len(constants["bias"]), device=constants["bias"].device)
    neurons, names = "", []
    for layer, part, rows in zip(layers, parts, numbers.split([len(p.bias) for p in parts]), strict=True):
        name, shape = layer.source if layer.node else OUTPUTS, (len(part.bias),)
        own = Node(f"{OF_INPUT} {name}" if neurons else name, "take", (affine,), {"axis": 0}, {"indices": rows})
        names.append(built.add(own, shape))
        if neurons:
            of_neurons = Node(f"{OF_NEURONS} {name}", "linear", (neurons,), constants={"weight": part.links})
            names[-1] = built.add(Node(name, "add", (own.name, built.add(of_neurons, shape))), shape)
        if layer.node is None:
            continue
        slope = layer.node.constants["slope"]
        if slope.numel() > 1:
            slope = slope.expand(old.shapes[layer.source]).reshape(-1)[layer.index]
        relu = built.add(
            replace(layer.node, constants={"slope": slope.reshape(shape if slope.numel() > 1 else ())}), shape
        )
        if neurons:
            both = (built.shapes[neurons][0] + shape[0],)
            relu = built.add(Node(f"{UP_TO} {relu}", "concat", (neurons, relu), {"axis": 0}), both)
        neurons = relu
    shape = old.shapes[layers[-1].source]
    output = built.add(Node(OUTPUT, "reshape", (names[-1],), {"shape": shape}), shape)
    return Graph(tuple(built.nodes), old.input, output, built.shapes), names


def _picked(box: Box, index: Tensor) -> Box:
    return Box(flat(box.lower)[:, index], flat(box.upper)[:, index])


def _renumbered(cuts: Cuts, index: Tensor) -> Cuts:
    """Cuts whose neurons count among those at `index` alone, which has all of them."""
    return replace(cuts, index=torch.searchsorted(index, cuts.index))
