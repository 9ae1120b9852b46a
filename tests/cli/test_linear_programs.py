"""The methods by linear programs from the command line, on a network whose triangle optimum is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper

import verifier
from tests.cli.conftest import Command
from tests.cli.networks import model, save, tensor
from tests.operators.build import Builder
from verifier.bounding.ladder import LadderOptions
from verifier.errors import InputError
from verifier.specs.property import Polytope, Property
from verifier.specs.region import Box


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """y0 = relu(x0 + x1) + relu(x0 - x1): at most 2 over [-1, 1]^2, and 3 for the triangles."""
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Gemm", ["b", "v"], ["y"], name="second"),
    ]
    weights = [tensor("w", [[1, 1], [1, -1]]), tensor("v", [[1, 0], [1, 0]])]
    return save(model(nodes, weights), tmp_path / "toy.onnx")


def _spec(folder: Path, level: float) -> Path:
    lines = [f"(declare-const {name} Real)" for name in ("X_0", "X_1", "Y_0", "Y_1")]
    lines += [f"(assert (>= X_{i} -1.0))\n(assert (<= X_{i} 1.0))" for i in (0, 1)]
    path = folder / "prop.vnnlib"
    path.write_text("\n".join([*lines, f"(assert (>= Y_0 {level}))"]))
    return path


@pytest.mark.parametrize(
    ("method", "level", "status", "bound"),
    [
        ("triangle-lp", 3.25, 0, 0.25),
        ("triangle-lp", 2.5, 3, -0.5),
        ("refined-lp", 3.25, 0, 0.25),
        ("k-relu-lp", 2.5, 0, 0.5),
        ("milp", 2.5, 0, 0.5),
        ("milp", 1.75, 1, 0.0),
    ],
)
def test_what_each_method_can_decide(
    command: Command, toy: Path, tmp_path: Path, method: str, level: float, status: int, bound: float
):
    results = tmp_path / "r.json"
    done = command("verify", toy, _spec(tmp_path, level), "--method", method, "--timeout", 60, "--json", results)
    assert (done.status, done.err) == (status, "")
    (entry,) = json.loads(results.read_text())["results"]
    if method != "milp":
        assert entry["bound"] == pytest.approx(bound, abs=1e-6)
    elif status == 0:
        assert 0 < entry["bound"] <= bound + 1e-6
    if status == 1:
        assert entry["counterexample"]["replayed"] and entry["counterexample"]["output"][0] >= level


def test_milp_refuses_a_ball(command: Command, toy: Path, tmp_path: Path):
    points = tmp_path / "points.npz"
    np.savez(points, x=np.array([[0.9, 0.1]], dtype=np.float32), y=np.array([0]))
    flags = ("--dataset", points, "--index", "0", "--epsilon", "0.1", "--norm", "2")
    done = command("verify", toy, *flags, "--method", "milp")
    assert done.status == 2
    assert "--method milp" in done.err and "branch-and-bound" in done.err and done.err.count("\n") == 1
    assert command("verify", toy, *flags, "--method", "triangle-lp").status == 0


@pytest.mark.parametrize("method", ["triangle-lp", "refined-lp", "k-relu-lp", "milp"])
def test_a_network_that_is_too_large_is_refused(method: str):
    builder = Builder(1, 1)
    wide = builder.add("expand", "x", attributes={"shape": (1, 1_000_000)})
    builder.add("sum", builder.relu(wide), attributes={"axes": (1,)})
    box = Box(-torch.ones(1, 1, 1).double(), torch.ones(1, 1, 1).double())
    prop = Property(box, (Polytope(np.ones((1, 1)), np.array([1.0])),))
    with pytest.raises(InputError, match="2,000,001 columns, 5,000,000 rows"):
        verifier.verify(builder.graph(), prop, method=method)


@pytest.mark.parametrize("method", ["triangle-lp", "milp"])
def test_programs_keep_to_the_memory_that_is_allowed(toy: Path, tmp_path: Path, method: str):
    spec = verifier.read_vnnlib(_spec(tmp_path, 3.25))
    with pytest.raises(InputError, match="are allowed"):
        verifier.verify(verifier.load(toy), spec, method=method, memory=1000)


@pytest.mark.parametrize("method", ["triangle-lp", "k-relu-lp", "refined-lp"])
def test_programs_tell_how_far_they_are(toy: Path, tmp_path: Path, method: str):
    told: list[str] = []
    spec = verifier.read_vnnlib(_spec(tmp_path, 3.25))
    verifier.verify(verifier.load(toy), spec, method=method, ladder=LadderOptions(tell=told.append))
    assert told[-1] == "program 1 of 1"
