"""Evaluations agree with the verdicts of `verify`."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tests.training.runs import EVALUATION, config
from verifier.errors import InputError
from verifier.pipeline import verify
from verifier.specs.datasets import Dataset, load_dataset
from verifier.specs.robustness import robustness
from verifier.training.curves import certified_curve
from verifier.training.evaluate import Subject, attacked, certified, certified_radii, evaluate_network
from verifier.training.loop import train
from verifier.training.results import save_results
from verifier.verdict import Verified

EPSILON = 0.03


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A network that is neither robust everywhere nor nowhere, and 60 test images."""
    from verifier.graph import load

    out = tmp_path_factory.mktemp("run")
    wanted = config(network="mlp", network_options={"width": 16}, epochs=6, learning_rate=1e-2, epsilon=EPSILON)
    save_results(train(wanted, out), wanted, out)
    return Subject.of(load(out / "model.onnx"), load_dataset("digits"), 200).first(60)


def is_verified(subject: Subject, i: int, epsilon: float, method: str) -> bool:
    spec = robustness(subject.x[i], int(subject.y[i]), epsilon)
    return isinstance(verify(subject.graph, spec, method=method), Verified)


@pytest.mark.parametrize("method", ["ibp", "crown"])
def test_certified_is_what_verify_says(subject: Subject, method: str):
    images = np.arange(30)
    found = certified(subject, images, np.full(30, EPSILON), method, batch=7)
    assert found.tolist() == [is_verified(subject, int(i), EPSILON, method) for i in images]
    assert 0 < found.sum() < 30


def test_a_radius_is_the_last_one_that_was_proved(subject: Subject):
    few, limit = subject.first(12), 2 * EPSILON
    radii = certified_radii(few, limit, EVALUATION)
    assert (radii[~few.correct] == 0).all() and ((radii > 0) & (radii < limit)).any()
    step = limit / 2**EVALUATION.radius_steps
    for i, radius in enumerate(radii):
        if radius > 0:
            assert is_verified(few, i, radius, "ibp")
        if few.correct[i] and radius < limit:
            assert not is_verified(few, i, radius + 1.01 * step, "ibp")


def test_no_attacked_image_is_certified(subject: Subject):
    broken = attacked(subject, 2 * EPSILON, EVALUATION, seed=0)
    assert 0 < broken.sum() and not (broken & ~subject.correct).any()
    found = certified(subject, np.arange(60), np.full(60, 2 * EPSILON), "crown", 60)
    assert not (found & broken).any()


def test_the_report_holds_together(subject: Subject):
    data = load_dataset("digits")
    report = evaluate_network(subject.graph, data, EPSILON, EVALUATION, "cpu")
    shares = [found["accuracy"] for found in report["certified"].values()]
    assert shares == sorted(shares) and shares[-1] <= report["attacked"]["accuracy"]
    complete = report["complete"]
    assert complete["verified"] + complete["falsified"] + complete["undecided"] == EVALUATION.complete_images
    radius = report["radius"]
    assert radius["mean"] == pytest.approx(math.fsum(radius["radii"]) / 20)
    assert radius["mean_share"] == pytest.approx(radius["mean"] / (2 * EPSILON))
    epsilon, share = certified_curve(radius["radii"], radius["limit"])
    assert (np.diff(share) <= 0).all()
    at = int(np.searchsorted(epsilon, EPSILON))
    assert share[at] == pytest.approx(np.mean([r >= epsilon[at] for r in radius["radii"]]))


def test_a_misclassified_image_has_no_radius(subject: Subject):
    few = subject.first(3)
    wrong = Subject(few.graph, few.x, (few.y + 1) % 10, np.zeros(3, dtype=bool), few.device)
    assert certified_radii(wrong, 0.1, EVALUATION).tolist() == [0, 0, 0]


def test_what_cannot_be_evaluated(subject: Subject, tmp_path: Path):
    data = load_dataset("digits")
    with pytest.raises(InputError, match="choose of"):
        evaluate_network(subject.graph, data, 0.1, EVALUATION.model_copy(update={"methods": ("hope",)}), "cpu")
    with pytest.raises(InputError, match="takes 64"):
        evaluate_network(subject.graph, Dataset(data.x[:, :, :4], data.y, "half"), 0.1, EVALUATION, "cpu")
