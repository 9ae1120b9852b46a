"""The attacked end of a bracket: points of another class near an input, replayed in onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

import numpy as np
import torch

from verifier.analysis.brackets import Metric
from verifier.attacks.pgd import PgdOptions, attack
from verifier.attacks.replay import Replayer, replay
from verifier.graph.ir import Graph
from verifier.specs.property import Query
from verifier.specs.robustness import resolve
from verifier.verdict import Counterexample

#: how much further than the attack's point to look where onnxruntime does not confirm it, relatively
_PUSHES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
#: bisections of the radius where no minimum-norm attack serves
_BISECTIONS = 12


@dataclass(frozen=True)
class Item:
    """One margin to be found.

    Args:
        x: (*X) float64, in the units of the data.
        label: the class predicted there.
        target: the class to reach, None for any other.
    """

    x: np.ndarray
    label: int
    target: int | None = None


@dataclass(frozen=True)
class Nearest:
    """A point of another class, as replayed, and its distance, rounded up."""

    distance: float
    point: Counterexample
    attack: str


def confirmed(replayer: Replayer, metric: Metric, item: Item, point: np.ndarray, attack: str) -> Nearest | None:
    """A candidate as a witness: pushed further out, little by little, until onnxruntime says another class.

    Args:
        point: (*X) float64, in the network's units.
    """
    center = metric.to_network(item.x).reshape(point.shape)
    for push in _PUSHES:
        moved = replayer.representable(center + (1 + push) * (point - center)).reshape(item.x.shape)
        distance = metric.distance(item.x, moved)
        query = resolve(metric.ball(item.x, item.label, distance, item.target), replayer.graph)
        found = replay(replayer, query.properties[0], moved.reshape(replayer.graph.input_shape))
        if found is not None:
            return Nearest(min(distance, metric.distance(item.x, found.input)), found, attack)
    return None


def by_bisection(
    placed: Graph, replayer: Replayer, metric: Metric, item: Item, start: float, seed: int, until: float | None
) -> Nearest | None:
    """The nearest point that projected gradient descent finds in balls of a bisected radius.

    Args:
        placed: the network on its logits, on a device.
        start: radius of the first ball; it is doubled until there is a point, or the range is covered.
        until: time of `time.monotonic` at which to stop.
    """
    best: Nearest | None = None
    low, high, most = 0.0, start, metric.largest(item.x)
    options = PgdOptions(steps=40, restarts=32, rounds=1, seed=seed)
    for _ in range(_BISECTIONS):
        if until is not None and monotonic() > until:
            break
        query = resolve(metric.ball(item.x, item.label, high if best is None else (low + high) / 2, item.target), placed)
        found = attack(placed, Query(query.properties), options, replayer, until)
        if isinstance(found, Counterexample):
            distance = metric.distance(item.x, found.input)
            best = Nearest(distance, found, "pgd") if best is None or distance < best.distance else best
            high = best.distance
        elif best is None:
            if high >= most:
                break
            low, high = high, 2 * high
        else:
            low = (low + high) / 2
    return best


def nearest(
    placed: Graph,
    replayer: Replayer,
    metric: Metric,
    items: Sequence[Item],
    seed: int,
    until: float | None,
) -> list[Nearest | None]:
    """The nearest point of another class that was found for each item."""
    found: list[Nearest | None] = []
    for number, item in enumerate(items):
        share = None if until is None else monotonic() + max(0.0, until - monotonic()) / (len(items) - number)
        most = metric.largest(item.x)
        start = 0.05 * (most if np.isfinite(most) else float(np.linalg.norm(np.ones(item.x.size), ord=metric.order)))
        found.append(by_bisection(placed, replayer, metric, item, start, seed, share))
    return found


def on_data(graph: Graph, metric: Metric) -> Graph:
    """The network as a function of inputs in the units of the data, where it takes others."""
    from dataclasses import replace

    from verifier.graph.ir import Node
    from verifier.specs.normalize import affine

    change = affine(graph.input_shape, metric.mean, metric.std)
    if change.identity:
        return graph
    scale = np.broadcast_to(1 / change.std, graph.input_shape).copy()
    shift = np.broadcast_to(-change.mean / change.std, graph.input_shape).copy()
    name = f"{graph.input}, before it is normalised"
    first = Node(name, "input")
    scaled = Node(graph.input, "scale", (name,), constants={"scale": scale, "shift": shift})
    rest = tuple(scaled if node.name == graph.input else node for node in graph.nodes)
    return replace(graph, nodes=(first, *rest), input=name, shapes={name: graph.input_shape, **graph.shapes}, file=None)


def predictions(replayer: Replayer | None, exact: Graph, metric: Metric, inputs: Sequence[np.ndarray]) -> list[int]:
    """The class that onnxruntime predicts at each input (*X); our own float64 value where there is no file."""
    from verifier.operators import evaluate

    classes: list[int] = []
    for x in inputs:
        point = metric.to_network(x).reshape(exact.input_shape)
        if replayer is not None:
            output = replayer.run(point)
        else:
            output = evaluate(exact, torch.from_numpy(point).unsqueeze(0))[0].numpy()
        classes.append(int(np.argmax(output)))
    return classes
