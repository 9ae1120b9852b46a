"""Kendall's tau within its certified interval, and proofs of inconsistency."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from verifier.analysis.margins.consistency import by_class, inconsistent_pairs, tau
from verifier.analysis.margins.samples import Samples


def samples(lower: np.ndarray, upper: np.ndarray) -> Samples:
    n = len(lower)
    return Samples(lower, upper, np.ones(n, dtype=bool), np.zeros(n, dtype=np.int64))


def plain_tau(scores: np.ndarray, margins: np.ndarray) -> float:
    """tau-a, pair by pair."""
    n, net = len(scores), 0.0
    for i in range(n):
        for j in range(i):
            net += np.sign(scores[i] - scores[j]) * np.sign(margins[i] - margins[j])
    return net / (n * (n - 1) / 2)


numbers = st.lists(st.tuples(*[st.integers(0, 12)] * 4), min_size=2, max_size=12)


@given(numbers)
def test_tau_lies_in_its_interval_wherever_the_margins_are(rows: list[tuple[int, int, int, int]]):
    score, a, b, place = np.array(rows, dtype=np.float64).T
    lower, upper = np.minimum(a, b), np.maximum(a, b)
    margins = lower + place / 12 * (upper - lower)
    found = tau(score, samples(lower, upper))
    assert found.low - 1e-12 <= plain_tau(score, margins) <= found.high + 1e-12
    assert found.concordant + found.discordant + found.undecided <= found.pairs == len(rows) * (len(rows) - 1) // 2


@given(numbers)
def test_listed_pairs_are_proofs(rows: list[tuple[int, int, int, int]]):
    score, a, b, _ = np.array(rows, dtype=np.float64).T
    mine = samples(np.minimum(a, b), np.maximum(a, b))
    pairs = inconsistent_pairs(score, mine, 3)
    assert bool(pairs) == (tau(score, mine).discordant > 0)
    places = [place for pair in pairs for place in (pair.first, pair.second)]
    assert len(set(places)) == len(places)
    for pair in pairs:
        assert score[pair.first] > score[pair.second] and mine.upper[pair.first] < mine.lower[pair.second]


def test_a_consistent_score_has_tau_one():
    margins = np.random.default_rng(0).uniform(size=200)
    found = tau(np.exp(3 * margins), samples(margins, margins))
    assert (found.low, found.high, found.discordant, found.attacked) == (1.0, 1.0, 0, 1.0)
    assert tau(-margins, samples(margins, margins)).high == -1.0


def test_wide_brackets_prove_nothing():
    scores = np.arange(5.0)
    found = tau(scores, samples(np.zeros(5), np.full(5, np.inf)))
    assert (found.low, found.high, found.undecided, found.attacked) == (-1.0, 1.0, 10, None)


def test_by_class():
    margins = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    mine = Samples(margins, margins, np.ones(5, dtype=bool), np.array([0, 0, 1, 1, 2]))
    found = by_class(np.array([1.0, 2.0, 2.0, 1.0, 0.0]), mine)
    assert {label: one.low for label, one in found.items()} == {0: 1.0, 1: -1.0}
