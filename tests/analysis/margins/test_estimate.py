"""Estimates of the robust accuracy on synthetic data, where it is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from tests.analysis.margins.test_detector import EPSILON, draw
from verifier.analysis.margins.estimate import estimate, robust_accuracy
from verifier.errors import InputError

TRUTH = (1 - EPSILON) * 0.9  # margins are uniform; nine in ten inputs are classified correctly
REPEATS = 80


def labelled(random: np.random.Generator, n: int):
    scores, mine = draw(random, n)
    return scores, replace(mine, correct=random.uniform(size=n) < 0.9)


def test_intervals_cover_the_truth():
    random = np.random.default_rng(0)
    certified = predicted = 0
    widths = []
    for _ in range(REPEATS):
        scores, mine = labelled(random, 100)
        further, others = labelled(random, 1000)
        found = estimate(scores, mine, EPSILON, (further, others.correct), confidence=0.9)
        assert found.predicted is not None and found.middle is not None
        certified += found.interval.low <= TRUTH <= found.interval.high
        predicted += found.predicted.low <= TRUTH <= found.predicted.high
        widths.append((found.middle.low, found.middle.high))
        assert found.certified <= found.attacked
    assert min(certified, predicted) >= binom.ppf(0.001, REPEATS, 0.9)
    low, high = np.mean(widths, axis=0)
    assert low <= TRUTH <= high


def test_predictions_narrow_the_interval():
    random = np.random.default_rng(1)
    margins = random.uniform(size=3100)
    exact = replace(draw(random, 3100)[1], lower=margins, upper=margins)
    found = estimate(margins[:100], exact.select(np.arange(100)), EPSILON, (margins[100:], exact.correct[100:]))
    assert found.predicted is not None
    assert found.predicted.high - found.predicted.low < 0.7 * (found.interval.high - found.interval.low)


def test_without_further_inputs():
    scores, mine = labelled(np.random.default_rng(2), 50)
    found = estimate(scores, mine, EPSILON)
    assert found.predicted is None and found.large == 0 and found.paper is not None
    assert robust_accuracy(mine, EPSILON, 0.05) == found.interval or found.confidence != 0.95


def test_the_papers_rule_needs_brittle_inputs():
    scores, mine = labelled(np.random.default_rng(2), 50)
    assert estimate(scores, mine, 1e-9).paper is None


def test_all_inputs_misclassified():
    scores, mine = labelled(np.random.default_rng(2), 20)
    with pytest.raises(InputError, match="all 20 inputs are misclassified"):
        estimate(scores, replace(mine, correct=np.zeros(20, dtype=bool)), EPSILON)
