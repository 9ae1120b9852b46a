"""The dual function: the one place where certified bounds come from.

`lower_bound` is sound for *every* dual point. CROWN (Zhang et al. 2018, arXiv 1811.00866) evaluates it at one fixed
point, alpha-CROWN (Xu et al. 2021, arXiv 2011.13824) climbs it, and an LP's dual solution is a point of it as well.

Axes: B batch, S objective rows, ``*X`` the shape of a node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from verifier.bounding.first_layer import first_layer, minimum_through
from verifier.bounding.relax import relax
from verifier.graph.ir import Graph, Node
from verifier.operators.table import OPERATORS
from verifier.relaxations.cuts import JointBound
from verifier.relaxations.envelope import Envelope
from verifier.specs.region import Box, Region


@dataclass(frozen=True)
class Objective:
    """Rows ``<C, value of node> + offset`` whose minimum over a region is sought.

    Args:
        node: name of a node.
        C: (B, S, *X) coefficients; B may be 1 where all of the batch share the rows.
        offset: (B, S) or None for zero.
    """

    node: str
    C: Tensor
    offset: Tensor | None = None


@dataclass(frozen=True)
class DualPoint:
    """The free arguments of the dual function.

    Args:
        weights: for each activation, the weights of its lower and its upper family, (B, S, *X) or (B, 1, *X) in
            [0, 1]; None (or no entry) takes CROWN's adaptive rule.
        multipliers: for each node with split constraints, their multipliers, (B, S, *X) >= 0; no entry is zero.
        cut_multipliers: for each activation with cuts, theirs, in the shape and range that the cuts want (see
            `Cuts` and `Hulls`); no entry is zero.
    """

    weights: Mapping[str, tuple[Tensor | None, Tensor | None]] = field(default_factory=dict)
    multipliers: Mapping[str, Tensor] = field(default_factory=dict)
    cut_multipliers: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class WindowPoint:
    """A dual point for N entries of a convolutional node and their negatives, as `verifier.bounding.windows` has it.

    Args:
        point: its weights (N, 2, h, w, C) lie under the window that an entry's receptive field is on each activation.
    """

    point: DualPoint


@dataclass(frozen=True)
class CasePoint:
    """Dual points for the cases that trees distinguish, one tree for each of N rows (see `verifier.bounding.cases`).

    Args:
        splits: leaves and neurons (M,), round by round. Leaf i < N starts as row i without any assumption. A split
            turns a leaf into the case that the neuron's input is not negative; that it is not positive becomes a new
            leaf, after all others. Neurons count through all activations below the rows that can be split.
        point: of the leaves, (L, 1, *X).
    """

    splits: tuple[tuple[Tensor, Tensor], ...]
    point: DualPoint


#: how some entries of a node were bounded
AnyPoint = DualPoint | WindowPoint | CasePoint


@dataclass(frozen=True)
class Split:
    """Constraints ``sign * (x - point) >= 0`` on the entries of a node's value, which a subproblem assumes.

    Args:
        sign: (B, *X), -1 or 1, and 0 for no constraint.
        point: (B, *X), or None for zero everywhere (the kink of a ReLU).
    """

    sign: Tensor
    point: Tensor | None = None


#: rules for the line weights of CROWN
Slopes = Literal["adaptive", "zero", "one"]


def fixed_point(envelopes: Mapping[str, Envelope], slopes: Slopes) -> DualPoint:
    """The dual point of CROWN without a choice per neuron, or (``adaptive``) with its own.

    ``zero`` and ``one`` take the first and the last line of every family: for ReLU, the lower line of slope 0
    (as in Fast-Lin's dual) and of slope 1.
    """
    if slopes == "adaptive":
        return DualPoint()
    value = 0.0 if slopes == "zero" else 1.0

    def fill(default: Tensor | None) -> Tensor | None:
        return None if default is None else torch.full_like(default, value).unsqueeze(1)

    return DualPoint({name: (fill(e.lower.default), fill(e.upper.default)) for name, e in envelopes.items()})


@dataclass(frozen=True)
class Relaxation:
    """A network over a region, relaxed: what the dual function needs besides objective and dual point.

    Args:
        boxes: interval of every node known so far.
        envelopes: of activations, each from the box of its input. Where an activation has none, the dual function
            stops at its output and uses that node's box: with no envelopes at all it is interval propagation.
        steps: for each node whose box was tightened, the rows (B, R) and dual points that did it, as evidence.
        splits: for each node that is split, what is assumed of its value on top of the region.
        cuts: for each activation that has some, what is known jointly of its neurons' inputs and outputs.
    """

    boxes: Mapping[str, Box]
    envelopes: Mapping[str, Envelope]
    steps: Mapping[str, tuple[tuple[Tensor, AnyPoint], ...]] = field(default_factory=dict)
    splits: Mapping[str, Split] = field(default_factory=dict)
    cuts: Mapping[str, JointBound] = field(default_factory=dict)


@dataclass(frozen=True)
class LinearBound:
    """``sum_name <A[name], value of name> + constant`` lies below the objective everywhere on the region.

    Where splits are assumed, it does so only at the points of the region that meet them.

    Args:
        A: coefficients (B, S, *X) on the network's input and on activations where the push stopped.
        constant: (B, S).
    """

    A: Mapping[str, Tensor]
    constant: Tensor


def lower_bound(
    graph: Graph, region: Region, relaxation: Relaxation, objective: Objective, dual: DualPoint | None = None
) -> Tensor:
    """Lower bounds (B, S) of the objective's rows over a region, sound for every dual point.

    Args:
        graph: placed graph; every operator below the objective's node has a bound rule.
        region: input set (batch B).
        relaxation: boxes that enclose the nodes' values over the region, and envelopes over these boxes.
        objective: the rows.
        dual: the dual point; None is CROWN's.
    """
    chain = first_layer(graph) if isinstance(region, Box) and not _trained(graph, region) else ()
    if objective.node in {name for node in chain for name in node.inputs}:
        chain = ()  # the objective is on this side of the layer, and splits may put coefficients on the other one
    stop = chain[-1].name if chain else None
    bound = linear_bound(graph, relaxation.envelopes, objective, dual, relaxation.splits, None, relaxation.cuts, stop)
    total = bound.constant
    for name, A in bound.A.items():
        if name == stop:
            assert isinstance(region, Box)
            movable = None if name == objective.node else _movable(graph, relaxation, name)
            total = total + minimum_through(graph, chain, region, A, movable)
        else:
            total = total + (region if name == graph.input else relaxation.boxes[name]).minimum(A)
    return total


def envelopes_over(graph: Graph, relaxation: Relaxation, boxes: Mapping[str, Box]) -> dict[str, Envelope]:
    """The envelopes of the activations that have one, over other boxes of their inputs."""
    return {
        node.name: OPERATORS[node.op].envelope(node, boxes[node.inputs[0]])  # type: ignore[misc]
        for node in graph.nodes
        if node.name in relaxation.envelopes
    }


def _movable(graph: Graph, relaxation: Relaxation, name: str) -> Tensor | None:
    """Entries (B, *X) of a node whose coefficients can be other than zero at some dual point; None for all of them.

    Neurons of which every line is horizontal, inactive ReLUs above all, pass none on; splits add some, and cuts may.
    """
    consumers = [node for node in graph.nodes if name in node.inputs]
    if not all(node.name in relaxation.envelopes for node in consumers):
        return None
    if any(node.name in relaxation.cuts for node in consumers):
        return None
    level = [side.level for node in consumers for side in vars(relaxation.envelopes[node.name]).values()]
    if not level:
        return None
    movable = ~torch.stack(torch.broadcast_tensors(*level)).all(0)
    return movable | (relaxation.splits[name].sign != 0) if name in relaxation.splits else movable


def _trained(graph: Graph, box: Box) -> bool:
    """Whether gradients are wanted with respect to more than the dual point: then every step is left to autograd."""
    tensors = [box.lower, box.upper, *(x for node in graph.nodes for x in node.constants.values())]
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def linear_bound(
    graph: Graph,
    envelopes: Mapping[str, Envelope],
    objective: Objective,
    dual: DualPoint | None = None,
    splits: Mapping[str, Split] = MappingProxyType({}),
    watch: Callable[[Node, Tensor], None] | None = None,
    cuts: Mapping[str, JointBound] = MappingProxyType({}),
    stop: str | None = None,
) -> LinearBound:
    """Push an objective back towards the input: at an activation every coefficient takes the line of its sign.

    A split ``sign * (x - point) >= 0`` enters with its multiplier as in beta-CROWN (Wang et al. 2021, arXiv
    2103.06624): subtracting a non-negative multiple of what is non-negative can only lower the objective. So do cuts,
    in part on the activation's output and in part on its input.

    Args:
        splits: what is assumed of nodes; those whose multipliers are in `dual` enter.
        watch: called with every node that is reached (but for the input) and the coefficients on it.
        cuts: of activations; those whose multipliers are in `dual` enter.
        stop: name of a node where the push ends, whose coefficients are then part of the result.
    """
    dual = dual or DualPoint()
    pending: dict[str, Tensor] = {objective.node: objective.C}
    zero = objective.C.new_zeros(objective.C.shape[:2])
    constants = [zero if objective.offset is None else objective.offset]
    stopped: dict[str, Tensor] = {}
    for node in reversed(graph.nodes):
        A = pending.pop(node.name, None)
        if A is None:
            if node.name not in dual.multipliers:
                continue
            A = objective.C.new_zeros(*objective.C.shape[:2], *graph.shapes[node.name])
        if node.name in dual.multipliers:
            A, constant = _apply_split(A, splits[node.name], dual.multipliers[node.name])
            constants += [] if constant is None else [constant]
        operator, on_input = OPERATORS.get(node.op), None
        if node.name in dual.cut_multipliers and node.name in envelopes:
            A, on_input, constant = _apply_cuts(A, cuts[node.name], dual.cut_multipliers[node.name])
            constants.append(constant)
        if watch is not None and operator is not None:
            watch(node, A)
        if node.name == stop or operator is None or (operator.adjoint is None and node.name not in envelopes):
            stopped[node.name] = A  # here, at the input, or at an activation without an envelope
            continue
        if operator.adjoint is None:
            envelope, pair = envelopes[node.name], dual.weights.get(node.name, (None, None))
            part, constant = relax(A, envelope.lower.line(pair[0]), envelope.upper.line(pair[1]))
            parts: tuple[Tensor | None, ...] = (part if on_input is None else part + on_input,)
        else:
            parts, constant = operator.adjoint(node, A, tuple(graph.shapes[name] for name in node.inputs))
        if constant is not None:
            constants.append(constant)
        for name, part in zip(node.inputs, parts, strict=True):
            if part is not None:
                pending[name] = pending[name] + part if name in pending else part
    total = torch.stack(torch.broadcast_tensors(*constants))
    return LinearBound(stopped, total.sum(0))


def _apply_split(A: Tensor, split: Split, multipliers: Tensor) -> tuple[Tensor, Tensor | None]:
    """``<A, x> - <multipliers, sign * (x - point)>``: coefficients, and the constant (B, S) (None for zero)."""
    push = multipliers * split.sign.unsqueeze(1)
    if split.point is None:
        return A - push, None
    return A - push, (push * split.point.unsqueeze(1)).reshape(*push.shape[:2], -1).sum(2)


def _apply_cuts(A: Tensor, cuts: JointBound, multipliers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients on the activation's output with what the cuts add, their coefficients on its input, and the
    constant (B, S)."""
    on_output, on_input, constant = cuts.push(multipliers, A.shape[2:].numel())
    shape = (*on_output.shape[:2], *A.shape[2:])
    return A + on_output.reshape(shape), on_input.reshape(shape), constant
