"""Quantities of logits against their definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import verifier
from tests.analysis.networks import dense
from verifier.analysis.brackets import Metric
from verifier.analysis.margins.logits import logit_statistics, peaks
from verifier.analysis.margins.scores import ScoreOptions


def test_quantities(tmp_path: Path):
    weight = np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, -1.0]])
    graph = verifier.load(dense(tmp_path / "net.onnx", [(weight, np.zeros(3))]))
    inputs = [np.array([1.0, 0.25]), np.array([0.5, 1.0])]
    found = logit_statistics("net", graph, inputs, [0, 0], ScoreOptions(Metric(std=0.5), batch=1))
    assert found.predictions.tolist() == [0, 1]
    assert found.maximum == pytest.approx([2.0, 4.0])  # the network sees twice the input
    assert found.gap == pytest.approx([1.0, 3.0])
    assert found.loss == pytest.approx([-1.0, 3.0])
    assert found.gradient == pytest.approx([6.0, 6.0])  # |2 (-1, 2)|_1
    logits = np.array([[2.0, 1.0, -2.5], [1.0, 4.0, -3.0]])
    assert found.confidence == pytest.approx(np.exp(logits).max(1) / np.exp(logits).sum(1))
    assert found.means()["accuracy"] == 0.5 and set(found.by_class()) == {"0"}
    assert found.as_object(found)["confidence_difference"]["mean"] == 0


@pytest.mark.parametrize("centres", [(0.0,), (-6.0, 0.0), (-9.0, -3.0, 3.0)])
def test_peaks_of_mixtures(centres: tuple[float, ...]):
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(centre, 1.0, size=2000) for centre in centres])
    assert peaks(values) == pytest.approx(centres, abs=0.3)


def test_peaks_of_next_to_nothing():
    assert peaks(np.array([2.5])) == [2.5] and peaks(np.full(7, -1.0)) == [-1.0]
    assert len(peaks(np.array([0.0, 1.0]))) in (1, 2)
