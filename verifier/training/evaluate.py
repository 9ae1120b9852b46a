"""What a trained network is worth on the test split: everything from the exported file, by the engine's own verdicts.

`verifier verify` on the same file, image and radius comes to the same answers, since both ask `verifier.pipeline`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verifier.attacks.replay import Replayer
from verifier.errors import InputError
from verifier.graph.ir import Graph
from verifier.operators import evaluate, find_device, place
from verifier.pipeline import evidence, verify
from verifier.schedule import bounding_methods
from verifier.specs.box import Box
from verifier.specs.datasets import Dataset
from verifier.specs.property import Query
from verifier.specs.robustness import resolve, robustness
from verifier.training.attack import ascend_in_box
from verifier.training.config import Evaluation
from verifier.training.data import generator
from verifier.training.precision import products
from verifier.verdict import Falsified, Verified

#: what random numbers of the attack are drawn for; another stream than those of training
_ATTACK = 100
#: step of the attack in half widths of the ball
_STEP = 0.25

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Subject:
    """A network and the images it is judged by.

    Args:
        graph: as read from its file.
        x: (N, *X) float32 in [0, 1], in the network's input shape X.
        y: (N,) int64.
        correct: (N,) bool, by the network in float32.
        device: where bounds are computed.
    """

    graph: Graph
    x: np.ndarray
    y: np.ndarray
    correct: np.ndarray
    device: str

    @classmethod
    def of(cls, graph: Graph, data: Dataset, batch: int, device: str = "cpu") -> Subject:
        """All images of a data set.

        Raises:
            InputError: they do not fit the network.
        """
        x = data.x.astype(np.float32)
        if x[0].size != int(np.prod(graph.input_shape)):
            what = f"its inputs have {x[0].size} values, the network takes {int(np.prod(graph.input_shape))}"
            raise InputError(f"--dataset {data.name}", what, "evaluate on the data that the network was made for")
        x = x.reshape(len(x), *graph.input_shape)
        placed = place(graph, torch.float32, find_device(device))
        logits = [_logits(placed, part) for part in np.array_split(x, max(1, len(x) // batch))]
        correct = np.concatenate(logits).argmax(1) == data.y
        return cls(graph, x, data.y, correct, device)

    def first(self, count: int) -> Subject:
        """The same with fewer images."""
        return Subject(self.graph, self.x[:count], self.y[:count], self.correct[:count], self.device)


def certified(subject: Subject, images: np.ndarray, epsilon: np.ndarray, method: str, batch: int) -> np.ndarray:
    """Which images a bounding method proves robust, each within its own radius.

    Args:
        images: (n,) int64.
        epsilon: (n,) radii in units of pixels; the ball is cut with [0, 1].
        method: a name that `verifier.bounds` takes.
        batch: images at a time.

    Returns:
        (n,) bool, by bounds that `verify` counts as proofs.
    """
    proved = []
    for start in range(0, len(images), batch):
        part = slice(start, start + batch)
        properties = [
            resolve(robustness(subject.x[i], int(subject.y[i]), float(e)), subject.graph).properties[0]
            for i, e in zip(images[part], epsilon[part], strict=True)
        ]
        query = Query(tuple(properties), "test images")
        proved += [found.proved.cpu() for found in evidence(subject.graph, query, method, device=subject.device)]
    return torch.cat(proved).numpy() if proved else np.zeros(0, dtype=bool)


def attacked(subject: Subject, epsilon: float, options: Evaluation, seed: int) -> np.ndarray:
    """Which of the correctly classified images (N,) an attack moves to another class, as onnxruntime answers."""
    device = find_device(subject.device)
    graph, replayer = place(subject.graph, torch.float32, device), Replayer(subject.graph)
    broken = ~subject.correct
    for restart in range(options.attack_restarts):
        for start in range(0, len(broken), options.batch_size):
            chosen = start + np.flatnonzero(~broken[start : start + options.batch_size])
            if len(chosen) == 0:
                continue
            x, y = (torch.from_numpy(array[chosen]).to(device) for array in (subject.x, subject.y))
            box = Box((x - epsilon).clamp(min=0), (x + epsilon).clamp(max=1))
            random = generator(seed, _ATTACK, restart, start, device=device)
            point = ascend_in_box(lambda x, y=y: -_margins(graph, x, y), box, options.attack_steps, _STEP, random)
            with torch.no_grad():
                hopeful = (_margins(graph, point, y) <= 0).cpu().numpy()
            for i, moved in zip(chosen[hopeful], point.cpu().numpy()[hopeful], strict=True):
                broken[i] = replayer.run(moved).reshape(-1).argmax() != subject.y[i]
    return broken & subject.correct


def certified_radii(subject: Subject, limit: float, options: Evaluation) -> np.ndarray:
    """The largest radius (N,) that was *proved* for each image, by bisection of [0, limit] from below.

    It is never the root of a margin but the last radius with a proof; 0 for misclassified images.
    """
    low, high = np.zeros(len(subject.y)), np.full(len(subject.y), limit)
    open_ = np.flatnonzero(subject.correct)
    proved = certified(subject, open_, high[open_], options.radius_method, options.batch_size)
    low[open_[proved]] = limit
    open_ = open_[~proved]
    for _ in range(options.radius_steps):
        middle = (low[open_] + high[open_]) / 2
        proved = certified(subject, open_, middle, options.radius_method, options.batch_size)
        low[open_], high[open_] = np.where(proved, middle, low[open_]), np.where(proved, high[open_], middle)
    return low


def evaluate_network(
    graph: Graph,
    data: Dataset,
    epsilon: float,
    options: Evaluation,
    device: str = "auto",
    seed: int = 0,
    progress: Progress = lambda said: None,
) -> dict[str, Any]:
    """Accuracies and radii of a network, as numbers that JSON can hold.

    Accuracies are shares of all images looked at. What a cheaper method proved, a tighter one is not asked again; what
    the attack broke, none is asked.

    Args:
        graph: as read from its file.
        data: the test split.
        epsilon: radius in units of pixels.
        options: how many images, which methods.
        device: where bounds are computed.
        seed: of the attack.
        progress: told what comes next.

    Raises:
        InputError: a method is unknown, or the data do not fit the network.
    """
    check_evaluation(options)
    with products(tf32=False):
        return _evaluate(graph, data, epsilon, options, device, seed, progress)


def _evaluate(
    graph: Graph, data: Dataset, epsilon: float, options: Evaluation, device: str, seed: int, progress: Progress
) -> dict[str, Any]:
    progress("natural accuracy")
    everything = Subject.of(graph, data, options.batch_size, device)
    subject = everything.first(options.images)
    progress("attack" if options.attack_restarts else "bounds")
    broken = attacked(subject, epsilon, options, seed)
    report: dict[str, Any] = {
        "epsilon": epsilon,
        "natural": {"accuracy": float(everything.correct.mean()), "images": len(everything.y)},
    }
    if options.attack_restarts:
        report["attacked"] = {"accuracy": float((subject.correct & ~broken).mean()), "images": len(subject.y)}
    report["certified"] = {}
    proved = np.zeros(len(subject.y), dtype=bool)
    for method in options.methods:
        progress(f"bounds by {method}")
        rest = np.flatnonzero(subject.correct & ~broken & ~proved)
        proved[rest] = certified(subject, rest, np.full(len(rest), epsilon), method, options.batch_size)
        report["certified"][method] = {"accuracy": float(proved.mean()), "images": len(subject.y)}
    if options.complete_images:
        progress("complete verification")
        report["complete"] = _complete(subject.first(options.complete_images), epsilon, proved, broken, options, seed)
    if options.radius_images:
        progress("certified radii")
        limit = 2 * epsilon if options.radius_limit is None else options.radius_limit
        radii = certified_radii(everything.first(options.radius_images), limit, options)
        report["radius"] = _radius_report(radii, limit, options)
    return report


def _complete(
    subject: Subject, epsilon: float, proved: np.ndarray, broken: np.ndarray, options: Evaluation, seed: int
) -> dict[str, Any]:
    """Verdicts on the first images; the search sees those that neither bounds nor the attack decided."""
    counts = {"verified": 0, "falsified": 0, "undecided": 0}
    for i, label in enumerate(subject.y):
        if proved[i]:
            counts["verified"] += 1
        elif broken[i] or not subject.correct[i]:
            counts["falsified"] += 1
        else:
            spec = robustness(subject.x[i], int(label), epsilon)
            verdict = verify(subject.graph, spec, timeout=options.timeout, device=subject.device, seed=seed)
            kind = "verified" if isinstance(verdict, Verified) else "undecided"
            counts["falsified" if isinstance(verdict, Falsified) else kind] += 1
    images = len(subject.y)
    return {"accuracy": counts["verified"] / images, "images": images, "timeout": options.timeout, **counts}


def _radius_report(radii: np.ndarray, limit: float, options: Evaluation) -> dict[str, Any]:
    return {
        "method": options.radius_method,
        "images": len(radii),
        "limit": limit,
        "mean": float(radii.mean()),
        "mean_share": float(radii.mean() / limit),  # the ACR in units of the limit
        "median": float(np.median(radii)),
        "radii": [float(radius) for radius in radii],
    }


def check_evaluation(options: Evaluation) -> None:
    """Refuse what could not be evaluated.

    Raises:
        InputError: a method is unknown.
    """
    known = bounding_methods()
    for name in (*options.methods, options.radius_method):
        if name not in known:
            raise InputError("evaluation.methods", f"'{name}' is not known", f"choose of {', '.join(known)}")


def _logits(graph: Graph, x: np.ndarray) -> np.ndarray:
    like = next(value for node in graph.nodes for value in node.constants.values() if isinstance(value, Tensor))
    with torch.no_grad():
        return evaluate(graph, torch.from_numpy(x).to(like.device)).flatten(1).cpu().numpy()


def _margins(graph: Graph, x: Tensor, y: Tensor) -> Tensor:
    """Least margin (B,) of the label over the other classes."""
    logits = evaluate(graph, x).flatten(1)
    right = logits.gather(1, y[:, None])
    return -(logits - right).scatter(1, y[:, None], -torch.inf).amax(1)
