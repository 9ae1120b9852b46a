"""The exported detector in onnxruntime says what torch says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import verifier
from tests.analysis.networks import random_dense
from verifier.analysis.brackets import Metric
from verifier.analysis.margins.artifact import Detector, read_detector
from verifier.analysis.margins.detector import Threshold
from verifier.analysis.margins.export import exported
from verifier.analysis.margins.pseudo import PseudoOptions, learn
from verifier.analysis.margins.scores import Scored, ScoreOptions, observed, score
from verifier.errors import InputError
from verifier.graph.ir import Graph

COUNT = 10_000


def detector(graph: Graph, name: str, inputs: list[np.ndarray], norm: str = "inf") -> Detector:
    """One that flags a quarter of the inputs."""
    pseudo, metric = None, Metric(norm)
    if name == "pseudo-margin":
        features = observed(Scored.of(graph, ScoreOptions(metric)), inputs[:100], "features")
        distances = np.random.default_rng(0).uniform(size=100)
        pseudo = learn(features, distances, PseudoOptions(hidden=(16, 16), epochs=3))
    scores = np.sort(score(name, graph, inputs[:1000], ScoreOptions(metric, pseudo=pseudo)))
    value = float(np.float32((scores[250] + scores[251]) / 2))
    assert graph.file is not None
    threshold = Threshold(value, "conformal", 0.05, None, 0.03, 200, 150, 5)
    return Detector(name, threshold, "net.onnx", graph.file.sha256, metric, pseudo)


@pytest.mark.parametrize("name", ["logit-margin", "feature-margin", "pseudo-margin"])
def test_the_same_flags_in_onnxruntime(root: Path, tmp_path: Path, name: str):
    graph = verifier.load(root / "models" / "digits_mlp.onnx")
    random = np.random.default_rng(0)
    data = verifier.load_dataset("digits")
    chosen = data.x[random.integers(len(data), size=COUNT)] + 0.3 * random.normal(size=(COUNT, 1, 8, 8))
    inputs = list(np.clip(chosen, 0, 1).astype(np.float32))
    made = detector(graph, name, inputs, "2")
    session = onnxruntime.InferenceSession(exported(graph, made).SerializeToString())
    assert [output.name for output in session.get_outputs()] == ["logits", "score", "flag"]
    logits, scores, flags = (np.asarray(value) for value in session.run(None, {"x": np.stack(inputs)}))
    own = made.scores(graph, inputs)
    assert np.array_equal(flags, made.flags(own)) and 0.1 < flags.mean() < 0.5
    assert scores == pytest.approx(own, rel=1e-3, abs=1e-4)
    assert logits.shape == (COUNT, 10)
    (again,) = onnxruntime.InferenceSession(root / "models" / "digits_mlp.onnx").run(None, {"x": np.stack(inputs)})
    assert np.array_equal(logits, np.asarray(again))


def test_a_detector_that_flags_nothing(tmp_path: Path):
    graph = verifier.load(random_dense(tmp_path / "net.onnx", (3, 4, 3), 0))
    inputs = list(np.random.default_rng(0).uniform(size=(1000, 3)).astype(np.float32))
    made = detector(graph, "logit-margin", inputs)
    made = replace(made, threshold=replace(made.threshold, value=-np.inf))
    session = onnxruntime.InferenceSession(exported(graph, made).SerializeToString())
    assert not np.asarray(session.run(["flag"], {"x": np.stack(inputs)})[0]).any()


def test_the_file_of_a_detector(tmp_path: Path):
    graph = verifier.load(random_dense(tmp_path / "net.onnx", (3, 4, 3), 0))
    inputs = list(np.random.default_rng(0).uniform(size=(1000, 3)).astype(np.float32))
    path = tmp_path / "detector.json"
    for name in ("logit-margin", "pseudo-margin"):
        made = detector(graph, name, inputs)
        path.write_text(made.document())
        again = read_detector(path)
        assert again.threshold == made.threshold and again.metric == made.metric
        assert np.array_equal(again.scores(graph, inputs), made.scores(graph, inputs))


@pytest.mark.parametrize("text", ["", "{}", '{"format": "other"}', "[]"])
def test_files_that_hold_no_detector(tmp_path: Path, text: str):
    path = tmp_path / "detector.json"
    path.write_text(text)
    with pytest.raises(InputError, match="no detector"):
        read_detector(path)


def test_what_cannot_be_exported(tmp_path: Path):
    graph = verifier.load(random_dense(tmp_path / "net.onnx", (3, 4, 3), 0))
    other = verifier.load(random_dense(tmp_path / "other.onnx", (3, 4, 3), 1))
    inputs = list(np.random.default_rng(0).uniform(size=(1000, 3)).astype(np.float32))
    made = detector(graph, "logit-margin", inputs)
    with pytest.raises(InputError, match="SHA-256"):
        exported(other, made)
    with pytest.raises(InputError, match="cannot be written as ONNX"):
        exported(graph, replace(made, score="margin-over-gradient"))
