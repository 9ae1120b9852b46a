"""Which part of a robust network's logits carries its robustness: students of logits that were tampered with.

Seguin et al. (arXiv 2108.12001) distil a robust teacher after changing its logits below the largest, and ask how much
of its robustness the student keeps. Their exact recipes could not be recovered: the changes below are a reconstruction,
and so are students and training. What is added here is that a student's robustness is also certified.

Axes: n inputs, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from verifier.analysis.brackets import Metric
from verifier.attacks.pgd import PgdOptions, pgd
from verifier.errors import InputError
from verifier.graph.ir import Graph, Node
from verifier.operators import evaluate, place
from verifier.pipeline import evidence
from verifier.specs.property import Query
from verifier.specs.robustness import resolve

Change = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class DistilOptions:
    """How students learn.

    Args:
        hidden: widths of a student's hidden layers.
        epochs, rate, batch: of Adam.
        temperature: by which logits are divided on both sides.
        steps, restarts: of the attack on a student.
        seed: of weights, order and changes.
    """

    hidden: tuple[int, ...] = (50, 50)
    epochs: int = 40
    rate: float = 5e-3
    batch: int = 64
    temperature: float = 1.0
    steps: int = 30
    restarts: int = 8
    seed: int = 0


@dataclass(frozen=True)
class Student:
    """What a student can do, as shares of the test inputs: classified correctly, not turned over by the attack within
    epsilon, and verified by CROWN there."""

    accuracy: float
    attacked: float
    certified: float


def average(z: Tensor, generator: torch.Generator) -> Tensor:
    """All but the largest logit are their mean."""
    own = _own(z)
    rest = z.masked_fill(own, 0).sum(1, keepdim=True) / (z.shape[1] - 1)
    return torch.where(own, z, rest)


def permute(z: Tensor, generator: torch.Generator) -> Tensor:
    """All but the largest logit are permuted, in every row anew."""
    ranks = z.argsort(1, descending=True)
    order = torch.rand(len(z), z.shape[1] - 1, generator=generator).argsort(1) + 1
    return torch.scatter(z, 1, ranks[:, 1:], z.gather(1, ranks.gather(1, order)))


def template(z: Tensor, generator: torch.Generator) -> Tensor:
    """The logit of every rank below the first is the mean over all rows of the logits of that rank: order alone is
    kept."""
    ranked, ranks = z.sort(1, descending=True)
    mean = ranked.mean(0, keepdim=True).expand_as(z)
    return _capped(z, torch.scatter(z, 1, ranks[:, 1:], mean[:, 1:]))


def class_mean(z: Tensor, generator: torch.Generator) -> Tensor:
    """All but the largest logit are those of the mean row of the same predicted class."""
    labels = z.argmax(1)
    means = torch.stack([z[labels == k].mean(0) if bool((labels == k).any()) else z.mean(0) for k in range(z.shape[1])])
    return _capped(z, torch.where(_own(z), z, means[labels]))


def shuffle_gaps(z: Tensor, generator: torch.Generator) -> Tensor:
    """The gap between the two largest logits is that of another row; the others stay."""
    top = z.topk(2, dim=1).values
    gaps = (top[:, 0] - top[:, 1])[torch.randperm(len(z), generator=generator)]
    return torch.where(_own(z), (top[:, 1] + gaps).unsqueeze(1), z)


CHANGES: Mapping[str, Change] = {
    "none": lambda z, generator: z,
    "average": average,
    "permute": permute,
    "template": template,
    "class-mean": class_mean,
    "shuffle-gaps": shuffle_gaps,
}


def distil(
    name: str,
    teacher: Tensor,
    train: Tensor,
    test: Sequence[np.ndarray],
    labels: Sequence[int],
    epsilon: float,
    metric: Metric,
    options: DistilOptions = DistilOptions(),
) -> Student:
    """Train a student on changed logits, and measure it.

    Args:
        name: a key of `CHANGES`.
        teacher: logits (n, K) of the training inputs.
        train: training inputs (n, *X) in the units of the data, which students take as they are.
        test, labels: inputs (*X) and classes by which the student is measured.
        epsilon: radius.
        metric: norm and range; without normalisation.

    Raises:
        InputError: the change is not known, or there are fewer than two classes.
    """
    if name not in CHANGES:
        raise InputError("--changes", f"'{name}' is not known", f"choose from {', '.join(CHANGES)}")
    if teacher.shape[1] < 2:
        raise InputError("network", f"has {teacher.shape[1]} output", "give one with a score for each of two classes")
    changed = CHANGES[name](teacher, torch.Generator().manual_seed(options.seed))
    return measure(_train(train, changed, options), test, labels, epsilon, metric, options)


def measure(
    graph: Graph,
    test: Sequence[np.ndarray],
    labels: Sequence[int],
    epsilon: float,
    metric: Metric,
    options: DistilOptions,
) -> Student:
    """Accuracy of a network without a file: plain, attacked and certified."""
    points = torch.from_numpy(np.stack([np.asarray(x, dtype=np.float32).reshape(graph.input_shape) for x in test]))
    placed = place(graph, torch.float32)
    right = evaluate(placed, points).flatten(1).argmax(1) == torch.as_tensor(list(labels))
    chosen = torch.nonzero(right).flatten().tolist()
    properties = [resolve(metric.ball(test[i], labels[i], epsilon), graph).properties[0] for i in chosen]
    attack = PgdOptions(options.steps, options.restarts, 1, seed=options.seed)
    stood = sum(pgd(placed, prop, attack).margin > 0 for prop in properties)
    found = evidence(graph, Query(tuple(properties)), "crown", device="cpu") if properties else []
    proved = sum(int(one.proved.sum()) for one in found)
    count = max(1, len(labels))
    return Student(len(chosen) / count, stood / count, proved / count)


def _train(x: Tensor, target: Tensor, options: DistilOptions) -> Graph:
    """A student with dense layers and ReLU that has learned the distributions of logits (n, K)."""
    shape, x = tuple(x.shape[1:]), x.flatten(1)
    generator = torch.Generator().manual_seed(options.seed)
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        layers = [nn.Linear(a, b) for a, b in pairwise((x.shape[1], *options.hidden, target.shape[1]))]
    net = nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())][:-1])
    aim = (target / options.temperature).softmax(1)
    optimiser = torch.optim.Adam(net.parameters(), lr=options.rate)
    for _ in range(options.epochs):
        for part in torch.randperm(len(x), generator=generator).split(options.batch):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(x[part]) / options.temperature, aim[part]).backward()
            optimiser.step()
    return _graph(layers, shape)


def _graph(layers: Sequence[nn.Linear], shape: tuple[int, ...]) -> Graph:
    """The layers as a graph that takes (1, *X)."""
    size = prod(shape)
    nodes = [Node("x", "input"), Node("flat", "reshape", ("x",), {"shape": (1, size)})]
    shapes: dict[str, tuple[int, ...]] = {"x": (1, *shape), "flat": (1, size)}
    for number, layer in enumerate(layers):
        constants = {"weight": layer.weight.detach().double().numpy(), "bias": layer.bias.detach().double().numpy()}
        nodes.append(Node(f"y{number}", "linear", (nodes[-1].name,), constants=constants))
        if number + 1 < len(layers):
            nodes.append(Node(f"z{number}", "relu", (nodes[-1].name,), constants={"slope": np.zeros(1)}))
        shapes |= {name: (1, layer.out_features) for name in (f"y{number}", f"z{number}")}
    return Graph(tuple(nodes), "x", nodes[-1].name, {node.name: shapes[node.name] for node in nodes})


def _own(z: Tensor) -> Tensor:
    """(n, K) where the largest logit of each row is."""
    return torch.zeros_like(z, dtype=torch.bool).scatter(1, z.argmax(1, keepdim=True), True)


def _capped(z: Tensor, changed: Tensor) -> Tensor:
    """Changed logits, none above the row's largest one."""
    return torch.minimum(changed, z.amax(1, keepdim=True))
