"""Scores that may stand for an input's margin: the smaller, the more brittle.

Axes: B inputs, K classes, F features (the input of the last linear layer). ``i`` is the predicted class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from verifier.analysis.brackets import Metric
from verifier.analysis.margins.pseudo import PseudoMargin
from verifier.errors import InputError
from verifier.graph.ir import Graph, Node
from verifier.operators import evaluate, find_device, place
from verifier.operators.tail import to_logits
from verifier.pipeline import evidence
from verifier.specs.normalize import affine
from verifier.specs.property import Query
from verifier.specs.robustness import resolve
from verifier.workers import full_precision

LOGIT, GRADIENT, FEATURE, PSEUDO, CROWN = (
    *("logit-margin", "margin-over-gradient", "feature-margin", "pseudo-margin", "crown-margin"),
)
#: what stands where a class is compared with itself
_SELF = 1e30
_BATCH = 256


@dataclass(frozen=True)
class ScoreOptions:
    """What scores need to know.

    Args:
        metric: norm and units of the inputs.
        epsilon: radius of `crown-margin`.
        pseudo: what `pseudo-margin` has learned.
        device: as of `verifier.schedule.VerifyOptions`.
        batch: inputs that go through the network at once.
    """

    metric: Metric = field(default_factory=Metric)
    epsilon: float | None = None
    pseudo: PseudoMargin | None = None
    device: str = "auto"
    batch: int = _BATCH


@dataclass(frozen=True, eq=False)
class Scored:
    """A network placed for scoring, in float32.

    Args:
        graph: as read.
        logits: without a final softmax, on the device.
        options: as given.
    """

    graph: Graph
    logits: Graph
    options: ScoreOptions

    @staticmethod
    def of(graph: Graph, options: ScoreOptions) -> Scored:
        return Scored(graph, place(logits_of(graph), torch.float32, find_device(options.device)), options)

    def tensor(self, inputs: Sequence[np.ndarray]) -> Tensor:
        """Inputs (*X) in the data's units as a batch in the network's."""
        points = [self.options.metric.to_network(x).reshape(self.graph.input_shape) for x in inputs]
        return torch.from_numpy(np.stack(points)).to(torch.float32).to(find_device(self.options.device))

    def outputs(self, x: Tensor) -> Tensor:
        """Logits (B, K)."""
        return evaluate(self.logits, x).flatten(1)


def logits_of(graph: Graph) -> Graph:
    """The network without a final softmax."""
    return to_logits(graph, Query(()))[0]


def score(name: str, graph: Graph, inputs: Sequence[np.ndarray], options: ScoreOptions) -> np.ndarray:
    """Scores (n,) float64 of inputs.

    Args:
        name: a key of `SCORES`.
        inputs: each (*X), in the units of the data.

    Raises:
        InputError: there is no such score, or it does not suit the network or lacks something.
    """
    if name not in SCORES:
        raise InputError("--score", f"'{name}' is not known", f"choose from {', '.join(SCORES)}")
    scored = Scored.of(graph, options)
    parts = [inputs[start : start + options.batch] for start in range(0, len(inputs), options.batch)]
    with full_precision():
        found = [SCORES[name](scored, part).detach().double().cpu().numpy() for part in parts]
    return np.concatenate(found) if found else np.zeros(0)


def logit_margin(scored: Scored, inputs: Sequence[np.ndarray]) -> Tensor:
    """``z_(1) - z_(2)``, the paper's score: (B,)."""
    z = scored.outputs(scored.tensor(inputs))
    return weighted_margin(z, unit_weights(z.shape[1]).to(z))


def weighted_margin(z: Tensor, weight: Tensor) -> Tensor:
    """``min_j (z_i - z_j) weight[i, j]`` for logits z (B, K), i the largest of them; (B,)."""
    top, i = z.max(1, keepdim=True)
    own = torch.arange(z.shape[1], device=z.device) == i
    return torch.where(own, torch.as_tensor(_SELF, dtype=z.dtype), (top - z) * weight[i.squeeze(1)]).amin(1)


def unit_weights(classes: int) -> Tensor:
    return torch.ones(classes, classes)


def feature_weights(graph: Graph, order: float) -> Tensor:
    """``1 / |w_i - w_j|_q`` of the last layer's rows (K, K), q dual to the norm: a logit gap over this is the distance
    of the features to the boundary between two classes, exactly.

    Raises:
        InputError: the network does not end in a dense layer.
    """
    rows = torch.as_tensor(np.asarray(last_layer(graph).constants["weight"]), dtype=torch.float64)
    distance = torch.linalg.vector_norm(rows.unsqueeze(1) - rows.unsqueeze(0), ord=dual(order), dim=-1)
    return torch.where(distance > 0, 1 / distance.clamp(min=1e-30), 1.0).to(torch.float32)


def last_layer(graph: Graph) -> Node:
    """The dense layer whose rows are the classes.

    Raises:
        InputError: there is none at the end.
    """
    logits = logits_of(graph)
    last = next(node for node in logits.nodes if node.name == logits.output)
    if last.op == "linear":
        return last
    what = f"it ends in {last.source or last.op}, not in a dense layer"
    raise InputError(str(graph.file.path) if graph.file else "network", what, "choose another score than the features'")


def dual(order: float) -> float:
    """The norm dual to one of inf, 2 and 1."""
    return {math.inf: 1.0, 1.0: math.inf}.get(order, 2.0)


def _feature_margin(scored: Scored, inputs: Sequence[np.ndarray]) -> Tensor:
    z = scored.outputs(scored.tensor(inputs))
    return weighted_margin(z, feature_weights(scored.graph, scored.options.metric.order).to(z))


def _over_gradient(scored: Scored, inputs: Sequence[np.ndarray]) -> Tensor:
    """``min_j (z_i - z_j) / |grad (z_i - z_j)|_q``: the margin of the network linearised at the input (B,)."""
    x = scored.tensor(inputs).requires_grad_()
    z = scored.outputs(x)
    std = affine(inputs[0].shape, scored.options.metric.mean, scored.options.metric.std).std
    scale = torch.as_tensor(np.broadcast_to(1 / std, inputs[0].shape).reshape(scored.graph.input_shape).copy()).to(x)
    slopes = [torch.autograd.grad(z[:, k].sum(), x, retain_graph=True)[0] * scale for k in range(z.shape[1])]
    slope = torch.stack(slopes, 1).flatten(2)
    top, i = z.detach().max(1)
    steepness = torch.linalg.vector_norm(
        slope[torch.arange(len(x), device=x.device), i].unsqueeze(1) - slope,
        ord=dual(scored.options.metric.order),
        dim=-1,
    )
    gap = (top.unsqueeze(1) - z.detach()) / steepness.clamp(min=1e-30)
    own = torch.arange(z.shape[1], device=z.device) == i.unsqueeze(1)
    return torch.where(own, torch.as_tensor(_SELF, dtype=z.dtype), gap).amin(1)


def features(scored: Scored, x: Tensor) -> Tensor:
    """What the last dense layer takes (B, F), for inputs x (B, *X) in the network's units."""
    before = last_layer(scored.graph).inputs[0]
    return evaluate(replace(scored.logits, output=before), x).flatten(1)


def observed(scored: Scored, inputs: Sequence[np.ndarray], on: str) -> Tensor:
    """What a pseudo-margin is computed from: `features` or `logits` (B, F)."""
    x = scored.tensor(inputs)
    with torch.no_grad():
        return features(scored, x) if on == "features" else scored.outputs(x)


def _pseudo_margin(scored: Scored, inputs: Sequence[np.ndarray]) -> Tensor:
    pseudo = scored.options.pseudo
    if pseudo is None:
        raise InputError("--score pseudo-margin", "has learned nothing yet", "give brackets to learn from with --fit")
    return pseudo(observed(scored, inputs, pseudo.on))


def _crown_margin(scored: Scored, inputs: Sequence[np.ndarray]) -> Tensor:
    """CROWN's lower bound of the smallest logit gap over the ball of radius epsilon (B,)."""
    options = scored.options
    if options.epsilon is None:
        raise InputError("--score crown-margin", "needs a radius", "give --epsilon")
    with torch.no_grad():
        labels = scored.outputs(scored.tensor(inputs)).argmax(1).tolist()
    balls = [options.metric.ball(x, label, options.epsilon) for x, label in zip(inputs, labels, strict=True)]
    query = Query(tuple(resolve(ball, scored.graph).properties[0] for ball in balls))
    found = evidence(scored.graph, query, "crown", device=options.device)
    # Not `Evidence.margins`: a score may say what rounding could undo, and is not a claim.
    return torch.cat([one.problem.rows.margins(one.bounds.lower).amin(1).double() for one in found])


Score = Callable[[Scored, Sequence[np.ndarray]], Tensor]
SCORES: dict[str, Score] = {
    LOGIT: logit_margin,
    GRADIENT: _over_gradient,
    FEATURE: _feature_margin,
    PSEUDO: _pseudo_margin,
    CROWN: _crown_margin,
}
