"""Robust accuracy: a certified interval from a measured subset, and estimates for a large set by a score.

An input counts where it is classified correctly and its margin exceeds epsilon. Of a measured input that is known from
below (verified) and from above (attacked); of others only the score is.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from verifier.analysis.margins.detector import clopper_pearson
from verifier.analysis.margins.samples import Samples, require_correct

#: true positive rate of the paper's threshold
_PAPERS_RATE = 0.95


@dataclass(frozen=True)
class Interval:
    """An interval of a probability."""

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """What is said of the robust accuracy of a distribution.

    Args:
        n, large: measured inputs, and further ones with scores alone.
        certified, attacked: shares of the measured inputs that are certainly, and possibly, correct and robust.
        interval: covers the robust accuracy with the confidence, whatever the margins within their brackets (both ends
            by Clopper and Pearson).
        predicted: prediction-powered interval from measured and further inputs: asymptotic, None without further ones.
        middle: its point estimates for the lower and the upper ends of the brackets.
        paper: the paper's rule on all inputs: the share that is correct and scores above the threshold that finds 95%
            of the brittle ones of the subset; None where none of these is brittle.
        confidence: of both intervals.
    """

    n: int
    large: int
    certified: float
    attacked: float
    interval: Interval
    predicted: Interval | None
    middle: Interval | None
    paper: float | None
    confidence: float


def robust_accuracy(samples: Samples, epsilon: float, delta: float) -> Interval:
    """Interval of the robust accuracy of the distribution that samples come from, at confidence 1 - delta."""
    certain = int((samples.correct & samples.robust(epsilon)).sum())
    possible = int((samples.correct & ~samples.brittle(epsilon)).sum())
    n = len(samples)
    return Interval(clopper_pearson(certain, n, delta / 2)[0], clopper_pearson(possible, n, delta / 2)[1])


def estimate(
    scores: np.ndarray,
    samples: Samples,
    epsilon: float,
    further: tuple[np.ndarray, np.ndarray] | None = None,
    confidence: float = 0.95,
    folds: int = 5,
    seed: int = 0,
) -> Estimate:
    """Everything that can be said of the robust accuracy.

    Args:
        scores: (n,) of the measured inputs.
        samples: their brackets.
        further: scores (N,) of other inputs of the same distribution, and whether they are classified correctly.
        folds: parts of the measured inputs in cross-fitting.
        seed: of the parts.

    Raises:
        InputError: every measured input is misclassified.
    """
    require_correct(samples)
    certain = samples.correct & samples.robust(epsilon)
    possible = samples.correct & ~samples.brittle(epsilon)
    delta = 1 - confidence
    predicted = middle = None
    if further is not None and len(further[0]) and len(samples) >= 2 * folds:
        low = prediction_powered(scores, samples.correct, certain, further, folds, seed)
        high = prediction_powered(scores, samples.correct, possible, further, folds, seed)
        z = NormalDist().inv_cdf(1 - delta / 2)
        predicted = Interval(max(0.0, low[0] - z * low[1]), min(1.0, high[0] + z * high[1]))
        middle = Interval(low[0], high[0])
    return Estimate(
        len(samples),
        0 if further is None else len(further[0]),
        float(certain.mean()),
        float(possible.mean()),
        robust_accuracy(samples, epsilon, delta),
        predicted,
        middle,
        _by_rate(scores, samples, epsilon, further),
        confidence,
    )


def prediction_powered(
    scores: np.ndarray,
    correct: np.ndarray,
    outcome: np.ndarray,
    further: tuple[np.ndarray, np.ndarray],
    folds: int,
    seed: int,
) -> tuple[float, float]:
    """Mean of an outcome and its standard error: ``mean_N f + mean_n (Y - f)``, f fitted on the other folds.

    Angelopoulos et al. 2023 (Science), cross-fitted as by Zrnic and Candes 2024 (PNAS).

    Args:
        scores, correct, outcome: (n,) of the measured inputs; f is zero where an input is misclassified.
        further: scores and correctness (N,) of the others.
    """
    n = len(scores)
    part = np.random.default_rng(seed).permutation(n) % folds
    rest, elsewhere = np.zeros(n), np.zeros(len(further[0]))
    for fold in range(folds):
        inside = part == fold
        known = ~inside & correct
        f = _fitted(scores[known], outcome[known])
        rest[inside] = outcome[inside] - f(scores[inside]) * correct[inside]
        elsewhere += f(further[0]) * further[1] / folds
    error = np.sqrt(elsewhere.var(ddof=1) / len(elsewhere) + rest.var(ddof=1) / n) if len(elsewhere) > 1 else 1.0
    return float(elsewhere.mean() + rest.mean()), float(error)


def _fitted(scores: np.ndarray, outcome: np.ndarray):
    """Probability of an outcome by the score: logistic regression; a constant where all outcomes are alike."""
    if len(outcome) == 0 or outcome.all() or not outcome.any():
        value = float(outcome.mean()) if len(outcome) else 0.0
        return lambda s: np.full(len(s), value)
    from sklearn.linear_model import LogisticRegression

    center, spread = float(np.median(scores)), float(scores.std()) or 1.0
    model = LogisticRegression().fit(((scores - center) / spread)[:, None], outcome)
    return lambda s: model.predict_proba(((s - center) / spread)[:, None])[:, 1] if len(s) else np.zeros(0)


def _by_rate(
    scores: np.ndarray, samples: Samples, epsilon: float, further: tuple[np.ndarray, np.ndarray] | None
) -> float | None:
    """The paper's estimate: its threshold is where 95% of the subset's attacked inputs are found."""
    brittle = np.sort(scores[samples.brittle(epsilon)])
    if len(brittle) == 0:
        return None
    value = brittle[int(np.ceil(_PAPERS_RATE * len(brittle))) - 1]
    passed = samples.correct & (scores > value)
    if further is not None:
        passed = np.concatenate([passed, further[1] & (further[0] > value)])
    return float(passed.mean())
