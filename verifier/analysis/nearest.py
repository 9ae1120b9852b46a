"""The attacked end of a bracket: points of another class near an input, replayed in onnxruntime."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from verifier.analysis.brackets import Metric
from verifier.attacks.nearest import MinimumNormOptions, minimum_norm
from verifier.attacks.replay import Replayer, replay
from verifier.graph.ir import Graph
from verifier.operators import evaluate
from verifier.specs.normalize import affine
from verifier.specs.robustness import resolve
from verifier.verdict import Counterexample

#: how much further than the attack's point to look where onnxruntime does not confirm it, relatively
_PUSHES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


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


def nearest(
    logits: Graph,
    replayer: Replayer,
    metric: Metric,
    items: Sequence[Item],
    options: MinimumNormOptions,
) -> list[Nearest | None]:
    """The nearest point of another class that FAB finds for each item, replayed; None where it finds none.

    Args:
        logits: the network without a final softmax, not placed.
        options: of the attack.
    """
    shape = (len(items), *logits.input_shape)
    x = np.stack([metric.to_network(item.x).reshape(logits.input_shape) for item in items])
    change = affine(items[0].x.shape, metric.mean, metric.std)
    clip, scale = None, np.broadcast_to(1 / change.std, items[0].x.shape).reshape(logits.input_shape)
    if metric.clip is not None:
        low, high = (change(np.full(items[0].x.shape, end)).reshape(logits.input_shape) for end in metric.clip)
        clip = (np.minimum(x, low), np.maximum(x, high))  # rounding may have moved an input out of the range
    wanted = [item.target for item in items]
    aimed = any(target is not None for target in wanted)
    found = minimum_norm(
        logits,
        x.reshape(shape),
        [item.label for item in items],
        metric.norm,
        clip,
        replace(options, targets=0) if aimed else options,
        scale=scale,
        replayer=replayer,
        wanted=wanted,
    )
    points = zip(items, found.points.numpy(), found.distances.tolist(), strict=True)
    return [None if math.isinf(d) else confirmed(replayer, metric, item, point, "fab") for item, point, d in points]


def predictions(replayer: Replayer | None, exact: Graph, metric: Metric, inputs: Sequence[np.ndarray]) -> list[int]:
    """The class that onnxruntime predicts at each input (*X); our own float64 value where there is no file."""
    classes: list[int] = []
    for x in inputs:
        point = metric.to_network(x).reshape(exact.input_shape)
        if replayer is not None:
            output = replayer.run(point)
        else:
            output = evaluate(exact, torch.from_numpy(point).unsqueeze(0))[0].numpy()
        classes.append(int(np.argmax(output)))
    return classes
