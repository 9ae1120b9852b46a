"""Brackets of margins: exact ones lie within them, and witnesses are what they say."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import verifier
from benchmarks.exact_margins import Layers, exact_margin
from tests.analysis.networks import dense, random_dense
from verifier.analysis.brackets import Bracket, Metric
from verifier.analysis.measured import Measured, document, read
from verifier.errors import InputError

DUAL = {"inf": 1, "2": 2, "1": np.inf}
NORMS = tuple(DUAL)


def linear_margin(weight: np.ndarray, bias: np.ndarray, x: np.ndarray, norm: str) -> float:
    """Distance to the nearest hyperplane between the predicted class and another."""
    z = weight @ x + bias
    i = int(z.argmax())
    others = [j for j in range(len(z)) if j != i]
    return min((z[i] - z[j]) / np.linalg.norm(weight[i] - weight[j], ord=DUAL[norm]) for j in others)


@pytest.mark.parametrize("norm", NORMS)
def test_linear_classifiers(tmp_path: Path, norm: str):
    random = np.random.default_rng(7)
    weight = random.normal(size=(4, 6)).astype(np.float32).astype(np.float64)
    bias = random.normal(size=4).astype(np.float32).astype(np.float64)
    graph = verifier.load(dense(tmp_path / "net.onnx", [(weight, bias)]))
    inputs = [random.uniform(size=6).astype(np.float32).astype(np.float64) for _ in range(4)]
    for x, found in zip(inputs, verifier.radii(graph, inputs, norm=norm, clip=None, tolerance=1e-4), strict=True):
        exact = linear_margin(weight, bias, x, norm)
        assert found.lower <= exact * (1 + 1e-9) and exact <= found.upper * (
            1 + 1e-6
        )  # float32 decides at the boundary
        assert found.exact and found.upper - found.lower <= 1e-4
        assert found.label == int((weight @ x + bias).argmax())


@pytest.mark.parametrize("norm", ["inf", "1"])
def test_exact_margins_of_small_networks(tmp_path: Path, norm: str):
    known = 0
    for seed in range(3):
        graph = verifier.load(random_dense(tmp_path / f"{seed}.onnx", (4, 8, 8, 3), seed))
        layers = Layers.of(graph)
        assert layers is not None
        inputs = [np.random.default_rng((seed, i)).uniform(size=4).astype(np.float32) for i in range(3)]
        for x, found in zip(inputs, verifier.radii(graph, inputs, norm=norm, timeout=1), strict=True):
            exact = exact_margin(layers, x, norm, min(found.upper, 4.0))
            assert exact is not None
            if math.isinf(exact):
                assert math.isinf(found.upper)
            else:
                assert found.lower <= exact + 1e-6 and exact <= found.upper + 1e-6
                known += 1
    assert known > 0


@pytest.mark.parametrize("norm", NORMS)
def test_the_witness_is_another_class_within_the_upper_end(root: Path, norm: str):
    import onnxruntime

    path = root / "models" / "digits_mlp.onnx"
    data, session = verifier.load_dataset("digits"), onnxruntime.InferenceSession(str(path))
    inputs = [data.x[i] for i in range(3)]
    for x, found in zip(inputs, verifier.radii(verifier.load(path), inputs, norm=norm, complete=None), strict=True):
        assert found.witness is not None and 0 < found.lower <= found.upper
        point = found.witness.input
        move = (point - np.asarray(x, dtype=np.float64)).reshape(-1)
        assert np.linalg.norm(move, ord=Metric(norm).order) <= found.upper
        assert 0 <= point.min() and point.max() <= 1
        (output,) = session.run(None, {"x": point.astype(np.float32).reshape(1, 1, 8, 8)})
        scores = np.asarray(output).reshape(-1)
        assert max(np.delete(scores, found.label)) >= scores[found.label]


def test_complete_verification_closes_what_bounds_leave_open(root: Path):
    graph, data = verifier.load(root / "models" / "digits_mlp.onnx"), verifier.load_dataset("digits")
    loose = verifier.radius(graph, data.x[0], complete=None, methods=("crown",))
    tight = verifier.radius(graph, data.x[0], methods=("crown",))
    assert not loose.exact and loose.method == "crown"
    assert tight.lower > loose.lower and tight.upper <= loose.upper
    assert tight.status(tight.lower) == "robust" and tight.status(tight.upper) == "brittle"
    assert loose.status((loose.lower + loose.upper) / 2) == "unknown"


def test_every_class_has_a_bracket(tmp_path: Path):
    graph = verifier.load(random_dense(tmp_path / "net.onnx", (4, 8, 4), 3))
    x = np.full(4, 0.5)
    found = verifier.radius(graph, x, per_class=True)
    assert {found.label, *(one.target for one in found.classes)} == {0, 1, 2, 3} and len(found.classes) == 3
    assert found.lower == min(one.lower for one in found.classes)
    assert found.upper == min(one.upper for one in found.classes)
    whole = verifier.radius(graph, x)
    assert max(found.lower, whole.lower) <= min(found.upper, whole.upper)


def test_distances_are_in_the_units_of_the_data(tmp_path: Path):
    random = np.random.default_rng(1)
    weight, bias = random.normal(size=(3, 4)).astype(np.float32), np.zeros(3, dtype=np.float32)
    plain = verifier.load(dense(tmp_path / "plain.onnx", [(weight, bias)]))
    scaled = verifier.load(
        dense(tmp_path / "scaled.onnx", [(weight * 0.25, bias + weight @ np.full(4, 0.5, np.float32))])
    )
    x = random.uniform(size=4).astype(np.float32)
    for norm in NORMS:
        a = verifier.radius(plain, x, norm=norm)
        b = verifier.radius(scaled, x, norm=norm, mean=0.5, std=0.25)
        assert max(a.lower, b.lower) <= min(a.upper, b.upper) * (1 + 1e-6)
        assert a.exact and b.exact


def test_misclassified_inputs_are_told(root: Path):
    graph, data = verifier.load(root / "models" / "digits_mlp.onnx"), verifier.load_dataset("digits")
    found = verifier.radii(graph, [data.x[3], data.x[4]], [int(data.y[3]), int(data.y[4])], complete=None)
    assert [one.correct for one in found] == [True, False]
    assert found[1].label != data.y[4] and found[1].lower > 0


def test_a_class_that_never_changes(tmp_path: Path):
    graph = verifier.load(dense(tmp_path / "net.onnx", [(np.zeros((2, 3)), np.array([1.0, 0.0]))]))
    found = verifier.radius(graph, np.full(3, 0.5))
    assert found.exact and math.isinf(found.lower) and math.isinf(found.upper) and found.witness is None
    unlimited = verifier.radius(graph, np.full(3, 0.5), clip=None, timeout=1)
    assert unlimited.lower > 1 and math.isinf(unlimited.upper)


def test_without_a_file_nothing_is_replayed(root: Path):
    graph = replace(verifier.load(root / "models" / "digits_mlp.onnx"), file=None)
    found = verifier.radius(graph, verifier.load_dataset("digits").x[0], complete=None, tolerance=0.01)
    assert found.lower > 0.03 and found.witness is None and math.isinf(found.upper)


def test_no_time_gives_what_there_is(root: Path):
    graph, data = verifier.load(root / "models" / "digits_mlp.onnx"), verifier.load_dataset("digits")
    found = verifier.radius(graph, data.x[0], timeout=1e-6)
    assert found.lower == 0 and not found.exact


@pytest.mark.parametrize("options", [{"tolerance": 0}, {"tolerance": math.nan}, {"norm": "3"}])
def test_bad_options(root: Path, options: dict):
    with pytest.raises(InputError):
        verifier.radius(verifier.load(root / "models" / "digits_mlp.onnx"), np.zeros((1, 8, 8)), **options)


SPEC = {"dataset": "digits", "norm": "inf", "clip": True, "mean": None, "std": None, "index": 3, "label": 5}


def measured(index: int, lower: float, upper: float, sha256: str = "a", **spec) -> Measured:
    return Measured(
        "n.onnx", sha256, {**SPEC, "index": index, **spec}, Bracket(lower, upper, None, False, 5, correct=True)
    )


def test_files_of_brackets(tmp_path: Path):
    one, other = tmp_path / "1.json", tmp_path / "2.json"
    one.write_text(document([measured(1, 0.1, 0.2), measured(2, math.inf, math.inf)], {}))
    other.write_text(document([measured(1, 0.15, 0.2), measured(4, 0.0, math.inf)], {}))
    found = read([one, other], "a")
    assert [(m.index, m.bracket.lower, m.bracket.upper) for m in found] == [
        *((1, 0.15, 0.2), (2, math.inf, math.inf), (4, 0.0, math.inf))
    ]
    with pytest.raises(InputError, match="SHA-256 a"):
        read([one], "b")
    other.write_text(document([measured(1, 0.15, 0.2, norm="2")], {}))
    with pytest.raises(InputError, match="differs from the other brackets in norm"):
        read([one, other])


@pytest.mark.parametrize("text", ["", "{}", '{"results": [{}]}', '{"results": []}', "[1]"])
def test_files_that_hold_no_brackets(tmp_path: Path, text: str):
    path = tmp_path / "b.json"
    path.write_text(text)
    with pytest.raises(InputError):
        read([path])
