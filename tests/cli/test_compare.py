"""The command `compare`: tables, files, bad input."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Command

METHODS = ("--methods", "ibp,crown")


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[object, ...]:
    """Inputs of a classifier that takes the larger of two numbers: far from the edge, and near it."""
    path = tmp_path / "points.npz"
    np.savez(path, x=np.array([[0.9, 0.1], [0.55, 0.5]], dtype=np.float32), y=np.array([0, 0]))
    return ("--dataset", path, "--index", "0:2", "--epsilon", "0.1")


def test_a_specification(command: Command, network: Path, spec: Path):
    done = command("compare", network, spec, *METHODS)
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "prop.vnnlib" and lines[2].split()[:3] == ["method", "bound", "verified"]
    assert [line.split()[:3] for line in lines[4:6]] == [["ibp", "+2.0000", "yes"], ["crown", "+2.0000", "yes"]]
    assert lines[7].split()[:2] == ["attack", "+2.0000"]
    assert all(line == line.rstrip() for line in lines)


def test_inputs_of_a_data_set_and_their_files(command: Command, network: Path, inputs: tuple, tmp_path: Path):
    results, table, picture = (tmp_path / name for name in ("r.json", "r.csv", "r.svg"))
    files = ("--json", results, "--csv", table, "--plot", picture)
    done = command("compare", network, *inputs, *METHODS, *files, "--radius", "0.01")
    assert (done.status, done.err) == (0, "")
    assert "2 queries, 1 of them falsified by the attack" in done.out and "index 1, label 0, epsilon 0.1" in done.out
    made = json.loads(results.read_text())
    assert set(made) == {"results", "summary", "versions"}
    first, second = made["results"]
    assert first["query"]["spec"]["index"] == 0 and first["query"]["sha256"]
    assert (first["falsified"], second["falsified"]) == (False, True)
    assert second["upper_bound"] == pytest.approx(-0.15, abs=1e-6)
    assert [entry["verified"] for entry in first["methods"] + second["methods"]] == [True, True, False, False]
    assert 0.38 < first["methods"][0]["certified_epsilon"] < 0.4
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [(row["index"], row["method"], row["verified"]) for row in rows] == [
        *(("0", "ibp", "true"), ("0", "crown", "true"), ("1", "ibp", "false"), ("1", "crown", "false"))
    ]
    assert "<svg" in picture.read_text()


@pytest.mark.parametrize("flag", ["--json", "--csv"])
def test_standard_output_is_for_the_file_alone(command: Command, network: Path, spec: Path, flag: str):
    done = command("compare", network, spec, *METHODS, flag, "-")
    assert done.status == 0
    if flag == "--json":
        assert len(json.loads(done.out)["results"]) == 1
    else:
        assert [row["method"] for row in csv.DictReader(done.out.splitlines())] == ["ibp", "crown"]


def test_quiet_prints_nothing(command: Command, network: Path, spec: Path):
    done = command("compare", network, spec, *METHODS, "--quiet")
    assert (done.status, done.out, done.err) == (0, "", "")


@pytest.mark.parametrize(
    ("flags", "place"),
    [
        (("--methods", "ibp,magic"), "magic"),
        (("--methods", ","), "--methods"),
        (("--boxes", "mine"), "--boxes"),
        (("--timeout", "0"), "--timeout"),
        (("--plot", "picture.bmp"), "picture.bmp"),
        (("--csv", "/no/such/folder/x.csv"), "--csv"),
        (("--json", "-", "--csv", "-"), "--csv"),
        (("--radius", "0.1"), "--radius"),
    ],
)
def test_bad_input(command: Command, network: Path, spec: Path, flags: tuple[str, ...], place: str):
    done = command("compare", network, spec, *flags)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("verifier: ") and done.err.count("\n") == 1 and place in done.err


def test_a_tolerance_of_zero(command: Command, network: Path, inputs: tuple):
    done = command("compare", network, *inputs, "--radius", "0")
    assert done.status == 2 and "--radius" in done.err


def test_an_error_in_a_later_query_keeps_what_came_before(command: Command, network: Path, tmp_path: Path):
    points, results = tmp_path / "points.npz", tmp_path / "r.json"
    np.savez(points, x=np.array([[0.9, 0.1], [0.5, 1.5]]), y=np.array([0, 0]))
    flags = ("--dataset", points, "--index", "0:2", "--epsilon", "0.1", "--json", results)
    done = command("compare", network, *flags, *METHODS)
    assert done.status == 2 and "input 1" in done.err
    assert len(json.loads(results.read_text())["results"]) == 1
