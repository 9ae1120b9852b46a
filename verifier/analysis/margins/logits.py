"""What training does to logits: their largest, the gap below it, the loss of margin, confidence and gradients.

Seguin et al., "Understanding the Logit Distributions of Adversarially-Trained Deep Neural Networks" (arXiv 2108.12001),
for the first two and the differences of confidence; Kanai et al. (arXiv 2207.10283) for the logit-margin loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from verifier.analysis.margins.scores import Scored, ScoreOptions
from verifier.graph.ir import Graph

#: quantities by name, each (n,)
QUANTITIES = ("max logit", "gap", "LM loss", "confidence", "gradient")
#: places of the curve that peaks are sought on, and how far one has to rise from its valleys, of the highest's height
_PLACES, _PROMINENCE = 512, 0.05


@dataclass(frozen=True, eq=False)
class LogitStatistics:
    """Quantities of one network on n inputs, float64 (n,).

    Args:
        name: of the network.
        labels, predictions: true and predicted classes.
        maximum: the largest logit.
        gap: the largest less the second.
        loss: ``max_{k != y} z_k - z_y``; positive where misclassified.
        confidence: the largest softmax probability.
        gradient: 1-norm of the gradient of the loss by the input, in the units of the data.
    """

    name: str
    labels: np.ndarray
    predictions: np.ndarray
    maximum: np.ndarray
    gap: np.ndarray
    loss: np.ndarray
    confidence: np.ndarray
    gradient: np.ndarray

    def quantity(self, name: str) -> np.ndarray:
        fields = (self.maximum, self.gap, self.loss, self.confidence, self.gradient)
        return fields[QUANTITIES.index(name)]

    def means(self, where: np.ndarray | None = None) -> dict[str, float]:
        """Accuracy and the mean of every quantity, of all inputs or of some."""
        chosen = np.ones(len(self.labels), dtype=bool) if where is None else where
        found = {"accuracy": float((self.labels == self.predictions)[chosen].mean())}
        return found | {name: float(self.quantity(name)[chosen].mean()) for name in QUANTITIES}

    def by_class(self) -> dict[str, dict[str, float]]:
        """`means` of the inputs of every true class."""
        return {str(label): self.means(self.labels == label) for label in np.unique(self.labels).tolist()}

    def as_object(self, first: LogitStatistics) -> dict[str, Any]:
        """As JSON has it, with the difference of confidence to the first network."""
        difference = self.confidence - first.confidence
        return {
            "network": self.name,
            "means": self.means(),
            "by_class": self.by_class(),
            "confidence_difference": {"mean": float(difference.mean()), "values": difference.tolist()},
            "peaks": {name: peaks(self.quantity(name)) for name in QUANTITIES},
            "values": {name: self.quantity(name).tolist() for name in QUANTITIES},
        }


def logit_statistics(
    name: str, graph: Graph, inputs: Sequence[np.ndarray], labels: Sequence[int], options: ScoreOptions
) -> LogitStatistics:
    """Measure one network.

    Args:
        inputs: each (*X), in the units of the data.
        labels: true classes.
    """
    scored, rows = Scored.of(graph, options), []
    for start in range(0, len(inputs), options.batch):
        part = slice(start, start + options.batch)
        rows.append(_measure(scored, inputs[part], torch.as_tensor(list(labels[part]))))
    columns = [np.concatenate(column) for column in zip(*rows, strict=True)]
    return LogitStatistics(name, np.asarray(labels), columns[0].astype(np.int64), *columns[1:])


def peaks(values: np.ndarray) -> list[float]:
    """Where the distribution of values (n,) has its peaks: local maxima of a Gaussian kernel estimate (Scott's
    bandwidth) that rise clearly above the valleys beside them. What counts as clearly, a twentieth of the highest, is
    ours."""
    from scipy.signal import find_peaks
    from scipy.stats import gaussian_kde

    low, high = float(values.min()), float(values.max())
    if len(values) < 2 or not high > low:
        return [low]
    width = 0.1 * (high - low)
    places = np.linspace(low - width, high + width, _PLACES)
    curve = gaussian_kde(values)(places)
    found, _ = find_peaks(np.concatenate([[0.0], curve, [0.0]]), prominence=_PROMINENCE * curve.max())
    return [float(place) for place in places[found - 1]]


def _measure(scored: Scored, inputs: Sequence[np.ndarray], labels: torch.Tensor) -> list[np.ndarray]:
    from verifier.specs.normalize import affine

    x = scored.tensor(inputs).requires_grad_()
    z = scored.outputs(x)
    labels = labels.to(z.device)
    own = torch.nn.functional.one_hot(labels, z.shape[1]).bool()
    loss = z.masked_fill(own, -torch.inf).amax(1) - z.gather(1, labels[:, None]).squeeze(1)
    (slope,) = torch.autograd.grad(loss.sum(), x)
    std = affine(inputs[0].shape, scored.options.metric.mean, scored.options.metric.std).std
    scale = torch.as_tensor(np.broadcast_to(1 / std, inputs[0].shape).reshape(scored.graph.input_shape).copy()).to(x)
    top = z.topk(2, dim=1).values
    found = (
        z.argmax(1),
        top[:, 0],
        top[:, 0] - top[:, 1],
        loss,
        z.softmax(1).amax(1),
        (slope * scale).flatten(1).abs().sum(1),
    )
    return [one.detach().double().cpu().numpy() for one in found]
