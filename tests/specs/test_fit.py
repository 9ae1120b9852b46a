"""Regions and polytopes made by hand: each way to get one wrong is refused by a sentence of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from verifier.errors import InputError
from verifier.specs.fit import fit, fit_all
from verifier.specs.property import Polytope, Property
from verifier.specs.region import Box, LpBall

LOW, HIGH = torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
RADIUS = torch.ones(1, dtype=torch.float64)
BOX, BALL = Box(LOW, HIGH), LpBall(LOW, RADIUS, Box(LOW - 1, HIGH), 2)
POLYTOPE = Polytope(np.ones((1, 3)), np.zeros(1))
NAN = torch.full((1, 2), torch.nan, dtype=torch.float64)


def fitted(region: object = BOX, *unsafe: Polytope) -> Property:
    return fit(Property(region, unsafe or (POLYTOPE,)), (1, 2), 3, "property")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("region", [BOX, BALL, Box(LOW, HIGH, LOW, HIGH), replace(BALL, inner_radius=RADIUS / 2)])
def test_good_regions_get_the_shape_of_the_input(region):
    assert fitted(region).region.enclosing_box().lower.shape == (1, 1, 2)


def test_an_input_without_axes():
    point = torch.zeros(1, dtype=torch.float64)
    assert fit(Property(Box(point, point), (POLYTOPE,)), (), 3, "property").region.batch == 1


@pytest.mark.parametrize(
    "region, message",
    [
        (Box(HIGH, LOW), "contradictory bounds: X_0"),
        (Box(NAN, NAN), "X_0 is not finite"),
        (Box(LOW, HIGH * torch.inf), "X_0 is not finite"),
        (Box(LOW, HIGH[:, :1]), "have shapes"),
        (Box(LOW.float(), HIGH.float()), "float64 torch tensors"),
        (Box(LOW, HIGH.float()), "float64 torch tensors"),
        (Box(torch.zeros(1, 2).long(), torch.ones(1, 2).long()), "float64 torch tensors"),
        (Box(LOW.numpy(), HIGH.numpy()), "float64 torch tensors"),  # pyright: ignore[reportArgumentType]
        (Box(LOW[0, 0], HIGH[0, 0]), "with a batch axis"),
        (Box(LOW.expand(2, 2), HIGH.expand(2, 2)), "holds 2 input sets"),
        (Box(torch.zeros(1, 5).double(), torch.ones(1, 5).double()), "speaks of 5 inputs, the network has 2"),
        (Box(LOW, HIGH, LOW - 1, HIGH), "inner bounds exceed the bounds"),
        (Box(LOW, HIGH, LOW, HIGH + 1), "inner bounds exceed the bounds"),
        (Box(LOW, HIGH, LOW, NAN), "X_0 is not finite"),
        (replace(BALL, center=NAN), "X_0 is not finite"),
        (replace(BALL, center=HIGH + 1), "centre lies above"),
        (replace(BALL, radius=-RADIUS), "the radius is"),
        (replace(BALL, radius=RADIUS.float()), "float64 torch tensors"),
        (replace(BALL, box=Box(HIGH, LOW)), "contradictory bounds"),
        (replace(BALL, norm=3), "norm 3 is not known"),
        (replace(BALL, inner_radius=2 * RADIUS), "inner radius exceeds"),
        (replace(BALL, inner_radius=RADIUS * torch.nan), "inner radius exceeds"),
    ],
)
def test_bad_regions(region, message):
    with pytest.raises(InputError, match=message):
        fitted(region)
    alike = [Property(one, (POLYTOPE,)) for one in (BALL if isinstance(region, LpBall) else BOX, region, region)]
    with pytest.raises(InputError, match=f"^second: .*{message}"):
        fit_all(alike, (1, 2), 3, ("first", "second", "third"))


def test_many_at_once_are_each_as_alone():
    props = [Property(region, (POLYTOPE,)) for region in (BOX, BALL, Box(LOW - 2, HIGH), BOX)]
    for found, prop in zip(fit_all(props, (1, 2), 3, "abcd"), props, strict=True):
        alone = fit(prop, (1, 2), 3, "property")
        assert found.unsafe is prop.unsafe and type(found.region) is type(alone.region)
        assert torch.equal(found.region.enclosing_box().lower, alone.region.enclosing_box().lower)


@pytest.mark.parametrize(
    "polytope, message",
    [
        (Polytope(np.zeros((0, 3)), np.zeros(0)), "has no rows"),
        (Polytope(np.ones((2, 3)), np.zeros(1)), r"C of shape \(2, 3\) and d of shape \(1,\)"),
        (Polytope(np.ones(3), np.zeros(1)), r"C of shape \(3,\)"),
        (Polytope(np.ones((1, 3)), np.zeros((1, 1))), r"d of shape \(1, 1\)"),
        (Polytope(np.ones((1, 2)), np.zeros(1)), "speaks of 2 outputs, the network has 3"),
        (Polytope(np.full((1, 3), np.nan), np.zeros(1)), "NaN or infinite"),
        (Polytope(np.ones((1, 3)), np.array([np.inf])), "NaN or infinite"),
        (Polytope(np.ones((1, 3)), np.array([-np.inf])), "NaN or infinite"),
        (Polytope(np.ones((1, 3), dtype=np.float32), np.zeros(1)), "float64 numpy arrays"),
        (Polytope(np.ones((1, 3)), np.zeros(1, dtype=int)), "float64 numpy arrays"),
        (Polytope(torch.ones(1, 3), np.zeros(1)), "float64 numpy arrays"),  # pyright: ignore[reportArgumentType]
        (Polytope(np.ones((1, 3)), np.zeros(1), np.ones(1)), "inner d of a polytope exceeds"),
        (Polytope(np.ones((1, 3)), np.zeros(1), np.array([np.nan])), "NaN or infinite"),
    ],
)
def test_bad_polytopes(polytope, message):
    with pytest.raises(InputError, match=message):
        fitted(BOX, POLYTOPE, polytope)


def test_no_polytope():
    with pytest.raises(InputError, match="no unsafe polytope"):
        fit(Property(BOX, ()), (1, 2), 3, "property")
