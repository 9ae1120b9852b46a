"""The command `radius`: table, files, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Command


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[object, ...]:
    """Inputs of a classifier that takes the larger of two numbers; the last is misclassified."""
    path = tmp_path / "points.npz"
    np.savez(path, x=np.array([[0.75, 0.25], [0.5, 0.375], [0.5, 0.25]], dtype=np.float32), y=np.array([0, 0, 1]))
    return ("--dataset", path, "--index", "0:3")


@pytest.mark.parametrize(("norm", "margins"), [("inf", [0.25, 0.0625, 0.125]), ("1", [0.5, 0.125, 0.25])])
def test_brackets(command: Command, network: Path, inputs: tuple, tmp_path: Path, norm: str, margins: list[float]):
    results, picture = tmp_path / "r.json", tmp_path / "r.svg"
    done = command("radius", network, *inputs, "--norm", norm, "--json", results, "--plot", picture)
    assert (done.status, done.err) == (0, "")
    assert f"3 margins in the norm {norm}: 3 exact, 1 misclassified" in done.out
    made = json.loads(results.read_text())["results"]
    for one, margin in zip(made, margins, strict=True):
        assert one["lower"] <= margin <= one["upper"] + 1e-6 and one["exact"]
        assert one["upper"] - one["lower"] <= one["tolerance"] == 0.001
        assert one["witness"]["replayed"] and one["query"]["sha256"]
    assert [one["query"]["spec"]["index"] for one in made] == [0, 1, 2]
    assert [(one["prediction"], one["correct"]) for one in made] == [(0, True), (0, True), (0, False)]
    assert "<svg" in picture.read_text()


def test_single_classes_and_standard_output(command: Command, network: Path, inputs: tuple):
    done = command("radius", network, *inputs, "--per-class", "--complete", "none", "--json", "-")
    assert done.status == 0
    made = json.loads(done.out)["results"]
    assert [[one["target"] for one in row["classes"]] for row in made] == [[1], [1], [1]]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--tolerance", "0"), "is no tolerance"),
        (("--norm", "3"), "--norm 3"),
        (("--timeout", "0"), "is no time limit"),
        (("--methods", "nonsense"), "'nonsense' is not known"),
        (("--complete", "nonsense"), "--complete nonsense"),
        (("--methods", "", "--complete", "none"), "names no method"),
        (("--plot", "x.bmp"), "ending"),
    ],
)
def test_bad_flags(command: Command, network: Path, inputs: tuple, flags: tuple, message: str):
    done = command("radius", network, *inputs, *flags)
    assert done.status == 2 and message in done.err and len(done.err.splitlines()) == 1


def test_bad_inputs(command: Command, network: Path, inputs: tuple, tmp_path: Path):
    path = tmp_path / "far.npz"
    np.savez(path, x=np.array([[2.0, 0.5]], dtype=np.float32), y=np.array([0]))
    for arguments, message in (
        (("--index", "0"), "--dataset: is missing"),
        (("--dataset", path), "--index: is missing"),
        (("--dataset", path, "--index", "0"), "input 0: value 0 is 2"),
    ):
        done = command("radius", network, *arguments)
        assert done.status == 2 and message in done.err and len(done.err.splitlines()) == 1
