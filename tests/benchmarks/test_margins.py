"""The exact margins that brackets are measured against, and the count of violations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import verifier
from benchmarks.exact_margins import Layers, exact_margin
from benchmarks.margins import violations
from tests.analysis.networks import dense
from tests.analysis.test_radius import linear_margin
from verifier.operators import evaluate, place


@pytest.mark.parametrize("name", ["digits_mlp", "digits_robust"])
def test_layers_compute_the_network(root: Path, name: str):
    graph = verifier.load(root / "models" / f"{name}.onnx")
    layers = Layers.of(graph)
    assert layers is not None
    x = np.random.default_rng(0).uniform(size=(1, 1, 1, 8, 8))
    assert layers.logits(x) == pytest.approx(evaluate(place(graph), torch.from_numpy(x)).flatten().numpy())


@pytest.mark.parametrize("name", ["digits_resnet", "digits_smooth"])
def test_what_has_no_such_layers(root: Path, name: str):
    assert Layers.of(verifier.load(root / "models" / f"{name}.onnx")) is None


@pytest.mark.parametrize("norm", ["inf", "1"])
def test_exact_margins_of_linear_classifiers(tmp_path: Path, norm: str):
    random = np.random.default_rng(2)
    weight, bias = random.normal(size=(3, 4)).astype(np.float32), random.normal(size=3).astype(np.float32)
    layers = Layers.of(verifier.load(dense(tmp_path / "net.onnx", [(weight, bias)])))
    assert layers is not None
    x = random.uniform(size=4)
    margin = linear_margin(weight.astype(float), bias.astype(float), x, norm)
    assert exact_margin(layers, x, norm, 2 * margin, clip=(-100, 100)) == pytest.approx(margin, rel=1e-6)
    assert exact_margin(layers, x, norm, margin / 2, clip=(-100, 100)) == float("inf")


@pytest.mark.parametrize(
    ("lower", "upper", "exact", "inside", "count"),
    [
        (0.1, 0.2, 0.15, 0, 0),
        (0.1, 0.2, 0.09, 0, 1),
        (0.1, 0.2, 0.21, 0, 1),
        (0.1, 0.2, None, 0, 0),
        (0.1, 0.2, 0.15, 3, 1),
    ],
)
def test_violations(lower: float, upper: float, exact: float | None, inside: int, count: int):
    row = {"network": "n", "index": 0, "norm": "inf", "lower": lower, "upper": upper, "exact": exact, "inside": inside}
    assert violations([row]) == count


def test_violations_of_the_euclidean_norm():
    exact = {"network": "n", "index": 0, "inside": 0, "lower": 0.0, "upper": 9.0}
    others = [exact | {"norm": "inf", "exact": 0.1}, exact | {"norm": "1", "exact": 0.5}]
    for lower, upper, count in ((0.2, 0.3, 0), (0.6, 0.7, 1), (0.01, 0.05, 1)):
        row = exact | {"norm": "2", "exact": None, "lower": lower, "upper": upper}
        assert violations([*others, row]) == count
