from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import onnx
import pytest
import torch
from scipy.optimize import linprog

from verifier.attacks import MinimumNormOptions, minimum_norm
from verifier.attacks.fab import Fab
from verifier.attacks.replay import Replayer
from verifier.errors import InputError
from verifier.graph import load

NORMS = [inf, 2, 1]
QUICK = MinimumNormOptions(Fab(steps=30))


@pytest.fixture
def linear(mlp):
    """A random linear classifier of 6 inputs and 4 classes: graph, weights, biases."""
    generator = np.random.default_rng(1)
    weight, bias = (generator.normal(size=shape).astype(np.float32) for shape in ((4, 6), (4,)))
    return load(mlp([(weight, bias)])), weight.astype(np.float64), bias.astype(np.float64)


def predicted(weight: np.ndarray, bias: np.ndarray, x: np.ndarray) -> np.ndarray:
    return (x @ weight.T + bias).argmax(1)


def exact(weight: np.ndarray, bias: np.ndarray, x: np.ndarray, label: int, norm: float, clip: float) -> float:
    """The margin of a linear classifier: in closed form without limits, else by a linear program."""
    found = []
    for other in set(range(len(bias))) - {label}:
        w, value = weight[label] - weight[other], (weight[label] - weight[other]) @ x + bias[label] - bias[other]
        if clip == inf:
            found.append(value / np.linalg.norm(w, {inf: 1, 2: 2, 1: inf}[norm]))
            continue
        n = len(x)  # variables: the positive and the negative part of the move, and their largest sum
        cost = np.r_[np.zeros(2 * n), 1.0] if norm == inf else np.r_[np.ones(2 * n), 0.0]
        rows = np.c_[np.eye(n), np.eye(n), -np.ones(n)] if norm == inf else np.zeros((0, 2 * n + 1))
        A = np.r_[rows, np.r_[w, -w, 0.0][None]]
        bounds = [*((0, clip - v) for v in x), *((0, v) for v in x), (0, None)]
        solved = linprog(cost, A_ub=A, b_ub=np.r_[np.zeros(len(rows)), -value], bounds=bounds)
        found.append(solved.fun if solved.status == 0 else inf)
    return min(found)


@pytest.mark.parametrize("targets", [0, 3])
@pytest.mark.parametrize("norm", NORMS)
def test_is_the_exact_margin_of_a_linear_classifier(linear, norm, targets):
    graph, weight, bias = linear
    x = np.random.default_rng(2).uniform(size=(8, 6))
    labels = predicted(weight, bias, x)
    options = MinimumNormOptions(Fab(steps=30), targets, torch.float64)
    points, distances = minimum_norm(graph, x[:, None], labels, norm, None, options)
    truth = [exact(weight, bias, *pair, norm, inf) for pair in zip(x, labels, strict=True)]
    assert distances.numpy() == pytest.approx(truth, rel=1e-4)
    assert (distances.numpy() >= np.array(truth) * (1 - 1e-9)).all()
    assert np.linalg.norm(points.numpy()[:, 0] - x, ord=norm, axis=1) == pytest.approx(distances.numpy(), rel=1e-12)


@pytest.mark.parametrize("norm", [inf, 1])
def test_is_the_exact_margin_within_limits(linear, norm):
    graph, weight, bias = linear
    x = np.random.default_rng(3).uniform(size=(8, 6))
    labels = predicted(weight, bias, x)
    options = replace(QUICK, dtype=torch.float64)  # what rounding passes for a success can be nearer than any
    points, distances = minimum_norm(graph, x[:, None], labels, norm, (0, 1), options)
    truth = np.array([exact(weight, bias, *pair, norm, 1.0) for pair in zip(x, labels, strict=True)])
    assert ((points >= 0) & (points <= 1)).all()
    assert (distances.numpy() >= truth * (1 - 1e-9)).all()
    reachable = np.isfinite(truth)
    assert reachable.any() and (distances.numpy()[~reachable] == inf).all()
    assert distances.numpy()[reachable] == pytest.approx(truth[reachable], rel=1e-3)


@pytest.mark.parametrize("norm", NORMS)
def test_points_are_adversarial_in_onnxruntime(random_net, norm):
    x = np.random.default_rng(4).uniform(size=(6, 1, 4))
    replayer = Replayer(random_net)
    labels = [int(replayer.run(point).argmax()) for point in x]
    points, distances = minimum_norm(random_net, x, labels, norm, (-3, 3), QUICK, replayer=replayer)
    found = distances.isfinite()
    assert found.any()
    for point, label in zip(points[found], np.array(labels)[found], strict=True):
        y = replayer.run(point.numpy()).reshape(-1)
        assert np.delete(y, label).max() >= y[label] and np.array_equal(replayer.representable(point.numpy()), point)


def test_a_scale_is_the_unit_of_the_distance(linear):
    """A network on inputs that were divided by 1/2, 1/4, ...: the same margins in the unit before."""
    graph, weight, bias = linear
    x, scale = np.random.default_rng(2).uniform(size=(8, 6)), 2.0 ** np.arange(6)
    labels = predicted(weight, bias, x)
    distances = minimum_norm(graph, x[:, None], labels, inf, None, QUICK, scale).distances
    truth = [exact(weight * scale, bias, x_ / scale, label, inf, inf) for x_, label in zip(x, labels, strict=True)]
    assert distances.numpy() == pytest.approx(truth, rel=1e-4)


def test_misclassified_inputs_are_at_distance_zero(linear):
    graph, weight, bias = linear
    x = np.random.default_rng(2).uniform(size=(3, 6)).astype(np.float32)
    labels = (predicted(weight, bias, x) + 1) % 4
    points, distances = minimum_norm(graph, x[:, None], labels, 2, None, QUICK)
    assert (distances == 0).all() and np.array_equal(points.numpy()[:, 0], x)


def test_no_adversarial_point_is_an_infinite_distance(mlp):
    graph = load(mlp([(np.zeros((2, 3)), np.array([1.0, 0.0]))]))
    points, distances = minimum_norm(graph, np.full((2, 1, 3), 0.5), [0, 0], inf, (0, 1), QUICK)
    assert (distances == inf).all() and (points == 0.5).all()


def test_a_final_softmax_makes_no_gradient_vanish(mlp, tmp_path):
    """Scores that differ by hundreds: their softmax is zero and one in float32, whatever the input."""
    weight = np.array([[400.0, 0.0], [0.0, 400.0]], dtype=np.float32)
    model = onnx.load(mlp([(weight, np.zeros(2))]))
    model.graph.node.append(onnx.helper.make_node("Softmax", [model.graph.output[0].name], ["p"], axis=1))
    model.graph.output[0].name = "p"
    onnx.save(model, tmp_path / "softmax.onnx")
    _, distances = minimum_norm(load(tmp_path / "softmax.onnx"), [[[0.9, 0.1]]], [0], inf, (0, 1), QUICK)
    assert distances.tolist() == pytest.approx([0.4], rel=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((2, 5))}, "the network takes"),
        ({"labels": [0]}, "1 for 2 inputs"),
        ({"labels": [0, 9]}, "not a class"),
        ({"x": np.full((2, 6), 2.0)}, "range of clip"),
        ({"scale": 0.0}, "not positive"),
        ({"norm": 3}, "not known"),
    ],
)
def test_bad_input(linear, change, message):
    given = {"x": np.zeros((2, 6)), "labels": [0, 1], "norm": inf, "clip": (0, 1), "scale": 1.0} | change
    with pytest.raises(InputError, match=message):
        minimum_norm(linear[0], options=QUICK, **given)
