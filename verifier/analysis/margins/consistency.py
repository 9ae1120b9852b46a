"""Whether a score orders inputs as their margins do: Kendall's tau, and what disjoint brackets prove of it.

Two margins are in a known order where their brackets are disjoint. If ``C`` of the ``T = n (n - 1) / 2`` pairs are
known to be ordered as their scores are and ``D`` the other way round, ``U`` pairs with different scores remain, and
tau-a lies in ``[(C - D - U) / T, (C - D + U) / T]``, whatever the margins are within their brackets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from verifier.analysis.margins.samples import Samples

#: pairs of one block of a comparison of all with all
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Tau:
    """Rank correlation of a score and the margins.

    Args:
        low, high: certified interval of Kendall's tau-a.
        concordant, discordant: pairs whose order is proved to agree, or to disagree, with the score.
        undecided: pairs with different scores whose margins are in no proved order.
        pairs: all pairs.
        attacked, certified: tau-b (`scipy.stats.kendalltau`) of the score with the upper ends alone, which is what the
            paper reports, and with the lower ends alone; None where it is not defined.
    """

    low: float
    high: float
    concordant: int
    discordant: int
    undecided: int
    pairs: int
    attacked: float | None
    certified: float | None


@dataclass(frozen=True)
class Inconsistent:
    """Two inputs, by their places, that prove a score inconsistent: the first has the larger score and the smaller
    margin.

    Args:
        scores: of both.
        upper: upper end of the first's margin.
        lower: lower end of the second's, which is above it.
    """

    first: int
    second: int
    scores: tuple[float, float]
    upper: float
    lower: float


def tau(scores: np.ndarray, samples: Samples) -> Tau:
    """Rank correlation of scores (n,) and margins, with its certified interval."""
    n = len(samples)
    pairs = n * (n - 1) // 2
    concordant = discordant = 0
    for rows in _blocks(n):
        less = samples.upper[rows, None] < samples.lower[None, :]
        concordant += int((less & (scores[rows, None] < scores[None, :])).sum())
        discordant += int((less & (scores[rows, None] > scores[None, :])).sum())
    counts = np.unique(scores, return_counts=True)[1]
    undecided = pairs - int((counts * (counts - 1) // 2).sum()) - concordant - discordant
    total, net = max(1, pairs), concordant - discordant
    return Tau(
        (net - undecided) / total,
        (net + undecided) / total,
        concordant,
        discordant,
        undecided,
        pairs,
        kendall(scores, samples.upper),
        kendall(scores, samples.lower),
    )


def kendall(a: np.ndarray, b: np.ndarray) -> float | None:
    """tau-b of two arrays (n,); None where one of them is constant."""
    from scipy.stats import kendalltau

    if len(a) < 2 or np.ptp(a) == 0 or len(np.unique(b)) < 2:
        return None
    found: Any = kendalltau(a, b)
    return float(found.statistic)


def inconsistent_pairs(scores: np.ndarray, samples: Samples, most: int) -> list[Inconsistent]:
    """The clearest proofs that a score is not margin-consistent: by the product of both gaps, no input twice.

    Args:
        most: how many.
    """
    n = len(samples)
    found: list[tuple[float, int, int]] = []
    spread = float(np.ptp(scores)) or 1.0
    for rows in _blocks(n):
        gap = np.minimum(samples.lower, np.finfo(float).max)[None, :] - samples.upper[rows, None]
        wrong = (gap > 0) & (scores[rows, None] > scores[None, :])
        i, j = np.nonzero(wrong)
        weight = np.minimum(gap[i, j], 1e300) * (scores[rows][i] - scores[j]) / spread
        best = np.argsort(-weight, kind="stable")[: most * n]  # an input is in fewer than n pairs
        found += [(float(weight[k]), int(rows[i[k]]), int(j[k])) for k in best]
    found.sort(key=lambda one: (-one[0], one[1], one[2]))
    made: list[Inconsistent] = []
    used: set[int] = set()
    for _, i, j in found:
        if len(made) < most and not used & {i, j}:
            used |= {i, j}
            pair = (float(scores[i]), float(scores[j]))
            made.append(Inconsistent(i, j, pair, float(samples.upper[i]), float(samples.lower[j])))
    return made


def by_class(scores: np.ndarray, samples: Samples) -> dict[int, Tau]:
    """`tau` of the inputs of each predicted class that has at least two."""
    classes, counts = np.unique(samples.prediction, return_counts=True)
    chosen = [int(label) for label, count in zip(classes, counts, strict=True) if count > 1]
    return {
        label: tau(scores[samples.prediction == label], samples.select(samples.prediction == label)) for label in chosen
    }


def _blocks(n: int) -> list[np.ndarray]:
    """Row numbers in blocks, so that a block of all pairs fits the memory."""
    size = max(1, _BLOCK // max(1, n))
    return [np.arange(start, min(n, start + size)) for start in range(0, n, size)]
