"""How well a score detects brittle decisions, with the band that unknown margins leave open.

An input is *brittle* where its margin is at most epsilon (a positive), *robust* where that is excluded, and unknown
where its bracket holds epsilon. A measure of detection then lies between its values for the best and the worst labels
of the unknown inputs. For a given number of positives among them, the best labels give these to the smallest scores:
exchanging a positive with a negative of smaller score never lowers the true positive rate at any threshold and never
raises the false positive rate. So all numbers are tried, and both ends of the band are attained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from verifier.analysis.margins.samples import Samples

#: true positive rate at which false positives are counted
TRUE_POSITIVES = 0.95
Measure = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Band:
    """Least and greatest value of a measure over all labels of the unknown inputs."""

    low: float
    high: float


@dataclass(frozen=True)
class Detection:
    """How well a score finds brittle inputs at a radius; a band is None where one of the two kinds may be missing.

    Args:
        brittle, robust, unknown: how many inputs there are of each kind.
        auroc, aupr, fpr95: area under the ROC and the precision-recall curve, and the false positive rate at a true
            positive rate of 95%.
    """

    brittle: int
    robust: int
    unknown: int
    auroc: Band | None
    aupr: Band | None
    fpr95: Band | None


def detection(scores: np.ndarray, samples: Samples, epsilon: float) -> Detection:
    """Measures of detection by small scores (n,)."""
    brittle, robust = samples.brittle(epsilon), samples.robust(epsilon)
    unknown = ~brittle & ~robust
    counts = int(brittle.sum()), int(robust.sum()), int(unknown.sum())
    labels = list(labellings(scores, brittle, unknown))
    bands = [band(measure, scores, labels) for measure in (auroc, aupr, fpr95)]
    return Detection(*counts, *bands)


def labellings(scores: np.ndarray, brittle: np.ndarray, unknown: np.ndarray) -> list[np.ndarray]:
    """Labels (n,) among which those are that make detection best and worst: the unknown inputs with the k smallest
    scores are brittle, or those with the k largest, for every k."""
    places = np.flatnonzero(unknown)
    places = places[np.argsort(scores[places], kind="stable")]
    made = []
    for order in (places, places[::-1]):
        for count in range(len(places) + 1):
            labels = brittle.copy()
            labels[order[:count]] = True
            made.append(labels)
    return made


def band(measure: Measure, scores: np.ndarray, labels: list[np.ndarray]) -> Band | None:
    """Both ends of a measure over labels; None where some of them have one kind only."""
    if not all(0 < one.sum() < len(one) for one in labels):
        labels = [one for one in labels if 0 < one.sum() < len(one)]
        if not labels:
            return None
    values = [measure(one, scores) for one in labels]
    return Band(min(values), max(values))


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, -scores))


def aupr(labels: np.ndarray, scores: np.ndarray) -> float:
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(labels, -scores))


def fpr95(labels: np.ndarray, scores: np.ndarray) -> float:
    """The least false positive rate at which `TRUE_POSITIVES` of the positives are found."""
    false, true = roc(labels, scores)
    return float(false[true >= TRUE_POSITIVES].min())


def roc(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates at all thresholds."""
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(labels, -scores, drop_intermediate=False)
    return false, true


def extremes(
    scores: np.ndarray, samples: Samples, epsilon: float
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None:
    """The ROC curves with the largest and the smallest area; None where there is none."""
    brittle = samples.brittle(epsilon)
    labels = labellings(scores, brittle, ~brittle & ~samples.robust(epsilon))
    labels = [one for one in labels if 0 < one.sum() < len(one)]
    if not labels:
        return None
    areas = [auroc(one, scores) for one in labels]
    best, worst = labels[int(np.argmax(areas))], labels[int(np.argmin(areas))]
    return roc(best, scores), roc(worst, scores)
