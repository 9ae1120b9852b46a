"""`verifier margins report`: every score against the brackets of the same inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from verifier.analysis.margins.consistency import Inconsistent, Tau, by_class, inconsistent_pairs, tau
from verifier.analysis.margins.detection import Detection, detection
from verifier.analysis.margins.estimate import Estimate, estimate
from verifier.analysis.margins.samples import Samples, require_correct


@dataclass(frozen=True, eq=False)
class ScoreReport:
    """One score.

    Args:
        name: of the score.
        scores: (n,).
        tau: rank correlation with the margins.
        classes: the same by predicted class.
        detection: of brittle inputs; None without a radius.
        detection_by_class: the same by predicted class.
        pairs: the clearest proofs of inconsistency.
        estimate: of the robust accuracy; None without a radius.
    """

    name: str
    scores: np.ndarray
    tau: Tau
    classes: dict[int, Tau]
    detection: Detection | None
    detection_by_class: dict[int, Detection]
    pairs: list[Inconsistent]
    estimate: Estimate | None

    def as_object(self, indices: Sequence[int]) -> dict[str, Any]:
        """As JSON has it; pairs by their indices in the data set."""
        pairs = [asdict(pair) | {"first": indices[pair.first], "second": indices[pair.second]} for pair in self.pairs]
        return {
            "score": self.name,
            "scores": self.scores.tolist(),
            "tau": asdict(self.tau),
            "tau_by_class": {str(label): asdict(one) for label, one in self.classes.items()},
            "detection": None if self.detection is None else asdict(self.detection),
            "detection_by_class": {str(label): asdict(one) for label, one in self.detection_by_class.items()},
            "inconsistent_pairs": _finite(pairs),
            "estimate": None if self.estimate is None else asdict(self.estimate),
        }


def report(
    name: str,
    scores: np.ndarray,
    samples: Samples,
    epsilon: float | None,
    further: tuple[np.ndarray, np.ndarray] | None = None,
    pairs: int = 5,
    confidence: float = 0.95,
    seed: int = 0,
) -> ScoreReport:
    """Measure one score.

    Args:
        scores: (n,) of the samples.
        epsilon: radius of detection and robust accuracy; None to leave them out.
        further: scores and correctness of inputs whose margins are not measured, for the robust accuracy.
        pairs: how many proofs of inconsistency to list.

    Raises:
        InputError: every input is misclassified.
    """
    require_correct(samples)
    detected: dict[int, Detection] = {}
    if epsilon is not None:
        for label in np.unique(samples.prediction).tolist():
            mine = samples.prediction == label
            detected[label] = detection(scores[mine], samples.select(mine), epsilon)
    return ScoreReport(
        name,
        scores,
        tau(scores, samples),
        by_class(scores, samples),
        None if epsilon is None else detection(scores, samples, epsilon),
        detected,
        inconsistent_pairs(scores, samples, pairs),
        None if epsilon is None else estimate(scores, samples, epsilon, further, confidence, seed=seed),
    )


def _finite(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [pair | {"lower": None if np.isinf(pair["lower"]) else pair["lower"]} for pair in pairs]
