"""The relaxed network as one linear program: ``row_lower <= A v <= row_upper``, ``lower <= v <= upper``.

The variables v are the network's input, the needed inputs of activations, and the outputs of those activations'
neurons that are not one line. One row defines each of the second, one row each line of the third; these lines are
the triangle of Ehlers 2017 (arXiv 1705.01320) for a ReLU, and Salman et al. 2019 (arXiv 1902.08722) treat the rest.
The inputs of activations have no bounds of their own, so the optimum is that of the dual function.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from scipy import sparse

from verifier.bounding.lp.duals import Duals
from verifier.bounding.lp.lines import Lines
from verifier.bounding.lp.network import Affine, RelaxedNetwork, stacked
from verifier.specs.region import Box


@dataclass(frozen=True)
class Value:
    """The flat value of a node over the columns: ``matrix @ v + constant``."""

    matrix: sparse.csr_array
    constant: np.ndarray


@dataclass(frozen=True)
class Program:
    """See the head of this file.

    Args:
        network: what it was made of.
        A: (rows, columns).
        row_lower, row_upper, lower, upper: limits.
        inputs: for each source, the columns of its entries.
        outputs: for each activation, the columns of its free neurons.
        lines: for each (activation, side 0 lower / 1 upper), the first of its K blocks of rows.
        values: for each activation and the network's input, its value over the columns.
        target: the first of the rows that hold the last column above the target's rows; None without a target.
        cuts: rows ``matrix @ v <= limit`` of cuts on groups, which are not in A: solvers add those that they need.
    """

    network: RelaxedNetwork
    A: sparse.csr_array
    row_lower: np.ndarray
    row_upper: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
    lines: Mapping[tuple[str, int], int]
    values: Mapping[str, Value]
    target: int | None
    cuts: tuple[sparse.csr_array, np.ndarray]

    def duals(self, point: np.ndarray, row_dual: np.ndarray, column_dual: np.ndarray, value: float) -> Duals:
        """Dual values by line; rows that hold from below have non-negative ones, rows from above non-positive.

        Args:
            row_dual: of the rows of A and, after them, of all cuts.
        """
        sides: tuple[dict[str, np.ndarray], ...] = ({}, {})
        for layer in self.network.layers:
            for side, lines in enumerate((layer.lower, layer.upper)):
                count, first = len(layer.free), self.lines[layer.node, side]
                part = row_dual[first : first + len(lines.slopes) * count].reshape(len(lines.slopes), count)
                dense = np.zeros_like(lines.slopes)
                dense[:, layer.free] = part if side == 0 else -part
                sides[side][layer.node] = dense
        splits, inputs, outputs, shapes = {}, {}, {}, self.network.graph.shapes
        for source in self.network.sources:
            columns, size = self.inputs[source.name], prod(shapes[source.name])
            splits[source.name] = _spread(column_dual[columns], source.entries, size)
            inputs[source.name] = _spread(point[columns], source.entries, size)
        for layer in self.network.layers:
            outputs[layer.node] = _spread(point[self.outputs[layer.node]], layer.free, prod(shapes[layer.node]))
        height, cuts = len(self.row_lower), {}
        targets = np.zeros(0) if self.target is None else -row_dual[self.target : height]
        for rows in self.network.cuts:
            dense = np.zeros(prod(rows.shape))
            dense[rows.place] = -row_dual[height : height + len(rows.place)]
            cuts[rows.node], height = dense.reshape(rows.shape), height + len(rows.place)
        start = point[: prod(self.network.graph.input_shape)]
        return Duals(*sides, start, value, splits, targets, inputs, outputs, cuts)


def _spread(values: np.ndarray, index: np.ndarray, size: int) -> np.ndarray:
    dense = np.zeros(size)
    dense[index] = values
    return dense


def program(network: RelaxedNetwork, box: Box, target: Affine | None = None) -> Program:
    """The program over a box (batch size 1).

    Args:
        target: rows whose greatest value gets a column of its own, to be minimised.
    """
    graph, width = network.graph, prod(network.graph.input_shape)
    inputs, outputs = {}, {}
    for source in network.sources:
        inputs[source.name] = np.arange(width, width + len(source.entries))
        width += len(source.entries)
    for layer in network.layers:
        outputs[layer.node] = np.arange(width, width + len(layer.free))
        width += len(layer.free)
    width += target is not None
    values = _values(network, inputs, outputs, width)
    blocks = [_definitions(network, inputs, values, width), *_lines(network, inputs, outputs, width)]
    starts = np.cumsum([0, *(len(low) for _, low, _ in blocks)]).tolist()
    keys = [(layer.node, side) for layer in network.layers for side in (0, 1)]
    if target is not None:
        blocks.append(_targets(target, values, width))
    lower, upper = np.full(width, -np.inf), np.full(width, np.inf)
    first = prod(graph.input_shape)
    lower[:first] = box.lower.reshape(-1).double().cpu().numpy()
    upper[:first] = box.upper.reshape(-1).double().cpu().numpy()
    return Program(
        network,
        stacked([matrix for matrix, _, _ in blocks]),
        np.concatenate([low for _, low, _ in blocks]),
        np.concatenate([high for _, _, high in blocks]),
        lower,
        upper,
        inputs,
        outputs,
        dict(zip(keys, starts[1:], strict=False)),
        values,
        None if target is None else starts[-1],
        _cuts(network, inputs, values, width),
    )


#: rows of a matrix over all columns, with their lower and upper limits
Block = tuple[sparse.csr_array, np.ndarray, np.ndarray]


def over_columns(rows: Affine, values: Mapping[str, Value], width: int) -> tuple[sparse.csr_array, np.ndarray]:
    """Rows over the values of nodes as rows over columns: matrix and constants."""
    matrix, constant = sparse.csr_array((len(rows.constant), width)), rows.constant
    for name, part in rows.matrices.items():
        matrix = matrix + part @ values[name].matrix
        constant = constant + part @ values[name].constant
    return sparse.csr_array(matrix), constant


def _values(
    network: RelaxedNetwork, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray], width: int
) -> dict[str, Value]:
    """The network's input and every activation's output over the columns."""
    graph, first = network.graph, prod(network.graph.input_shape)
    eye = sparse.csr_array((np.ones(first), (np.arange(first), np.arange(first))), shape=(first, width))
    values = {graph.input: Value(eye, np.zeros(first))}
    entries = {source.name: source.entries for source in network.sources}
    for layer in network.layers:
        size = layer.lower.slopes.shape[1]
        own = inputs[layer.source][np.searchsorted(entries[layer.source], layer.passing)]
        data = np.concatenate([np.ones(len(layer.free)), layer.lower.slopes[0, layer.passing]])
        place = (np.concatenate([layer.free, layer.passing]), np.concatenate([outputs[layer.node], own]))
        constant = layer.lower.intercepts[0].copy()
        constant[layer.free] = 0.0
        values[layer.node] = Value(sparse.csr_array((data, place), shape=(size, width)), constant)
    return values


def _definitions(
    network: RelaxedNetwork, inputs: Mapping[str, np.ndarray], values: Mapping[str, Value], width: int
) -> Block:
    """One equation for each needed input of an activation."""
    matrices, constants = [sparse.csr_array((0, width))], [np.zeros(0)]
    for source in network.sources:
        matrix, constant = over_columns(source.rows, values, width)
        count = len(source.entries)
        own = sparse.csr_array((np.ones(count), (np.arange(count), inputs[source.name])), shape=(count, width))
        matrices.append(sparse.csr_array(own - matrix))
        constants.append(constant)
    constant = np.concatenate(constants)
    return stacked(matrices), constant, constant


def _lines(
    network: RelaxedNetwork, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray], width: int
) -> list[Block]:
    """For each activation and side, ``output - slope * input`` above or below each line's intercept."""
    entries = {source.name: source.entries for source in network.sources}
    blocks = []
    for layer in network.layers:
        own = inputs[layer.source][np.searchsorted(entries[layer.source], layer.free)]
        for side, lines in enumerate((layer.lower, layer.upper)):
            matrix, limit = _line_rows(lines.select(layer.free), own, outputs[layer.node], width)
            none = np.full_like(limit, np.inf)
            blocks.append((matrix, limit, none) if side == 0 else (matrix, -none, limit))
    return blocks


def _line_rows(
    lines: Lines, inputs: np.ndarray, outputs: np.ndarray, width: int
) -> tuple[sparse.csr_array, np.ndarray]:
    count, neurons = lines.slopes.shape
    rows = np.arange(count * neurons)
    data = np.concatenate([np.ones(len(rows)), -lines.slopes.reshape(-1)])
    columns = np.concatenate([np.tile(outputs, count), np.tile(inputs, count)])
    matrix = sparse.csr_array((data, (np.tile(rows, 2), columns)), shape=(len(rows), width))
    return matrix, lines.intercepts.reshape(-1)


def _cuts(
    network: RelaxedNetwork, inputs: Mapping[str, np.ndarray], values: Mapping[str, Value], width: int
) -> tuple[sparse.csr_array, np.ndarray]:
    """``<P, output> + <R, input> <= p`` over the columns, for all cuts of all activations."""
    entries = {source.name: source.entries for source in network.sources}
    matrices, limits = [sparse.csr_array((0, width))], [np.zeros(0)]
    for rows in network.cuts:
        known, value = entries[rows.source], values[rows.node]
        shape = (prod(network.graph.shapes[rows.node]), width)
        own = sparse.csr_array((np.ones(len(known)), (known, inputs[rows.source])), shape=shape)
        matrices.append(sparse.csr_array(rows.on_output @ value.matrix + rows.on_input @ own))
        limits.append(rows.limit - rows.on_output @ value.constant)
    return stacked(matrices), np.concatenate(limits)


def _targets(target: Affine, values: Mapping[str, Value], width: int) -> Block:
    """``row - t <= -constant`` with t the last column."""
    matrix, constant = over_columns(target, values, width)
    count = len(constant)
    last = sparse.csr_array((np.ones(count), (np.arange(count), np.full(count, width - 1))), shape=(count, width))
    return sparse.csr_array(matrix - last), np.full(count, -np.inf), -constant
