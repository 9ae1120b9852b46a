"""The nearest adversarial point of each input that FAB finds, polished by bisection and replayed in onnxruntime.

Axes: B inputs, T targets, ``*X`` the input.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf, prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from verifier.attacks.batch import Batch, per_input, taken
from verifier.attacks.fab import Fab
from verifier.attacks.gauge import Gauge
from verifier.attacks.replay import Replayer, replay
from verifier.errors import InputError
from verifier.graph.ir import Graph
from verifier.operators import find_device, place
from verifier.operators.cost import multiply_adds
from verifier.operators.tail import to_logits
from verifier.specs.property import Property, Query
from verifier.specs.region import Box
from verifier.specs.robustness import Robustness, parse_norm

_BISECTIONS = 24
_ROUNDS = 3  # of linearisation at the boundary
_BEYOND = 1.001  # how far beyond a linearised boundary to look
_PUSHES = (0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # how far beyond the boundary to go where the replay refuses
_WORK = 2e9  # multiply-adds of one forward pass of a batch, about
_MOST = 2048  # rows of a batch


@dataclass(frozen=True)
class MinimumNormOptions:
    """How hard to try.

    Args:
        fab: options of the attack.
        targets: attack each of so many nearest classes on its own; 0 for one attack on all at once.
        dtype: precision of the attack.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        seed: of the restarts.
        timeout: seconds, or None.
    """

    fab: Fab = field(default_factory=Fab)
    targets: int = 9
    dtype: torch.dtype = torch.float32
    device: str = "auto"
    seed: int = 0
    timeout: float | None = None


class MinimumNorm(NamedTuple):
    """The closest adversarial points.

    Args:
        points: (B, *X) float64, every coordinate a float32 value; the input itself where none was found.
        distances: (B,) float64; zero where the input itself is adversarial, infinite where none was found.
    """

    points: Tensor
    distances: Tensor


def minimum_norm(
    graph: Graph,
    x: Any,
    labels: Any,
    norm: str | float = "inf",
    clip: tuple[Any, Any] | None = (0, 1),
    options: MinimumNormOptions = MinimumNormOptions(),
    scale: Any = 1.0,
    replayer: Replayer | None = None,
    wanted: Sequence[int | None] | None = None,
) -> MinimumNorm:
    """The closest point to each input at which some other class reaches its label's score.

    The distances are upper bounds of the true ones, since every point is replayed in onnxruntime on the original file.

    Args:
        graph: from `verifier.load`, not placed, its outputs scores of the classes. A final softmax is left out, so that
            it makes no gradient vanish.
        x: (B, *X) inputs in the network's unit, an array of any library.
        labels: (B,) classes; the predicted ones for the margin of a decision.
        norm: ``inf``, ``2`` or ``1``.
        clip: (low, high), numbers or arrays that broadcast to x; None for no limit.
        options: how hard to try.
        scale: numbers that broadcast to x; the distance is ``|(x' - x) / scale|``. With a network that takes
            ``(x - mean) / std``, give ``1 / std`` for distances in the unit before.
        replayer: of the graph, if there is one already.
        wanted: for each input the class that has to reach the label's score, None for any; all are any if not given.

    Raises:
        InputError: the graph was not read from a file, or x and labels do not fit it.
    """
    began = time.monotonic()
    deadline = None if options.timeout is None else began + options.timeout
    task = replace(_Task.of(graph, x, labels, norm, clip, scale), wanted=tuple(wanted or ()))
    replayer = Replayer(graph) if replayer is None else replayer
    placed = place(to_logits(graph, Query(()))[0], options.dtype, find_device(options.device))
    points, distances = task.x.clone(), torch.full((len(task.x),), inf, dtype=torch.float64)
    for part in torch.arange(len(task.x)).split(_size(graph, options.targets)):
        properties = task.properties(part)
        batch = Batch.of(placed, properties, task.gauge(part))
        for i, prop, candidate in zip(part.tolist(), properties, _nearest(batch, options, deadline), strict=True):
            point = None if candidate is None else _replayed(replayer, prop, task.x[i], candidate)
            if point is not None:
                points[i], distances[i] = point, task.distance(i, point)
    return MinimumNorm(points, distances)


@dataclass(frozen=True, eq=False)
class _Task:
    """What was asked for, in float64: inputs x, widths and limits (B, *X), labels (B,), the norm and the classes."""

    x: Tensor
    width: Tensor
    lower: Tensor
    upper: Tensor
    labels: tuple[int, ...]
    norm: float
    classes: int
    wanted: tuple[int | None, ...] = ()

    @staticmethod
    def of(graph: Graph, x: Any, labels: Any, norm: str | float, clip: tuple[Any, Any] | None, scale: Any) -> _Task:
        points = _numbers(x, "inputs")
        if points.ndim == 0 or points[0].size != prod(graph.input_shape):
            what = f"have shape {points.shape}, the network takes {graph.input_shape}"
            raise InputError("inputs", what, "give a batch of its inputs")
        shape = points.shape
        low, high = (-inf, inf) if clip is None else clip
        try:
            lower, upper, width = (
                np.broadcast_to(_numbers(part, "clip or scale"), shape) for part in (low, high, scale)
            )
        except ValueError:
            raise InputError("clip or scale", "does not broadcast to the inputs", "give numbers") from None
        if not (width > 0).all():
            raise InputError("scale", "is not positive", "give positive numbers")
        if ((points < lower) | (points > upper)).any():
            raise InputError("inputs", "leave the range of clip", "scale the inputs, or change clip")
        classes = [int(label) for label in np.asarray(labels).reshape(-1)]
        if len(classes) != len(points):
            raise InputError("labels", f"are {len(classes)} for {len(points)} inputs", "give one for each input")
        inputs, widths, low, high = (
            torch.tensor(part, dtype=torch.float64).reshape(len(points), *graph.input_shape)
            for part in (points, width, lower, upper)
        )
        return _Task(inputs, widths, low, high, tuple(classes), parse_norm(norm), prod(graph.output_shape))

    def properties(self, part: Tensor) -> list[Property]:
        """That the label's score is above all others within the limits, for some inputs."""
        regions = [Box(self.lower[i : i + 1], self.upper[i : i + 1]) for i in part.tolist()]
        return [
            Robustness(region, self.labels[i], self.target(i)).property(self.classes)
            for i, region in zip(part.tolist(), regions, strict=True)
        ]

    def target(self, i: int) -> tuple[int] | None:
        """The only class that may be reached from input i, or None."""
        wanted = self.wanted[i] if self.wanted else None
        return None if wanted is None else (wanted,)

    def gauge(self, part: Tensor) -> Gauge:
        return Gauge.between(self.x[part], self.width[part], self.lower[part], self.upper[part], self.norm)

    def distance(self, i: int, point: Tensor) -> float:
        return float(torch.linalg.vector_norm(((point - self.x[i]) / self.width[i]).flatten(), ord=self.norm))


def polish(batch: Batch, fab: Fab, u: Tensor) -> Tensor:
    """Adversarial positions nearer to the centres than the given ones (A, *X), in the gauge's unit.

    Bisection on the segment to the centre leads to the boundary. There the network is linearised once more, and its
    boundary's nearest point to the centre, a little farther out, is tried in place of the old one.
    """
    u = _bisected(batch, u)
    for _ in range(_ROUNDS):
        value, gradient = fab.linearised(batch, u)
        direct = batch.gauge.to_hyperplane(torch.zeros_like(u), value - (gradient * u).flatten(1).sum(-1), gradient)
        beyond = batch.gauge.clip(_BEYOND * direct)
        other = _bisected(batch, beyond)
        better = _unsafe(batch, beyond) & (batch.gauge.length(other) < batch.gauge.length(u))
        u = taken(other, better, u)
    return u


def _bisected(batch: Batch, u: Tensor) -> Tensor:
    """The boundary on the segments from the centres to unsafe positions, from the unsafe side."""
    low, high = torch.zeros(len(u), dtype=u.dtype, device=u.device), torch.ones(len(u), dtype=u.dtype, device=u.device)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        unsafe = _unsafe(batch, per_input(middle, u) * u)
        low, high = torch.where(unsafe, low, middle), torch.where(unsafe, middle, high)
    return per_input(high, u) * u


def _unsafe(batch: Batch, u: Tensor) -> Tensor:
    return batch.margins(batch.outputs(batch.gauge.point(u))) <= 0


def _nearest(batch: Batch, options: MinimumNormOptions, deadline: float | None) -> list[Tensor | None]:
    """The nearest point to each input (*X) that looks adversarial, in float64 on the CPU; None where there is none."""
    count = min(options.targets, int(batch.goal.count.max()))
    pairs, fab = batch.aimed(range(count)), options.fab
    state = fab.start(pairs, options.seed)
    while not fab.done(state) and (deadline is None or time.monotonic() < deadline):
        state = fab.step(pairs, state)
    u = polish(pairs, fab, state.best)
    length = torch.where(state.distance.isfinite(), pairs.gauge.length(u), inf).reshape(len(batch), -1)
    least, which = length.min(1)
    x = pairs.gauge.point(u)
    chosen = x.reshape(len(batch), -1, *x.shape[1:])[torch.arange(len(batch), device=x.device), which].double().cpu()
    return [point if math.isfinite(value) else None for point, value in zip(chosen, least.tolist(), strict=True)]


def _replayed(replayer: Replayer, prop: Property, x: Tensor, candidate: Tensor) -> Tensor | None:
    """The first point beyond the boundary, as seen from x, that the replay accepts: float64 (*X)."""
    move = candidate - x
    limits = prop.region.enclosing_box()
    reach = 2 * move.abs().max() + 1
    around = Box(torch.maximum(limits.lower, x - reach), torch.minimum(limits.upper, x + reach))  # finite
    for push in _PUSHES:
        found = replay(replayer, replace(prop, region=around), (x + (1 + push) * move).numpy())
        if found is not None:
            return torch.from_numpy(found.input)
    return None


def _size(graph: Graph, targets: int) -> int:
    """How many inputs go through the network at once."""
    return max(1, min(_MOST, int(_WORK / max(1, multiply_adds(graph)))) // max(1, targets))


def _numbers(values: Any, where: str) -> np.ndarray:
    values = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if values.dtype.kind not in "fiub" or np.isnan(values).any():
        raise InputError(where, "is not an array of numbers", "give numbers")
    return values.astype(np.float64)
