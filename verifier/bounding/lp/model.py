"""The triangle program in cvxpy's language (Diamond and Boyd 2016), layer by layer: the one to read.

It is the reference that the persistent HiGHS model is tested against, and it solves over regions that are no boxes.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from time import monotonic
from typing import Any

import numpy as np

from verifier.bounding.lp.duals import Duals
from verifier.bounding.lp.network import Affine, Layer, RelaxedNetwork
from verifier.specs.region import LpBall, Region


class ConvexModel:
    """Minimises rows over the relaxed network; the row is a parameter, so the model is compiled once.

    Args:
        network: what is relaxed.
        region: input set of batch size 1, of any kind.
        rows: what is minimised.
    """

    def __init__(self, network: RelaxedNetwork, region: Region, rows: Affine):
        import cvxpy as cp

        self._network, self._rows = network, rows
        self._conic = isinstance(region, LpBall) and region.norm == 2
        x = cp.Variable(prod(network.graph.input_shape))
        values: dict[str, Any] = {network.graph.input: x}
        inputs: dict[str, Any] = {}
        constraints = _inside(region, x)
        sources = {source.name: source for source in network.sources}
        self._sides: dict[str, tuple[list[Any], list[Any]]] = {}
        for layer in network.layers:
            source = sources[layer.source]
            if source.name not in inputs:
                inputs[source.name] = cp.Variable(len(source.entries))
                constraints.append(inputs[source.name] == _affine(source.rows, values))
            z = cp.Variable(len(layer.free))
            p = inputs[source.name][np.searchsorted(source.entries, layer.free)]
            lower, upper = layer.lower.select(layer.free), layer.upper.select(layer.free)
            self._sides[layer.node] = (
                [z >= cp.multiply(s, p) + t for s, t in zip(lower.slopes, lower.intercepts, strict=True)],
                [z <= cp.multiply(s, p) + t for s, t in zip(upper.slopes, upper.intercepts, strict=True)],
            )
            constraints += [line for side in self._sides[layer.node] for line in side]
            through = inputs[source.name][np.searchsorted(source.entries, layer.passing)]
            values[layer.node] = _output(layer, z, through)
        self._cuts = []
        for cut in network.cuts:
            on_input = cut.on_input[:, sources[cut.source].entries] @ inputs[cut.source]
            self._cuts.append(cut.on_output @ values[cut.node] + on_input <= cut.limit)
        constraints += self._cuts
        self._x = x
        self._cost = {name: cp.Parameter(prod(network.graph.shapes[name])) for name in rows.matrices}
        objective: Any = sum((cost @ values[name] for name, cost in self._cost.items()), cp.Constant(0.0))
        self._problem: Any = cp.Problem(cp.Minimize(objective), constraints)

    def minimise(self, row: int, deadline: float | None) -> Duals | None:
        import cvxpy as cp

        left = None if deadline is None else deadline - monotonic()
        if left is not None and left <= 0:
            return None
        for name, cost in self._cost.items():
            cost.value = self._rows.matrices[name][[row]].toarray()[0]
        limit = {} if left is None else {"time_limit": left}
        if self._conic:
            self._problem.solve(solver=cp.CLARABEL, warm_start=False, **limit)
        else:
            self._problem.solve(solver=cp.HIGHS, warm_start=False, highs_options={"solver": "ipm", **limit})
        if self._problem.status != cp.OPTIMAL:
            return None
        sides: tuple[dict[str, np.ndarray], ...] = ({}, {})
        for layer in self._network.layers:
            for side, lines in enumerate((layer.lower, layer.upper)):
                dense = np.zeros_like(lines.slopes)
                dense[:, layer.free] = [line.dual_value for line in self._sides[layer.node][side]]
                sides[side][layer.node] = dense
        cuts = {}
        for cut, constraint in zip(self._network.cuts, self._cuts, strict=True):
            dense = np.zeros(prod(cut.shape))
            dense[cut.place] = constraint.dual_value
            cuts[cut.node] = dense.reshape(cut.shape)
        value = float(self._problem.value) + float(self._rows.constant[row])
        return Duals(*sides, np.asarray(self._x.value), value, {}, np.zeros(0), {}, {}, cuts)


def _inside(region: Region, x: Any) -> list[Any]:
    import cvxpy as cp

    box = region.enclosing_box()
    constraints = [x >= _flat(box.lower), x <= _flat(box.upper)]
    if isinstance(region, LpBall):
        constraints.append(cp.norm(x - _flat(region.center), region.norm) <= float(region.radius))
    return constraints


def _affine(rows: Affine, values: Mapping[str, Any]) -> Any:
    terms = (matrix @ values[name] for name, matrix in rows.matrices.items())
    return sum(terms, np.asarray(rows.constant))


def _output(layer: Layer, z: Any, through: Any) -> Any:
    """All n outputs: free neurons, those that pass their input through a line, and constants."""
    from scipy import sparse

    n, constant = layer.lower.slopes.shape[1], layer.lower.intercepts[0].copy()
    constant[layer.free] = 0.0

    def scatter(index: np.ndarray, data: np.ndarray) -> Any:
        return sparse.csr_array((data, (index, np.arange(len(index)))), shape=(n, len(index)))

    slopes = layer.lower.slopes[0, layer.passing]
    value = constant
    if len(layer.free):
        value = scatter(layer.free, np.ones(len(layer.free))) @ z + value
    if len(layer.passing):
        value = scatter(layer.passing, slopes) @ through + value
    return value


def _flat(value: Any) -> np.ndarray:
    return value.reshape(-1).double().cpu().numpy()
