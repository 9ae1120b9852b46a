"""Planted counterexamples are what they claim to be, and are never proved away."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import verifier
from benchmarks.planted.__main__ import Outcome, confirm, run, tabulate
from benchmarks.planted.construct import ARCHITECTURES, corners_and_inner, make_bump, plant
from benchmarks.planted.layers import Layer, evaluate, write
from verifier.verdict import Verified

DIGITS = verifier.load_dataset("digits")
DATA = np.asarray(DIGITS.x, np.float64).reshape(-1, 1, 8, 8), np.asarray(DIGITS.y)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_hidden_point_breaks_what_its_surroundings_keep(architecture: str, tmp_path: Path):
    planted = plant(architecture, 3, DATA)
    write(planted.layers, planted.x.shape, tmp_path / "net.onnx")
    confirm(planted, tmp_path / "net.onnx")
    assert planted.violation > 0
    lower, upper = np.clip(planted.x - planted.epsilon, 0, 1), np.clip(planted.x + planted.epsilon, 0, 1)
    assert (lower <= planted.hidden).all() and (planted.hidden <= upper).all()
    points = lower + (upper - lower) * corners_and_inner(np.random.default_rng(11), planted.x.shape)
    assert (evaluate(planted.layers, points).argmax(1) == planted.label).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_file_computes_what_the_arrays_say(architecture: str, tmp_path: Path):
    planted = plant(architecture, 1, DATA)
    write(planted.layers, planted.x.shape, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    point = np.random.default_rng(0).uniform(0, 1, planted.x.shape).astype(np.float32)
    expected = evaluate(planted.layers, point[None].astype(np.float64))[0]
    found = np.asarray(session.run(None, {"x": point[None]})[0])[0]
    assert np.allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32), activation=st.sampled_from(["Relu", "Tanh"]))
def test_a_bump_stands_at_its_point_and_nowhere_near_the_samples(seed: int, activation: str):
    random = np.random.default_rng(seed)
    trunk = (Layer(random.normal(size=(12, 6)), random.normal(size=12), activation),)
    hidden, points = random.uniform(size=6), random.uniform(size=(300, 6))
    bump = make_bump(trunk, random, hidden, points)
    assert bump.peak > 0.9
    assert bump.roof(bump.walls(evaluate(trunk, points))).max() < 0.05


def test_a_seed_says_it_all():
    first, again, other = (plant("cnn", seed, DATA) for seed in (5, 5, 6))
    assert np.array_equal(first.hidden, again.hidden) and not np.array_equal(first.hidden, other.hidden)


def test_a_point_that_breaks_nothing_is_refused(tmp_path: Path):
    planted = plant("few-inputs", 0, DATA)
    write(planted.layers, planted.x.shape, tmp_path / "net.onnx")
    confirm(planted, tmp_path / "net.onnx")
    object.__setattr__(planted, "hidden", planted.x)
    with pytest.raises(ArithmeticError, match="does not confirm"):
        confirm(planted, tmp_path / "net.onnx")


def test_a_false_proof_is_counted_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(verifier, "verify", lambda *_, **__: Verified(1.0, "crown", (), 0.0))
    found = [*run(1, 7, 1.0, "auto", tmp_path), Outcome("cnn-7", "cnn", "found", "attack", 1.0)]
    assert [outcome.word for outcome in found] == ["verified", "found"]
    console = Console(width=150, record=True, file=io.StringIO())
    console.print(tabulate(found))
    text = console.export_text()
    assert "WRONG: mlp-7 verified by crown" in text and "cnn-7" not in text


@pytest.mark.slow
def test_none_is_proved_away(tmp_path: Path):
    found = list(run(12, 100, 2.0, "auto", tmp_path))
    assert "verified" not in {outcome.word for outcome in found}
    assert len(list(tmp_path.glob("*.onnx"))) == 12
