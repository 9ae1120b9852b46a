"""The relaxed network of one batch element as sparse matrices: what every linear program over it is made of.

Inputs of activations are affine in the network's input and in the outputs of earlier activations. Those expressions
come from the dual function's own push, stopped at activations, so they cover every affine operator that it covers.
Axes: n neurons of an activation, K lines of a side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from verifier.bounding.ascent import ancestors
from verifier.bounding.dual import Objective, Relaxation, envelopes_over, linear_bound
from verifier.bounding.intermediate import unit_rows
from verifier.bounding.lp.lines import Lines, lines_of
from verifier.graph.ir import Graph
from verifier.operators.cost import placement
from verifier.relaxations.cuts import Cuts, JointBound
from verifier.specs.box import flat_rows

#: memory that the coefficients of one chunk of rows take in the widest layer, in bytes
CHUNK_BYTES = 32 << 20
#: lines of smooth activations are moved away from the function by so much: where it is nearly straight they meet up to
#: rounding, and HiGHS takes that for a contradiction
LOOSENING = 1e-7


@dataclass(frozen=True)
class Affine:
    """R rows ``sum_name matrices[name] @ value of name + constant``.

    Args:
        matrices: (R, size of name), on the network's input and on outputs of activations.
        constant: (R,).
    """

    matrices: Mapping[str, sparse.csr_array]
    constant: np.ndarray


@dataclass(frozen=True)
class Layer:
    """One activation: neurons that need a variable, and what the others are.

    Args:
        node, source: the activation and its input.
        lower, upper: lines of all n neurons on either side.
        free: indices of neurons whose lines differ; each needs a variable.
        passing: indices of neurons that are one line with a slope, so that their input stands for them.
    """

    node: str
    source: str
    lower: Lines
    upper: Lines
    free: np.ndarray
    passing: np.ndarray


@dataclass(frozen=True)
class Source:
    """The entries of an activation's input that are needed, as rows over what comes before."""

    name: str
    entries: np.ndarray
    rows: Affine


@dataclass(frozen=True)
class CutRows:
    """Cuts on groups of an activation's neurons, ``on_output @ z + on_input @ x <= limit``.

    Args:
        node, source: the activation and its input.
        on_output, on_input: (Q, n).
        limit: (Q,).
        place: which of the multipliers (G, F) of the activation's `Cuts` each row has, counted flat.
        shape: (G, F).
    """

    node: str
    source: str
    on_output: sparse.csr_array
    on_input: sparse.csr_array
    limit: np.ndarray
    place: np.ndarray
    shape: tuple[int, int]


@dataclass(frozen=True)
class RelaxedNetwork:
    """Everything below a node, relaxed. Layers and sources in topological order; cuts on some of the layers."""

    graph: Graph
    layers: tuple[Layer, ...]
    sources: tuple[Source, ...]
    cuts: tuple[CutRows, ...] = ()


def relaxed_network(graph: Graph, relaxation: Relaxation, node: str) -> RelaxedNetwork:
    """The relaxed network below a node, for a relaxation of one batch element."""
    below = ancestors(graph, node)
    layers: list[Layer] = []
    needed: dict[str, list[np.ndarray]] = {}
    joint: list[CutRows] = []
    for one in graph.nodes:
        if one.name in below and one.name in relaxation.envelopes:
            layer = _layer(one.name, one.inputs[0], relaxation)
            layers.append(layer)
            needed.setdefault(layer.source, []).extend((layer.free, layer.passing))
            cuts = relaxation.cuts.get(one.name)
            if isinstance(cuts, Cuts):
                joint.append(_cut_rows(layer, cuts))
                needed[layer.source].append(np.unique(joint[-1].on_input.indices))
    sources = []
    for name, parts in needed.items():
        entries = np.unique(np.concatenate(parts))
        sources.append(Source(name, entries, entry_rows(graph, name, entries)))
    return RelaxedNetwork(graph, tuple(layers), tuple(sources), tuple(joint))


def one_element(graph: Graph, relaxation: Relaxation, element: int) -> Relaxation:
    """A relaxation of a batch cut down to one element: its boxes, the envelopes over them, and its cuts."""
    index = torch.tensor([element])
    boxes = {}
    for name, box in relaxation.boxes.items():
        boxes[name] = box if box.batch == 1 else box.select(index.to(box.lower.device))
    cuts: dict[str, JointBound] = {
        n: cut.select(index.to(cut.p.device)) for n, cut in relaxation.cuts.items() if isinstance(cut, Cuts)
    }
    return Relaxation(boxes, envelopes_over(graph, relaxation, boxes), cuts=cuts)


def _layer(node: str, source: str, relaxation: Relaxation) -> Layer:
    envelope = relaxation.envelopes[node]
    lower, upper = lines_of(envelope.lower), lines_of(envelope.upper)
    slopes = np.concatenate([lower.slopes, upper.slopes])
    intercepts = np.concatenate([lower.intercepts, upper.intercepts])
    free = (np.ptp(slopes, axis=0) > 0) | (np.ptp(intercepts, axis=0) > 0)
    passing = ~free & (slopes[0] != 0)
    if len(lower.slopes) > 2 or len(upper.slopes) > 2:
        lower = Lines(lower.slopes, lower.intercepts - LOOSENING * free)
        upper = Lines(upper.slopes, upper.intercepts + LOOSENING * free)
    return Layer(node, source, lower, upper, np.flatnonzero(free), np.flatnonzero(passing))


def _cut_rows(layer: Layer, cuts: Cuts) -> CutRows:
    """The cuts of one batch element; those that say nothing are left out."""
    size, index = layer.lower.slopes.shape[1], cuts.index.reshape(-1, cuts.index.shape[-1]).cpu().numpy()
    P, R = (_numpy(part[0]).reshape(-1, index.shape[1]) for part in (cuts.P, cuts.R))
    place = np.flatnonzero((P != 0).any(1) | (R != 0).any(1))
    columns = np.repeat(index, cuts.p.shape[2], axis=0)[place]
    rows = np.repeat(np.arange(len(place)), index.shape[1])

    def spread(values: np.ndarray) -> sparse.csr_array:
        matrix = sparse.csr_array((values[place].reshape(-1), (rows, columns.reshape(-1))), shape=(len(place), size))
        matrix.eliminate_zeros()
        return matrix

    limit = _numpy(cuts.p[0]).reshape(-1)[place]
    return CutRows(layer.node, layer.source, spread(P), spread(R), limit, place, (len(index), cuts.p.shape[2]))


def entry_rows(graph: Graph, name: str, entries: np.ndarray) -> Affine:
    """Some entries (flat indices) of a node's value as rows."""
    if len(entries) == 0:
        return Affine({}, np.zeros(0))
    dtype, device = placement(graph)
    widest = max(prod(graph.shapes[one]) for one in ancestors(graph, name))
    chunk = max(1, CHUNK_BYTES // (widest * dtype.itemsize))
    parts = []
    for part in torch.as_tensor(entries, device=device).split(chunk):
        both = unit_rows(graph, name, part.unsqueeze(0), dtype)
        offset = None if both.offset is None else both.offset[:, : len(part)]
        parts.append(objective_rows(graph, Objective(both.node, both.C[:, : len(part)], offset)))
    matrices = {key: stacked([p.matrices[key] for p in parts]) for key in parts[0].matrices}
    return Affine(matrices, np.concatenate([p.constant for p in parts]))


@torch.no_grad()
def objective_rows(graph: Graph, objective: Objective) -> Affine:
    """The rows of an objective of batch size 1."""
    bound = linear_bound(graph, {}, objective)
    matrices = {name: sparse.csr_array(_numpy(flat_rows(A)[0])) for name, A in bound.A.items()}
    return Affine(matrices, _numpy(bound.constant[0]))


def stacked(parts: Sequence[sparse.csr_array]) -> sparse.csr_array:
    """Matrices of one width, one above the other."""
    return sparse.csr_array(sparse.vstack(parts))


def _numpy(value: Tensor) -> np.ndarray:
    return value.double().cpu().numpy()
