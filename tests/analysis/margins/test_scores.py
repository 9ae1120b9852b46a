"""Scores against their definitions, and the learned one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import verifier
from tests.analysis.networks import dense, random_dense
from tests.analysis.test_radius import DUAL, NORMS, linear_margin
from verifier.analysis.brackets import Metric
from verifier.analysis.margins.pseudo import PseudoOptions, learn
from verifier.analysis.margins.scores import SCORES, Scored, ScoreOptions, observed, score
from verifier.errors import InputError


@pytest.fixture
def inputs() -> list[np.ndarray]:
    return list(np.random.default_rng(0).uniform(size=(20, 5)).astype(np.float32))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["feature-margin", "margin-over-gradient"])
def test_scores_of_a_linear_classifier_are_its_margins(tmp_path: Path, inputs: list, norm: str, name: str):
    random = np.random.default_rng(3)
    weight, bias = random.normal(size=(4, 5)).astype(np.float32), random.normal(size=4).astype(np.float32)
    graph = verifier.load(dense(tmp_path / "net.onnx", [(weight, bias)]))
    found = score(name, graph, inputs, ScoreOptions(Metric(norm)))
    exact = [linear_margin(weight.astype(float), bias.astype(float), x, norm) for x in inputs]
    assert found == pytest.approx(exact, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_the_gradient_is_in_the_units_of_the_data(tmp_path: Path, inputs: list, norm: str):
    random = np.random.default_rng(3)
    weight, bias = random.normal(size=(4, 5)).astype(np.float32), random.normal(size=4).astype(np.float32)
    graph = verifier.load(dense(tmp_path / "net.onnx", [(weight, bias)]))
    found = score("margin-over-gradient", graph, inputs, ScoreOptions(Metric(norm, mean=0.5, std=0.5)))
    exact = [linear_margin(2.0 * weight, bias - weight.sum(1), x, norm) for x in inputs]
    assert found == pytest.approx(exact, rel=1e-4, abs=1e-5)


def test_the_logit_margin_is_the_gap_of_the_two_largest(tmp_path: Path, inputs: list):
    graph = verifier.load(random_dense(tmp_path / "net.onnx", (5, 7, 4), 0))
    scored = Scored.of(graph, ScoreOptions())
    top = scored.outputs(scored.tensor(inputs)).topk(2, dim=1).values
    assert score("logit-margin", graph, inputs, ScoreOptions(batch=7)) == pytest.approx((top[:, 0] - top[:, 1]).numpy())


def test_crowns_margin_is_below_the_logit_margin_and_positive_where_verified(root: Path):
    graph, data = verifier.load(root / "models" / "digits_mlp.onnx"), verifier.load_dataset("digits")
    inputs, options = list(data.x[:6]), ScoreOptions(epsilon=0.04)
    crown, plain = (score(name, graph, inputs, options) for name in ("crown-margin", "logit-margin"))
    assert (crown < plain).all()
    for x, margin, found in zip(
        inputs, crown, verifier.radii(graph, inputs, methods=("crown",), complete=None), strict=True
    ):
        assert margin <= 0 or found.lower >= 0.04 - 1e-3
        assert x is not None


@pytest.mark.parametrize("on", ["features", "logits"])
@pytest.mark.parametrize("target", ["sqrt", "max"])
def test_the_pseudo_margin_learns(tmp_path: Path, on: str, target: str):
    graph = verifier.load(random_dense(tmp_path / "net.onnx", (5, 8, 3), 1))
    points = list(np.random.default_rng(1).uniform(size=(300, 5)).astype(np.float32))
    distances = score("logit-margin", graph, points, ScoreOptions()) / 10
    features = observed(Scored.of(graph, ScoreOptions()), points, on)
    options = PseudoOptions(hidden=(32,), epochs=80, rate=5e-3, on=on, target=target)
    learned = learn(features, distances, options)
    found = score("pseudo-margin", graph, points, ScoreOptions(pseudo=learned))
    assert np.corrcoef(np.argsort(np.argsort(found)), np.argsort(np.argsort(distances)))[0, 1] > 0.8
    again = learn(features, distances, options)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(learned.layers, again.layers, strict=True))


def test_what_cannot_be_scored(tmp_path: Path, inputs: list):
    graph = verifier.load(random_dense(tmp_path / "net.onnx", (5, 7, 4), 0))
    last = graph.nodes[-1]
    relu = replace(last, name="end", op="relu", inputs=(last.name,), constants={"slope": np.zeros(1)})
    rectified = replace(graph, nodes=(*graph.nodes, relu), output="end", shapes={**graph.shapes, "end": (1, 4)})
    for name, network in (("nonsense", graph), ("pseudo-margin", graph), ("crown-margin", graph)):
        with pytest.raises(InputError):
            score(name, network, inputs, ScoreOptions())
    with pytest.raises(InputError, match="dense layer"):
        score("feature-margin", rectified, inputs, ScoreOptions())
    with pytest.raises(InputError, match="to learn from"):
        learn(torch.zeros(5, 2), np.ones(5))
    assert set(SCORES) == {"logit-margin", "margin-over-gradient", "feature-margin", "pseudo-margin", "crown-margin"}
    assert set(DUAL) == set(NORMS)
