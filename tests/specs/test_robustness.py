"""Robustness properties, the change of units, and the fit of a specification to a network."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verifier.errors import InputError
from verifier.specs.property import Polytope, Property, Query
from verifier.specs.region import Box, LpBall
from verifier.specs.robustness import Robustness, resolve, robustness


@dataclass
class Shapes:
    """All that `resolve` wants to know of a network."""

    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]


NETWORK = Shapes((1, 2, 2), (1, 3))
X = np.array([[0.0, 0.3], [0.7, 1.0]])


def exact(values) -> list[Fraction]:
    return [Fraction(float(v)) for v in np.asarray(values).reshape(-1)]


def box_of(spec: Robustness) -> Box:
    assert isinstance(spec.region, Box)
    return spec.region


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0, 2))
def test_box_holds_exactly_the_inputs_within_epsilon(x, epsilon):
    box = box_of(robustness(x, 0, epsilon))
    inner_lower = box.lower if box.inner_lower is None else box.inner_lower
    inner_upper = box.upper if box.inner_upper is None else box.inner_upper
    for i, value in enumerate(exact(x)):
        low, high = max(value - Fraction(epsilon), Fraction(0)), min(value + Fraction(epsilon), Fraction(1))
        assert exact(box.lower)[i] <= low <= exact(inner_lower)[i]
        assert exact(inner_upper)[i] <= high <= exact(box.upper)[i]
    assert bool((box.upper - box.lower <= 2 * epsilon + 1e-15).all())


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3), st.floats(0, 1), st.floats(-1, 1), st.floats(0.05, 5))
def test_normalised_box_is_rounded_outwards(x, epsilon, mean, std):
    box = box_of(robustness(x, 0, epsilon, mean=mean, std=std))
    inner = [box.lower if box.inner_lower is None else box.inner_lower]
    inner += [box.upper if box.inner_upper is None else box.inner_upper]
    for i, value in enumerate(exact(x)):
        low, high = max(value - Fraction(epsilon), Fraction(0)), min(value + Fraction(epsilon), Fraction(1))
        low, high = ((end - Fraction(mean)) / Fraction(std) for end in (low, high))
        assert exact(box.lower)[i] <= low <= high <= exact(box.upper)[i]
        if exact(inner[0])[i] < exact(inner[1])[i]:
            assert low <= exact(inner[0])[i] <= exact(inner[1])[i] <= high
    assert bool((inner[0] <= inner[1]).all())


def test_epsilon_per_feature_and_per_channel_units():
    box = box_of(robustness(np.full((2, 1, 2), 0.5), 0, [[0.25, 0.0]], mean=[0.5, 0.0], std=[0.5, 0.25]))
    assert torch.allclose(box.lower[0, :, 0], torch.tensor([[-0.5, 0.0], [1.0, 2.0]], dtype=torch.float64))
    assert torch.allclose(box.upper[0, :, 0], torch.tensor([[0.5, 0.0], [3.0, 2.0]], dtype=torch.float64))


def test_without_a_clip_inputs_may_go_anywhere():
    box = box_of(robustness([5.0], 0, 1.0, clip=None))
    assert (float(box.lower), float(box.upper)) == (4.0, 6.0)


@pytest.mark.parametrize("norm, order", [("2", 2), (2, 2), (1.0, 1), ("L1", 1)])
def test_balls_are_scaled_by_a_common_std(norm, order):
    plain = robustness(X, 0, "1/2", norm=norm).region
    assert isinstance(plain, LpBall) and plain.norm == order and plain.inner_radius is None
    assert float(plain.radius) == 0.5 and float(plain.upper.max()) == 1.0
    scaled = robustness(X, 0, 0.5, norm=norm, mean=[0.1, 0.2], std=[0.3, 0.3]).region
    assert isinstance(scaled, LpBall) and scaled.inner_radius is not None
    assert float(scaled.inner_radius) < 0.5 / 0.3 <= float(scaled.radius) == pytest.approx(0.5 / 0.3)
    points = plain.sample(50, torch.Generator().manual_seed(0))
    shift = torch.tensor([[0.1], [0.2]], dtype=torch.float64)
    assert bool(LpBall.contains(scaled, ((points - shift) / 0.3)).all())
    witness = scaled.witness(np.full((2, 2), 5.0))
    assert witness is not None
    pixels = witness * 0.3 + shift.numpy()
    assert (pixels >= -1e-12).all() and (pixels <= 1 + 1e-12).all()
    assert np.linalg.norm((pixels - X).reshape(-1), ord=order) <= 0.5 + 1e-12


def test_unlimited_ball():
    region = robustness(X, 0, 0.5, norm=2, clip=None).region
    assert float(region.minimum(torch.ones(1, 1, 2, 2, dtype=torch.float64))) == pytest.approx(2.0 - 0.5 * 2)


@pytest.mark.parametrize("make", [np.float32, torch.tensor, list, lambda x: torch.tensor(x, requires_grad=True)])
def test_any_array_will_do(make):
    spec = robustness(make([0.25, 0.5]), 1, torch.tensor(0.25))
    assert box_of(spec).lower.tolist() == [[0.0, 0.25]]


@pytest.mark.parametrize("label", [1, np.uint8(1), np.array(1), torch.tensor(1)])
def test_labels_may_come_from_an_array(label):
    assert robustness(X, label, 0.1).label == 1


def test_one_polytope_for_each_other_class():
    prop = robustness(X, 1, 0.1).property(3)
    assert [p.C.tolist() for p in prop.unsafe] == [[[-1.0, 1.0, 0.0]], [[0.0, 1.0, -1.0]]]
    assert all(p.d.tolist() == [0.0] for p in prop.unsafe)
    assert prop.unsafe[0].contains(np.array([2.0, 2.0, 0.0])), "a tie is a violation"
    assert [p.C.tolist() for p in robustness(X, 1, 0.1, targets=2).property(3).unsafe] == [[[0.0, 1.0, -1.0]]]
    assert len(robustness(X, 1, 0.1, targets=[2, 0, 2]).property(3).unsafe) == 2


def test_resolve_fits_every_kind_of_specification():
    spec = robustness(X, 0, 0.1)
    query = resolve(spec, NETWORK)
    assert query.properties[0].region.enclosing_box().lower.shape == (1, 1, 2, 2)
    flat = Box(torch.zeros(1, 4, dtype=torch.float64), torch.ones(1, 4, dtype=torch.float64))
    prop = Property(flat, (Polytope(np.ones((1, 3)), np.zeros(1)),))
    assert resolve(prop, NETWORK).properties[0].region.enclosing_box().upper.shape == (1, 1, 2, 2)
    named = resolve(Query((prop, prop), "a name"), NETWORK)
    assert named.name == "a name" and len(named.properties) == 2


def make_query(inputs: int = 4, outputs: int = 3, batch: int = 1) -> Query:
    box = Box(torch.zeros(batch, inputs, dtype=torch.float64), torch.ones(batch, inputs, dtype=torch.float64))
    return Query((Property(box, (Polytope(np.ones((1, outputs)), np.zeros(1)),)),), "spec.vnnlib")


@pytest.mark.parametrize(
    "spec, message",
    [
        (make_query(inputs=5), "spec.vnnlib: speaks of 5 inputs, the network has 4"),
        (make_query(outputs=2), "spec.vnnlib: speaks of 2 outputs, the network has 3"),
        (make_query(batch=2), "holds 2 input sets"),
        (Query(()), "without properties"),
        (Property(make_query().properties[0].region, ()), "no unsafe polytope"),
        (robustness(X, 3, 0.1), "label: 3 is not a class of the network; use 0 to 2"),
        (robustness(X, 0, 0.1, targets=7), "target: 7 is not a class"),
        (robustness([0.5], 0, 0.1), "speaks of 1 inputs, the network has 4"),
    ],
)
def test_resolve_refuses_what_does_not_fit(spec, message):
    with pytest.raises(InputError, match=message):
        resolve(spec, NETWORK)


def test_robustness_needs_two_classes():
    with pytest.raises(InputError, match="has 1 output"):
        resolve(robustness(X, 0, 0.1), Shapes((4,), (1,)))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"x": [0.5, 1.5]}, "input: value 1 is 1.5, outside 0 to 1"),
        ({"x": [0.5, float("nan")]}, "input: value 1 is NaN or infinite"),
        ({"x": ["a"]}, "not an array of real numbers"),
        ({"x": [1 + 2j]}, "not an array of real numbers"),
        ({"x": [[1.0], [1.0, 0.0]]}, "not an array of real numbers"),
        ({"x": []}, "is empty"),
        ({"epsilon": -0.1}, "epsilon: -0.1 is negative"),
        ({"epsilon": "-1/10"}, "is negative"),
        ({"epsilon": float("inf")}, "NaN or infinite"),
        ({"epsilon": [0.1, 0.1, 0.1]}, r"has shape \(3,\), the input \(2,\)"),
        ({"epsilon": [0.1, 0.1], "norm": 2}, "one per feature is for the norm inf only"),
        ({"norm": "3"}, "'3' is not known; use inf, 2 or 1"),
        ({"label": -1}, "-1 is not a class"),
        ({"label": 1.5}, "1.5 is not a class"),
        ({"targets": 0}, "name the label itself"),
        ({"targets": []}, "is not a class|name the label itself or nothing"),
        ({"clip": (1, 0)}, "1 to 0 is not a range"),
        ({"std": 0.0}, "--std: 0 is not positive"),
        ({"std": [0.1, 0.2], "norm": 1}, "differs between channels"),
        ({"mean": [0.1, 0.2, 0.3]}, "3 numbers, but no axis of the input"),
        ({"mean": float("nan")}, "needs finite numbers"),
        ({"mean": "abc"}, "not a list of numbers"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments, message):
    with pytest.raises(InputError, match=message):
        robustness(**({"x": [0.5, 0.25], "label": 0, "epsilon": 0.1} | arguments))
