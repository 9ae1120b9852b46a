"""The command `attack`: JSON, witnesses, accuracies, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Command
from tests.cli.networks import SAFE, UNSAFE, linear, save
from verifier.attacks.ensemble import NAMES
from verifier.attacks.witness import read_witness

QUICK = ("--steps", 20, "--queries", 50)
#: y = Wx of a classifier into four classes: two coordinates and their negatives
FOUR = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))


@pytest.fixture
def points(tmp_path: Path) -> Path:
    """Inputs of class 0: far from the edge, near it, on the wrong side."""
    path = tmp_path / "points.npz"
    np.savez(path, x=np.array([[0.9, 0.1], [0.55, 0.5], [0.2, 0.8]], dtype=np.float32), y=np.array([0, 0, 0]))
    return path


@pytest.fixture
def four(tmp_path: Path) -> Path:
    return save(linear(FOUR, (0.0,) * 4), tmp_path / "four.onnx")


def around(points: Path, *more: object) -> tuple[object, ...]:
    return ("--dataset", points, "--index", "0:3", "--epsilon", 0.1, *QUICK, *more)


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("name", ["pgd", *NAMES])
def test_every_attack_on_inputs_of_a_data_set(command: Command, four: Path, points: Path, name: str, norm: str):
    done = command("attack", four, *around(points, "--attack", name, "--norm", norm, "--json", "-"))
    assert (done.status, done.err) == (0, "")
    results = json.loads(done.out)["results"]
    assert [entry["verdict"] for entry in results] == ["undecided", "falsified", "falsified"]
    assert [entry["query"]["spec"]["index"] for entry in results] == [0, 1, 2]
    assert results[0]["reason"] == "method-incomplete" and results[2]["method"] == "input"
    x, y = (np.array(results[1]["counterexample"][key]) for key in ("input", "output"))
    move = np.abs(x - np.array([0.55, 0.5], np.float32))
    assert np.linalg.norm(move, ord=float(norm)) <= 0.1
    assert x[1] >= x[0] and np.array_equal(y, np.array(FOUR) @ x) and (x >= 0).all() and (x <= 1).all()
    assert results[1]["method"].startswith("apgd" if name == "ensemble" else name)


def test_what_is_printed(command: Command, four: Path, points: Path):
    done = command("attack", four, *around(points))
    lines = done.out.splitlines()
    assert sum("falsified" in line for line in lines[:3]) == 2 and "input: 1 broken, 2 of 3 still stand" in lines
    assert any(line.startswith("robust accuracy at most 33.33% (1 of 3), accuracy 66.67%") for line in lines)
    assert command("attack", four, *around(points, "--quiet")).out == ""


def test_witnesses(command: Command, four: Path, points: Path, tmp_path: Path):
    assert command("attack", four, *around(points, "--witness", tmp_path / "w.txt")).status == 0
    x, y = read_witness(tmp_path / "w-1.txt")
    assert y.argmax() == 1 and (tmp_path / "w-2.txt").exists() and not (tmp_path / "w-0.txt").exists()


@pytest.mark.parametrize("name", ["pgd", *NAMES])
@pytest.mark.parametrize(("text", "verdict"), [(SAFE, "undecided"), (UNSAFE, "falsified")])
def test_a_specification(command: Command, network: Path, tmp_path: Path, name: str, text: str, verdict: str):
    (tmp_path / "prop.vnnlib").write_text(text)
    arguments = ("--attack", name, "--json", tmp_path / "r.json", *QUICK)
    done = command("attack", network, tmp_path / "prop.vnnlib", *arguments)
    assert (done.status, done.err) == (0, "")
    (entry,) = json.loads((tmp_path / "r.json").read_text())["results"]
    assert entry["verdict"] == verdict and entry["bound"] is None


def test_normalisation_outside_the_network(command: Command, tmp_path: Path, points: Path):
    """The same classifier, once on x and once on (x - 0.5) / 0.25."""
    inner = save(linear(np.array(FOUR) / 4, np.array(FOUR) @ [0.5, 0.5]), tmp_path / "inner.onnx")
    done = command("attack", inner, *around(points, "--mean", "0.5", "--std", "0.25", "--json", "-"))
    assert [entry["verdict"] for entry in json.loads(done.out)["results"]] == ["undecided", "falsified", "falsified"]


def test_a_time_limit_that_is_over(command: Command, four: Path, points: Path):
    done = command("attack", four, *around(points, "--timeout", 1e-6, "--json", "-"))
    results = json.loads(done.out)["results"]
    assert done.status == 0 and results[0]["reason"] == "timeout"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--attack", "nuke"), "--attack nuke: is not an attack"),
        (("--loss", "hinge"), "--loss: 'hinge' is not known"),
        (("--attack", "ensemble"), "network: has 2 classes, the targeted loss dlr needs 4"),
        (("--attack", "apgd", "--loss", "dlr"), "network: has 2 classes, the loss dlr needs 3"),
        (("--timeout", -1), "--timeout -1: is no time limit"),
        (("--steps", 0), "--steps"),
    ],
)
def test_bad_input(command: Command, network: Path, points: Path, flags: tuple[object, ...], message: str):
    done = command("attack", network, *around(points)[:6], *flags)
    assert done.status == 2 and done.err.count("\n") == 1 and message in done.err


def test_two_classes_have_a_way_out(command: Command, network: Path, points: Path):
    done = command("attack", network, *around(points, "--loss", "margin", "--json", "-"))
    assert [entry["verdict"] for entry in json.loads(done.out)["results"]] == ["undecided", "falsified", "falsified"]
