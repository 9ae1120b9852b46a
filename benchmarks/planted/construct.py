"""Networks with a counterexample planted where gradients do not lead.

A classifier is fitted, and a box is taken around an input where it keeps its class by a wide margin. Then a bump is
added to another class's score: a function of some hidden values that is 1 at one interior point of the box, falls off
within a small part of it, and has no gradient elsewhere. It lifts that class just above the right one at that point.
The aim is that of SoundnessBench (Zhou et al. 2024, arXiv 2412.03154), which trains such networks; here they are made
by construction, so their number is not limited.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.planted.layers import Layer, evaluate

ARCHITECTURES = ("mlp", "cnn", "smooth", "few-inputs")
#: radii that are tried, the widest first, until the classifier alone keeps a share of its margin under attack
RADII = tuple(0.2 * 0.75**i for i in range(20))
KEPT = 0.4
#: the bump ends at this share of the distance at which the nearest of so many random points of the box lies
REACH, SAMPLES = 0.6, 2000
#: share of the bump's height by which the property is violated, at least and at most
SLIGHT = (0.002, 0.2)
#: steepness of the walls of a bump made of sigmoids
WALL, ROOF = 6.0, 14.0


@dataclass(frozen=True)
class Planted:
    """A network and a property that it breaks: the class of `x` does not stay `label` within `epsilon` of it.

    Args:
        layers: the network.
        x: (*X) float32, in [0, 1].
        hidden: (*X) float32, the counterexample.
        violation: by how much another class wins there, in the arithmetic of float64.
    """

    architecture: str
    layers: tuple[Layer, ...]
    x: np.ndarray
    label: int
    epsilon: float
    hidden: np.ndarray
    violation: float


def plant(architecture: str, seed: int, data: tuple[np.ndarray, np.ndarray]) -> Planted:
    """One network with its hidden counterexample.

    Args:
        architecture: one of `ARCHITECTURES`.
        seed: of everything random.
        data: images (N, 1, 8, 8) in [0, 1] and their classes (N,), for all but ``few-inputs``.
    """
    random = np.random.default_rng([seed, ARCHITECTURES.index(architecture)])
    images, labels = clusters(random) if architecture == "few-inputs" else data
    trunk, head = fit(architecture, random, images, labels)
    base = (*trunk, *head)
    x, label, epsilon = choose_box(base, random, images, labels)
    lower, upper = np.clip(x - epsilon, 0, 1), np.clip(x + epsilon, 0, 1)
    hidden = (lower + (upper - lower) * random.uniform(0.05, 0.95, x.shape)).astype(np.float32)
    scores = evaluate(base, hidden[None].astype(np.float64))[0]
    target = int(random.choice([k for k in range(len(scores)) if k != label]))
    share = float(np.exp(random.uniform(*np.log(SLIGHT))))
    points = lower + (upper - lower) * corners_and_inner(random, x.shape)
    bump = make_bump(trunk, random, hidden.astype(np.float64), points)
    height = (scores[label] - scores[target]) / (bump.peak - share)
    layers = shuffled(attach(trunk, head, bump, target, height), len(trunk), random)
    layers = tuple(Layer(_float32(one.weight), _float32(one.bias), one.activation) for one in layers)
    final = evaluate(layers, hidden[None].astype(np.float64))[0]
    violation = float(np.delete(final, label).max() - final[label])
    return Planted(architecture, layers, x, label, epsilon, hidden, violation)


def clusters(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 5) in [0, 1] of four classes."""
    centres = random.uniform(0.2, 0.8, (4, 5))
    labels = random.integers(0, 4, 400)
    return np.clip(centres[labels] + random.normal(0, 0.08, (400, 5)), 0, 1), labels


def fit(
    architecture: str, random: np.random.Generator, images: np.ndarray, labels: np.ndarray
) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """A classifier in two parts: random layers, of which the bump will read the first part, and a fitted last one."""
    inner, outer = ("Tanh", "Sigmoid") if architecture == "smooth" else ("Relu", "Relu")
    if architecture == "cnn":
        trunk = (Layer(random.normal(0, 0.5, (8, 1, 3, 3)), random.normal(0, 0.1, 8), inner),)
    else:
        trunk = (_random_layer(random, images[0].size, 16 if architecture == "few-inputs" else 40, inner),)
    size = evaluate(trunk, images[:1]).shape[1]
    first = _random_layer(random, size, 32, outer)
    second = _random_layer(random, 32, 32, outer)
    features = evaluate((*trunk, first, second), images)
    mean = features.mean(0)
    centred, wanted = features - mean, np.eye(labels.max() + 1)[labels]
    gram = centred.T @ centred + 1e-3 * len(images) * np.diag(centred.var(0) + 1e-6)
    weight = np.linalg.solve(gram, centred.T @ (wanted - wanted.mean(0))).T
    return trunk, (first, second, Layer(weight, wanted.mean(0) - weight @ mean, "Identity"))


def _random_layer(random: np.random.Generator, inputs: int, outputs: int, activation: str) -> Layer:
    return Layer(random.normal(0, np.sqrt(2 / inputs), (outputs, inputs)), random.normal(0, 0.2, outputs), activation)


def choose_box(
    layers: Sequence[Layer], random: np.random.Generator, images: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, int, float]:
    """An input that is classified well, and the widest radius at which an attack leaves it a share of its margin."""
    scores = evaluate(layers, images)
    right = scores[np.arange(len(labels)), labels]
    scores[np.arange(len(labels)), labels] = -np.inf
    margins = right - scores.max(1)
    index = int(random.choice(np.argsort(margins)[len(margins) // 2 :]))
    x, label = images[index].astype(np.float32), int(labels[index])
    for radius in RADII:
        if attacked_margin(layers, x.astype(np.float64), label, radius) >= KEPT * margins[index]:
            return x, label, radius
    raise ArithmeticError("no radius leaves the classifier its margin")


def attacked_margin(layers: Sequence[Layer], x: np.ndarray, label: int, radius: float, steps: int = 6) -> float:
    """The least margin along a signed gradient descent with differences as gradients."""
    lower, upper = np.clip(x - radius, 0, 1), np.clip(x + radius, 0, 1)
    units = np.eye(x.size).reshape(-1, *x.shape) * 1e-4
    least, point = np.inf, x
    for step in range(steps):
        margins = _margins(evaluate(layers, np.concatenate([point[None], point + units])), label)
        least = min(least, float(margins[0]))
        direction = np.sign(margins[1:] - margins[0]).reshape(x.shape)
        point = np.clip(point - radius / (1 + step / 2) * direction, lower, upper)
    return min(least, float(_margins(evaluate(layers, point[None]), label)[0]))


def _margins(scores: np.ndarray, label: int) -> np.ndarray:
    return scores[:, label] - np.delete(scores, label, 1).max(1)


def corners_and_inner(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Points of the unit cube (SAMPLES, *X), half of them corners."""
    points = random.uniform(0, 1, (SAMPLES, *shape))
    points[::2] = points[::2].round()
    return points


@dataclass(frozen=True)
class Bump:
    """Two layers on top of the trunk that make the bump.

    Args:
        walls: hidden values that measure the distance from the hidden point.
        roof: one neuron of them.
        peak: its value at the hidden point.
    """

    walls: Layer
    roof: Layer
    peak: float


def make_bump(trunk: Sequence[Layer], random: np.random.Generator, hidden: np.ndarray, points: np.ndarray) -> Bump:
    """A bump at the hidden point (*X) that none of the points (N, *X) touches."""
    centre = evaluate(trunk, hidden[None])[0]
    count = int(random.integers(4, 12))
    directions = random.normal(0, 1, (count, len(centre)))
    distances = np.abs((evaluate(trunk, points) - centre) @ directions.T)
    if trunk[0].activation == "Relu":
        directions /= REACH * distances.sum(1).min()
        away = np.concatenate([directions, -directions])
        walls = Layer(away, -away @ centre, "Relu")
        roof = Layer(-np.ones((1, 2 * count)), np.ones(1), "Relu")
    else:
        directions *= WALL / (REACH * distances.max(1).min())
        twice = np.concatenate([directions, directions])
        walls = Layer(twice, -twice @ centre + np.repeat([WALL, -WALL], count), "Sigmoid")
        floor = ROOF * (count - 0.5)
        roof = Layer(ROOF * np.repeat([1.0, -1.0], count)[None], np.array([-floor]), "Sigmoid")
    peak = float(roof(walls(centre[None]))[0, 0])
    return Bump(walls, roof, peak)


def attach(trunk: Sequence[Layer], head: Sequence[Layer], bump: Bump, target: int, height: float) -> tuple[Layer, ...]:
    """The classifier with `height` times the bump added to the target's score."""
    first, second, last = head
    below = Layer(
        np.concatenate([first.weight, bump.walls.weight]),
        np.concatenate([first.bias, bump.walls.bias]),
        first.activation,
    )
    across = np.zeros((len(second.weight), bump.roof.weight.shape[1]))
    aside = np.zeros((1, second.weight.shape[1]))
    middle = Layer(
        np.block([[second.weight, across], [aside, bump.roof.weight]]),
        np.concatenate([second.bias, bump.roof.bias]),
        second.activation,
    )
    column = np.zeros((len(last.weight), 1))
    column[target] = height
    return (*trunk, below, middle, Layer(np.hstack([last.weight, column]), last.bias, "Identity"))


def shuffled(layers: Sequence[Layer], first: int, random: np.random.Generator) -> tuple[Layer, ...]:
    """The same function with the neurons of all hidden layers from `first` on in another order."""
    mixed = list(layers)
    for i in range(first, len(mixed) - 1):
        order = random.permutation(len(mixed[i].bias))
        mixed[i] = Layer(mixed[i].weight[order], mixed[i].bias[order], mixed[i].activation)
        mixed[i + 1] = Layer(mixed[i + 1].weight[:, order], mixed[i + 1].bias, mixed[i + 1].activation)
    return tuple(mixed)


def _float32(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32).astype(np.float64)
