"""Measures of detection: the band holds their values for all labels of the unknown inputs, and is attained."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.analysis.margins.test_consistency import samples
from verifier.analysis.margins.detection import aupr, auroc, detection, extremes, fpr95

EPSILON = 0.5


@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from("bru")), min_size=2, max_size=8))
def test_the_band_is_that_of_all_labels(rows: list[tuple[int, str]]):
    scores = np.array([score for score, _ in rows], dtype=np.float64)
    kinds = np.array([kind for _, kind in rows])
    lower, upper = np.where(kinds == "r", 0.6, 0.1), np.where(kinds == "b", 0.4, 0.9)
    found = detection(scores, samples(lower, upper), EPSILON)
    assert (found.brittle, found.robust, found.unknown) == tuple(int((kinds == kind).sum()) for kind in "bru")
    unknown = np.flatnonzero(kinds == "u")
    for measure, band in ((auroc, found.auroc), (aupr, found.aupr), (fpr95, found.fpr95)):
        values = []
        for choice in product((False, True), repeat=len(unknown)):
            labels = kinds == "b"
            labels[unknown] = choice
            if 0 < labels.sum() < len(labels):
                values.append(measure(labels, scores))
        if band is None:
            assert not values
        else:
            assert (band.low, band.high) == pytest.approx((min(values), max(values)), abs=1e-12)


def test_a_consistent_score_detects_perfectly():
    margins = np.random.default_rng(0).uniform(size=100)
    found = detection(margins**2, samples(margins, margins), EPSILON)
    assert found.unknown == 0 and found.auroc is not None and found.aupr is not None and found.fpr95 is not None
    assert (found.auroc.low, found.aupr.low, found.fpr95.high) == pytest.approx((1.0, 1.0, 0.0))


def test_curves_of_the_extremes():
    margins = np.array([0.1, 0.2, 0.7, 0.9])
    curves = extremes(margins, samples(np.array([0.1, 0.2, 0.3, 0.9]), np.array([0.1, 0.2, 0.8, 0.9])), EPSILON)
    assert curves is not None
    assert [(false[0], true[-1]) for false, true in curves] == [(0.0, 1.0), (0.0, 1.0)]
    assert extremes(margins, samples(margins + 1, margins + 1), EPSILON) is None
