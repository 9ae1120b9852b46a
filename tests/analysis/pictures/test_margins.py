"""Polygons of outputs hold what the network computes and shrink from method to method; bars are true bounds."""

from __future__ import annotations

import numpy as np
import pytest

from tests.analysis.pictures.cases import chain, toy
from verifier.analysis.pictures import margins
from verifier.analysis.pictures.plane import area, inside
from verifier.analysis.pictures.subject import scaled, subject
from verifier.analysis.pictures.view import METHODS
from verifier.bounding.ladder import LadderOptions
from verifier.pipeline import bounds


def test_the_toys_polygons():
    picture = margins.logits(subject(*toy()), (0, 1), METHODS, LadderOptions())
    largest = {method: float(picture.find(method)[0][:, 0].max()) for method in METHODS}
    truth = {"ibp": 4, "crown": 3, "triangle-lp": 3, "alpha-crown": 3, "k-relu": 2}
    assert largest == pytest.approx(truth, abs=1e-2)
    assert set(np.round(picture.find(margins.BOUNDARY)[0][:, 0], 9)) == {2.5}
    assert picture.find(margins.UNSAFE)[0][:, 0].min() == pytest.approx(2.5)
    assert "Alike: crown, triangle-lp, alpha-crown." in picture.caption


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_polygons_nest_around_the_samples(activation: str, seed: int):
    methods = ("ibp", "crown", "alpha-crown", "k-relu")
    picture = margins.logits(subject(*chain(activation, seed)), (0, 2), methods, LadderOptions())
    polygons = [picture.find(method)[0] for method in methods]
    for polygon in polygons:
        assert inside(picture.find(margins.SAMPLES)[0], polygon).all()
    for looser, tighter in zip(polygons, polygons[1:], strict=False):
        assert inside(tighter, looser, 1e-2).all()
    assert area(polygons[-1]) < area(polygons[0])


def test_no_method_stops_at_a_proof():
    """On a smaller set the toy is proved by CROWN: k-ReLU has to go on to the end nevertheless."""
    about = margins.shrunk(subject(*toy()), 0.5)
    picture = margins.waterfall(about, ("crown", "k-relu"), LadderOptions())
    ends = {mark.label: float(mark.points[1, 0]) for mark in picture.marks if mark.kind == "bar"}
    assert ends["crown"] == pytest.approx(1.0)
    assert ends["k-relu"] == pytest.approx(1.5, abs=1e-2)


def test_bars_are_the_methods_bounds():
    graph, prop = chain(seed=1)
    about = subject(graph, prop)
    picture = margins.waterfall(about, ("ibp", "crown"), LadderOptions())
    bars = [mark for mark in picture.marks if mark.kind == "bar"]
    assert picture.rows == ("ibp", "crown", "not decided") and [bar.label for bar in bars][:2] == ["ibp", "crown"]
    for bar in bars[:2]:
        certified = float(bounds(graph, prop, bar.label)[0].min())
        assert bar.note.startswith(f"{certified:.4g} ") or certified > 0
    (left, right), _ = picture.window
    assert left < 0 < right and left < bars[-1].points[1, 0] < right
    attacked = float(bars[-1].note.removeprefix("attack "))
    assert all(bar.points[1, 0] <= attacked + 1e-3 for bar in bars[:2])


def test_the_default_pair_is_the_hardest_row():
    graph, prop = chain(seed=2)
    certified = bounds(graph, prop, "crown")[0]
    assert margins.default_pair(subject(graph, prop)) == (0, 1 + int(certified.argmin()))
    assert margins.default_pair(subject(*toy())) == (0, 1)
    assert margins.default_pair(subject(*chain(outputs=2))) == (0, 1)


def test_smaller_sets_lie_in_larger_ones():
    _, prop = chain()
    half = scaled(prop, 0.5).region.enclosing_box()
    whole = prop.region.enclosing_box()
    assert float(half.lower[0, 0]) == pytest.approx(-0.15) and float(half.upper[0, 0]) == pytest.approx(0.35)
    assert bool((half.lower > whole.lower).all() and (half.upper < whole.upper).all())
