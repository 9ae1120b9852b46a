"""Detectors keep what they promise, on synthetic data whose law is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from tests.analysis.margins.test_consistency import samples
from verifier.analysis.margins.detector import RULES, Threshold, calibrate, clopper_pearson, least_size
from verifier.analysis.margins.samples import Samples
from verifier.errors import InputError

EPSILON, LEVEL, DELTA, SPLITS = 0.5, 0.1, 0.1, 1000


def draw(random: np.random.Generator, n: int) -> tuple[np.ndarray, Samples]:
    """Scores that go with margins as far as noise allows, and brackets of some width."""
    margins = random.uniform(size=n)
    scores = margins + 0.15 * random.normal(size=n)
    return scores, samples(margins * random.uniform(0.8, 1, size=n), margins * random.uniform(1, 1.3, size=n))


@pytest.fixture(scope="module")
def population() -> tuple[np.ndarray, np.ndarray]:
    """Scores and whether an input is risky, of enough inputs to stand for the law."""
    scores, mine = draw(np.random.default_rng(99), 100_000)
    return scores, ~mine.robust(EPSILON)


def share(population: tuple[np.ndarray, np.ndarray], threshold: Threshold) -> tuple[float, float]:
    """P(passed and risky), P(risky | passed)."""
    scores, risky = population
    passed = scores > threshold.value
    return float((passed & risky).mean()), float(risky[passed].mean()) if passed.any() else 0.0


def test_conformal_risk_control_keeps_its_level(population: tuple):
    random = np.random.default_rng(0)
    risks = []
    for _ in range(SPLITS):
        scores, mine = draw(random, 60)
        risks.append(share(population, calibrate(scores, mine, EPSILON, LEVEL))[0])
    error = np.std(risks) / np.sqrt(SPLITS)
    assert np.mean(risks) <= LEVEL + 3 * error
    assert np.mean(risks) >= LEVEL - 2 / 61 - 3 * error  # and does not flag more than it has to


def test_selective_prediction_breaks_its_level_in_no_more_splits_than_it_says(population: tuple):
    random = np.random.default_rng(1)
    broken = used = 0
    for split in range(SPLITS):
        scores, mine = draw(random, 400)
        try:
            threshold = calibrate(scores, mine, EPSILON, LEVEL, "selective", DELTA, seed=split)
        except InputError:  # flags everything
            continue
        used += 1
        broken += share(population, threshold)[1] > LEVEL
    assert used > SPLITS / 2
    assert broken <= binom.ppf(0.999, SPLITS, DELTA)


@pytest.mark.parametrize("rule", RULES)
def test_a_consistent_score_flags_what_it_has_to(rule):
    margins = np.random.default_rng(3).uniform(size=2000)
    found = calibrate(margins**3, samples(margins, margins), EPSILON, 0.05, rule, 0.05)
    flagged = margins**3 <= found.value
    assert ((margins < EPSILON) & ~flagged).mean() <= 0.05 and (margins[flagged] >= EPSILON).mean() <= 0.01


def test_nothing_has_to_be_flagged_where_all_is_robust():
    found = calibrate(np.arange(50.0), samples(np.ones(50), np.ones(50)), EPSILON, 0.1)
    assert found.value == -np.inf and found.passed == 50 and found.risky == 0


def test_thresholds_are_float32_between_scores():
    scores, mine = draw(np.random.default_rng(5), 80)
    value = calibrate(scores, mine, EPSILON, LEVEL).value
    assert float(np.float32(value)) == value and not (scores == value).any()


def test_too_few_inputs_say_how_many_would_do():
    for rule in RULES:
        need = least_size(rule, 0.05, DELTA)
        margins = np.ones(need)
        calibrate(np.arange(float(need)), samples(margins, margins), EPSILON, 0.05, rule, DELTA)
        few = samples(margins[1:], margins[1:])
        with pytest.raises(InputError, match=f"at least {need}"):
            calibrate(np.arange(float(need - 1)), few, EPSILON, 0.05, rule, DELTA)
        with pytest.raises(InputError, match="the set is empty"):
            calibrate(np.zeros(0), samples(np.zeros(0), np.zeros(0)), EPSILON, 0.05, rule, DELTA)


def test_levels_out_of_reach_say_why():
    random = np.random.default_rng(0)
    scores, risky = random.uniform(size=300), random.uniform(size=300)
    with pytest.raises(InputError, match="no number of inputs would change that"):
        calibrate(scores, samples(np.where(risky < 0.5, 0.1, 1.0), np.ones(300)), EPSILON, LEVEL, "selective")
    with pytest.raises(InputError, match="about [0-9]+ inputs would do"):
        calibrate(scores, samples(np.where(risky < 0.08, 0.1, 1.0), np.ones(300)), EPSILON, LEVEL, "selective")


@pytest.mark.parametrize(("alpha", "delta", "epsilon"), [(0, 0.1, 0.5), (1, 0.1, 0.5), (0.1, 2, 0.5), (0.1, 0.1, 0)])
def test_numbers_out_of_range(alpha: float, delta: float, epsilon: float):
    with pytest.raises(InputError):
        calibrate(np.arange(50.0), samples(np.ones(50), np.ones(50)), epsilon, alpha, "selective", delta)


def test_clopper_pearson_covers():
    n, p = 30, 0.2
    covered = [clopper_pearson(k, n, 0.05) for k in range(n + 1)]
    weights = binom.pmf(np.arange(n + 1), n, p)
    assert sum(w for w, (low, _) in zip(weights, covered, strict=True) if low <= p) >= 0.95
    assert sum(w for w, (_, high) in zip(weights, covered, strict=True) if high >= p) >= 0.95
    assert covered[0][0] == 0 and covered[n][1] == 1
