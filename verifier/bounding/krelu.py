"""k-ReLU: cuts on groups of neurons, derived from the dual function's own bounds on their inputs.

Singh et al. 2019 (NeurIPS), "Beyond the single neuron convex barrier for neural network certification". For every
group: its octahedron by backward passes, the points that span the hull of inputs and outputs over it, and cuts.

Axes: B batch, G groups, D directions, k neurons of a group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from time import monotonic

import torch
from torch import Tensor

from verifier.bounding.ascent import ancestors
from verifier.bounding.dual import Objective, Relaxation, lower_bound
from verifier.bounding.intermediate import Join
from verifier.graph.ir import Graph, Node
from verifier.operators.table import OPERATORS
from verifier.relaxations.cuts import Cuts, Hulls, JointBound
from verifier.relaxations.groups import GroupOptions, choose_groups
from verifier.relaxations.hulls import facets, limits
from verifier.relaxations.octahedra import corners, directions
from verifier.specs.box import flat
from verifier.specs.region import Region


@dataclass(frozen=True)
class KReluOptions:
    """How cuts are made.

    Args:
        groups: which neurons go together.
        facets: whether the hulls' facets are computed (`Cuts`), or their corners only (`Hulls`), which is all that
            can be had for groups of more than three.
        chunk_bytes: memory that the coefficients of one chunk of directions take in the widest layer.
    """

    groups: GroupOptions = field(default_factory=GroupOptions)
    facets: bool = True
    chunk_bytes: int = 8 << 20


def join_groups(graph: Graph, region: Region, options: KReluOptions, deadline: float | None = None) -> Join:
    """Cuts for every piecewise linear activation with enough unstable neurons.

    Args:
        deadline: `time.monotonic` value after which no further activation gets any.
    """

    def join(node: Node, relaxation: Relaxation) -> JointBound | None:
        operator, box = OPERATORS[node.op], relaxation.boxes[node.inputs[0]]
        late = deadline is not None and monotonic() > deadline
        if operator.kinks is None or operator.splits is None or late:
            return None
        groups = choose_groups(flat(box.lower), flat(box.upper), flat(operator.splits(node, box)), options.groups)
        if groups is None:
            return None
        points = _points(graph, region, relaxation, node, groups, options.chunk_bytes)
        if not options.facets:
            return Hulls(groups, points.to(box.lower.dtype))
        normals = facets(points.flatten(0, 1)).unflatten(0, points.shape[:2])
        return _with_limits(groups, normals.to(box.lower.dtype), points)

    return join


def join_again(graph: Graph, region: Region, evidence: Mapping[str, JointBound]) -> Join:
    """The cuts that the groups and normals of `evidence` have over another relaxation, such as one in float64.

    Nothing of it is trusted: octahedra, points and limits are computed anew.
    """

    def join(node: Node, relaxation: Relaxation) -> JointBound | None:
        old, dtype = evidence.get(node.name), relaxation.boxes[node.inputs[0]].lower.dtype
        if not isinstance(old, Cuts | Hulls):
            return None
        points = _points(graph, region, relaxation, node, old.index, KReluOptions().chunk_bytes)
        if isinstance(old, Hulls):
            return Hulls(old.index, points.to(dtype))
        return _with_limits(old.index, torch.cat([old.P, old.R], -1).to(dtype), points)

    return join


def _with_limits(groups: Tensor, normals: Tensor, points: Tensor) -> Cuts:
    """Cuts (B, G, F) with normals (B, G, F, 2k) of any origin, valid for the hulls of points (B, G, V, 2k)."""
    k, batch = groups.shape[-1], points.shape[:2]
    p = limits(normals.flatten(0, 1), points.flatten(0, 1)).unflatten(0, batch)
    return Cuts(groups, normals[..., :k], normals[..., k:], p.to(normals.dtype))


def _points(
    graph: Graph, region: Region, relaxation: Relaxation, node: Node, groups: Tensor, chunk_bytes: int
) -> Tensor:
    """Points (B, G, V, 2k) in float64, outputs first, whose hulls hold the groups (B, G, k) of an activation."""
    kinks = OPERATORS[node.op].kinks
    assert kinks is not None
    reach = octahedra(graph, region, relaxation, node.inputs[0], groups, chunk_bytes)
    x = corners(reach.flatten(0, 1), kinks(node)).unflatten(0, reach.shape[:2])
    return torch.cat([OPERATORS[node.op].forward(_of_entries(graph, node, groups), x), x], -1)


def _of_entries(graph: Graph, node: Node, groups: Tensor) -> Node:
    """An activation with its constants (slopes) picked for the entries of groups: (B, G, 1, k)."""
    shape = graph.shapes[node.name]
    constants = {
        name: value.double().expand(shape).reshape(-1)[groups].unsqueeze(-2) for name, value in node.constants.items()
    }
    return replace(node, constants=constants)


def octahedra(
    graph: Graph, region: Region, relaxation: Relaxation, name: str, groups: Tensor, chunk_bytes: int
) -> Tensor:
    """Upper limits (B, G, D) of a node's groups (B, G, k) in all `directions`, by the dual function at CROWN's point.

    Those of single entries are the node's box; all others are rows of backward passes, chunked to the memory.
    """
    batch, count, k = groups.shape
    box = relaxation.boxes[name]
    lower, upper = (flat(end).gather(1, groups.flatten(1)).reshape(groups.shape) for end in (box.lower, box.upper))
    several = directions(k)[2 * k :].to(lower)
    widest = max(prod(graph.shapes[node]) for node in ancestors(graph, name))
    step = max(1, chunk_bytes // (batch * len(several) * lower.element_size() * widest))
    shape = graph.shapes[name]
    found = []
    for part in groups.split(step, dim=1):
        rows = lower.new_zeros(*part.shape[:2], len(several), prod(shape))
        index = part.unsqueeze(2).expand(-1, -1, len(several), -1)
        rows.scatter_(3, index, -several.expand(*index.shape))
        objective = Objective(name, rows.reshape(batch, -1, *shape))
        found.append(-lower_bound(graph, region, relaxation, objective).unflatten(1, (part.shape[1], -1)))
    return torch.cat([upper, -lower, torch.cat(found, 1)], -1)
