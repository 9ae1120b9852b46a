"""What is drawn of neurons holds what the network does, and each tighter set lies in the looser one."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from tests.analysis.pictures.cases import chain, toy
from verifier.analysis.pictures import neurons
from verifier.analysis.pictures.layer import Layer
from verifier.analysis.pictures.plane import area, inside
from verifier.analysis.pictures.subject import subject
from verifier.analysis.pictures.view import find_layer


def layer(graph, spec, name: str | None = None) -> Layer:
    found = find_layer(subject(graph, spec), name, required=True)
    assert found is not None
    return found


def points(picture, label: str) -> np.ndarray:
    return np.concatenate(picture.find(label))


def corners(polygon: np.ndarray) -> set[tuple[float, float]]:
    return {(round(float(x), 5) + 0.0, round(float(y), 5) + 0.0) for x, y in polygon}


def test_the_toys_neuron():
    picture = neurons.neuron(layer(*toy()), 0)
    assert corners(points(picture, neurons.BOX)) == {(-2, 0), (2, 0), (2, 2), (-2, 2)}
    assert corners(points(picture, neurons.TRIANGLE)) == {(-2, 0), (0, 0), (2, 2)}
    above = picture.find(neurons.DEEPPOLY)[1]
    assert corners(above) == {(-2, 0), (2, 2)}


def test_the_toys_pair_is_a_diamond():
    picture = neurons.pair(layer(*toy()), (0, 1))
    assert corners(points(picture, neurons.OCTAGON)) == {(-2, 0), (0, -2), (2, 0), (0, 2)}
    assert len(picture.find(neurons.KINKS)) == 2


def test_the_toys_outputs_pass_the_barrier_by_the_hull_alone():
    picture = neurons.outputs(layer(*toy()), (0, 1))
    largest = {
        label: points(picture, label).sum(1).max() for label in (neurons.BY_BOX, neurons.BY_OCTAGON, neurons.HULL)
    }
    assert largest == pytest.approx({neurons.BY_BOX: 4, neurons.BY_OCTAGON: 3, neurons.HULL: 2}, abs=1e-5)
    assert corners(points(picture, neurons.EXACT)) == {(0, 0), (2, 0), (0, 2)}


@pytest.mark.parametrize("activation", ["relu", "clip", "sigmoid", "tanh"])
@pytest.mark.parametrize("seed", range(3))
def test_neurons_of_random_networks(activation: str, seed: int):
    about = layer(*chain(activation, seed))
    for index in range(about.size):
        picture = neurons.neuron(about, index)
        hull = points(picture, neurons.TRIANGLE if activation == "relu" else neurons.ENVELOPE)
        seen = np.concatenate([points(picture, neurons.GRAPH), points(picture, neurons.REACHED)])
        (low, high), (x, y) = about.inputs(index), seen.T
        below, above = about.hull(index, x)
        assert (low - 1e-9 <= x).all() and (x <= high + 1e-9).all()
        assert (below <= y + 1e-9).all() and (y <= above + 1e-9).all()
        if len(hull) > 2:
            assert inside(seen, hull, 1e-3).all()  # chords stand for curves
        for line in picture.find(neurons.DEEPPOLY):
            assert len(line) == 2


@pytest.mark.parametrize("activation", ["relu", "clip"])
def test_pairs_of_random_networks_nest(activation: str):
    strictly = 0
    for seed in range(3):
        about = layer(*chain(activation, seed), "act1")
        strictly += sum(nests(about, pair) for pair in combinations(about.ranking()[:4], 2))
    assert strictly > 0


def nests(about: Layer, pair: tuple[int, int]) -> bool:
    """Whether the three hulls of a pair differ; they have to lie in each other, and around what is reached."""
    inputs, outputs = neurons.pair(about, pair), neurons.outputs(about, pair)
    octagon = points(inputs, neurons.OCTAGON)
    assert inside(octagon, points(inputs, neurons.BOX)).all()
    assert inside(points(inputs, neurons.REACHED), octagon).all()
    inner = [outputs.find(label)[0] for label in (neurons.HULL, neurons.BY_OCTAGON, neurons.BY_BOX)]
    for smaller, larger in zip(inner, inner[1:], strict=False):
        assert len(larger) < 3 or inside(smaller, larger).all()
    if len(inner[0]) > 2:
        assert inside(points(outputs, neurons.EXACT), inner[0]).all()
        assert inside(points(outputs, neurons.REACHED), inner[0]).all()
    return area(inner[0]) < 0.99 * area(inner[1]) and area(inner[1]) < 0.99 * area(inner[2])


def test_every_sample_lies_in_the_exact_image():
    about = layer(*chain("relu", 1), "act1")
    pair = (about.ranking()[0], about.ranking()[1])
    picture = neurons.outputs(about, pair)
    pieces = picture.find(neurons.EXACT)
    for point in points(picture, neurons.REACHED):
        flat = min(point) <= 1e-9  # one neuron is off: the piece is a segment, or the origin
        assert flat or any(len(piece) > 2 and inside(point[None], piece).all() for piece in pieces)
