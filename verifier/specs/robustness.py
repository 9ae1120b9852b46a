"""Robustness of a classifier around an input, and the one function that turns every kind of specification into a query.

A network is robust at x if no input within epsilon of x, and within the range that inputs may have, gives another
class at least the score of the right one. Ties count as violations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import inf, prod
from typing import Any, Protocol

import numpy as np
import torch

from verifier.errors import InputError
from verifier.specs.exact import parse_epsilon
from verifier.specs.fit import fit_all
from verifier.specs.normalize import Affine, affine
from verifier.specs.property import Polytope, Property, Query
from verifier.specs.region import Box, LpBall, Region
from verifier.specs.rounding import add_directed, outward

_NORMS = {"inf": inf, "linf": inf, "l2": 2, "l1": 1}


class Network(Protocol):
    """What `resolve` needs to know of a network; `verifier.load` returns one."""

    @property
    def input_shape(self) -> tuple[int, ...]: ...
    @property
    def output_shape(self) -> tuple[int, ...]: ...


@dataclass(frozen=True, eq=False)
class Robustness:
    """A property of a classifier whose number of classes is not known yet.

    Args:
        region: inputs around x in the network's units, batch size 1, shaped like x.
        label: the class that x has.
        targets: classes that must not reach the label's score; None for all others.
    """

    region: Region
    label: int
    targets: tuple[int, ...] | None = None

    def property(self, classes: int) -> Property:
        """One unsafe polytope ``y[label] - y[t] <= 0`` for each target t.

        Raises:
            InputError: label or a target is not a class of the network, or nothing is left to compare with.
        """
        if classes < 2:
            raise InputError("network", f"has {classes} output", "robustness needs a score for each of two classes")
        for name, value in (("label", self.label), *(("target", target) for target in self.targets or ())):
            if not 0 <= value < classes:
                raise InputError(name, f"{value} is not a class of the network", f"use 0 to {classes - 1}")
        targets = self.targets
        if targets is None:
            targets = tuple(target for target in range(classes) if target != self.label)
        C = np.zeros((len(targets), 1, classes))
        C[:, 0, self.label] = 1
        C[range(len(targets)), 0, targets] -= 1
        return Property(self.region, tuple(Polytope(row, np.zeros(1)) for row in C))


#: everything that says what is to be proved
Spec = Property | Query | Robustness


def resolve(spec: Spec, network: Network) -> Query:
    """A specification as a query that fits a network: regions get its input shape.

    Args:
        spec: from `robustness`, `read_vnnlib`, or made by hand; regions flat or in any shape of the right size.
        network: tells the shapes (dynamic dimensions are 1).

    Raises:
        InputError: the numbers of inputs or outputs differ from the network's, or what was made by hand is no region
            or polytope (see `fit`).
    """
    return resolve_all((spec,), network)[0]


def resolve_all(specs: Sequence[Spec], network: Network) -> list[Query]:
    """`resolve` of each of many specifications, which costs little for each where they are alike."""
    outputs, polytopes = prod(network.output_shape), dict[tuple[int, tuple[int, ...] | None], tuple[Polytope, ...]]()
    queries = []
    for spec in specs:
        if isinstance(spec, Robustness):
            key = (spec.label, spec.targets)
            if key not in polytopes:
                polytopes[key] = spec.property(outputs).unsafe
            spec = Property(spec.region, polytopes[key])
        query = Query((spec,)) if isinstance(spec, Property) else spec
        if not query.properties:
            raise InputError(query.name or "property", "is a query without properties", "give it at least one")
        queries.append(query)
    names = [query.name or "property" for query in queries for _ in query.properties]
    fitting = iter(fit_all([p for query in queries for p in query.properties], network.input_shape, outputs, names))
    return [replace(query, properties=tuple(islice(fitting, len(query.properties)))) for query in queries]


def robustness(
    x: Any,
    label: int,
    epsilon: float | str | Any,
    norm: str | float = "inf",
    clip: tuple[float, float] | None = (0, 1),
    targets: int | Sequence[int] | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
) -> Robustness:
    """Robustness of the class of x against all inputs within epsilon of it.

    Args:
        x: the input, an array of any library and shape; its size must be that of the network's input.
        label: its class.
        epsilon: a number or text like ``8/255``; for the norm inf also one number per feature (an array that
            broadcasts to x).
        norm: ``inf``, ``2`` or ``1``, as text or number.
        clip: the range of every input, None for no limit.
        targets: a class or classes to compare with; None for all others.
        mean, std: where given, the network takes ``(x - mean) / std``, while x, epsilon and clip are in the units
            before. Numbers, or one for each channel: the first axis of x that has as many entries.

    Raises:
        InputError: x is outside clip or not finite, epsilon negative, mean and std do not fit x, or std differs
            between channels for norm 1 or 2.
    """
    point = _as_array(x, "input")
    radius = _as_array(parse_epsilon(epsilon) if isinstance(epsilon, str) else epsilon, "epsilon")
    if (radius < 0).any():
        raise InputError("epsilon", f"{radius.min():g} is negative", "give a number >= 0")
    order = parse_norm(norm)
    low, high = (-inf, inf) if clip is None else (float(clip[0]), float(clip[1]))
    if not low <= high:
        raise InputError("clip", f"{low:g} to {high:g} is not a range", "give the lower end first")
    outside = (point < low) | (point > high)
    if outside.any():
        place = int(outside.argmax())
        what = f"value {place} is {point.reshape(-1)[place]:g}, outside {low:g} to {high:g}"
        raise InputError("input", what, "scale the input, or change clip (None, --no-clip)")
    change = affine(point.shape, mean, std)
    if order == inf:
        region: Region = _box(point, radius, low, high, change)
    else:
        region = _ball(point, radius, order, low, high, change)
    return Robustness(region, _as_class(label, "label"), _as_targets(targets, label))


def _box(point: np.ndarray, radius: np.ndarray, low: float, high: float, change: Affine) -> Box:
    try:
        radius = np.broadcast_to(radius, point.shape)
    except ValueError:
        what = f"has shape {radius.shape}, the input {point.shape}"
        raise InputError("epsilon", what, "give one number, or one for each feature") from None

    def edges(towards: float) -> tuple[np.ndarray, np.ndarray]:
        """Lower bounds rounded towards, upper bounds rounded away from it."""
        lower = np.maximum(add_directed(point, -radius, towards), low)
        upper = np.minimum(add_directed(point, radius, -towards), high)
        return change.directed(lower, towards), change.directed(upper, -towards)

    lower, upper = edges(-inf)
    inner_lower, inner_upper = edges(inf)
    empty = inner_lower > inner_upper  # no float64 in between: epsilon 0 after a change of units
    nearest = np.clip(change(point), lower, upper)
    inner_lower, inner_upper = np.where(empty, nearest, inner_lower), np.where(empty, nearest, inner_upper)
    box = Box.checked(_tensor(lower), _tensor(upper), "input")
    if np.array_equal(lower, inner_lower) and np.array_equal(upper, inner_upper):
        return box
    return replace(box, inner_lower=_tensor(inner_lower), inner_upper=_tensor(inner_upper))


def _ball(point: np.ndarray, radius: np.ndarray, order: int, low: float, high: float, change: Affine) -> LpBall:
    if radius.size != 1:
        raise InputError("epsilon", f"has {radius.size} numbers", "one per feature is for the norm inf only")
    scale = change.common_scale()
    if scale is None:
        raise InputError("--std", f"differs between channels, which bends a ball of norm {order}", "use norm inf")
    center = change(point)
    # The centre and the radius are rounded; the true ball lies in one that is larger by what they may be off.
    off = 0.0 if change.identity else float(np.linalg.norm(4 * change.error(point).reshape(-1), ord=order))
    size = float(radius.reshape(())) / scale
    larger = torch.tensor([size + off], dtype=torch.float64)
    larger = larger if change.identity else outward(outward(larger, inf), inf)
    box = None
    if low > -inf or high < inf:
        ends = np.full(point.shape, low), np.full(point.shape, high)
        outer = [change.directed(end, side) for end, side in zip(ends, (-inf, inf), strict=True)]
        inner = [change.directed(end, side) for end, side in zip(ends, (inf, -inf), strict=True)]
        box = Box(*map(_tensor, (*outer, *(() if change.identity else inner))))
    ball = LpBall.checked(_tensor(center), larger, box, order, "input")
    if change.identity:
        return ball
    return replace(ball, inner_radius=torch.tensor([max(0.0, size * (1 - 1e-15) - off)], dtype=torch.float64))


def _tensor(x: np.ndarray) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64).unsqueeze(0)


def parse_norm(norm: str | float) -> Any:
    """inf, 2 or 1, of a number or its name.

    Raises:
        InputError: it is none of them.
    """
    text = str(norm).lower()
    order = _NORMS.get(text) or {"2.0": 2, "1.0": 1, "2": 2, "1": 1}.get(text)
    if order is None:
        raise InputError("--norm", f"{norm!r} is not known", "use inf, 2 or 1")
    return order


def _as_array(x: Any, where: str) -> np.ndarray:
    """Numbers of any array library as float64."""
    if isinstance(x, torch.Tensor):
        x = x.detach().cpu().numpy()
    try:
        array = np.asarray(x)
        real = array.dtype.kind in "fiub"
        array = array.astype(np.float64) if real else array
    except (TypeError, ValueError):
        real, array = False, np.empty(0)
    if not real:
        raise InputError(where, "is not an array of real numbers", "give numbers")
    if array.size == 0:
        raise InputError(where, "is empty", "give at least one number")
    if not np.isfinite(array).all():
        place = int((~np.isfinite(array)).argmax())
        raise InputError(where, f"value {place} is NaN or infinite", "replace it by a number")
    return array


def _as_class(label: Any, where: str) -> int:
    array = np.asarray(label)
    if array.size != 1 or array.dtype.kind not in "iu" or int(array.reshape(())) < 0:
        raise InputError(where, f"{label!r} is not a class", "give an integer >= 0")
    return int(array.reshape(()))


def _as_targets(targets: Any, label: Any) -> tuple[int, ...] | None:
    if targets is None:
        return None
    chosen = tuple(_as_class(target, "targets") for target in np.atleast_1d(np.asarray(targets)))
    if not chosen or _as_class(label, "label") in chosen:
        raise InputError("targets", "name the label itself or nothing", "name other classes")
    return tuple(dict.fromkeys(chosen))
