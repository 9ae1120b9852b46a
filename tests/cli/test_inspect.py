"""The command `inspect`: every node is shown, readable or not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from tests.cli.conftest import Command
from tests.cli.networks import linear, model, save, tensor


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A network with one operator that cannot be read, between two that can."""
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["a"], name="first"),
        helper.make_node("Det", ["a"], ["b"], name="strange"),
        helper.make_node("Relu", ["b"], ["y"], name="last"),
    ]
    return save(model(nodes, [tensor("w", np.eye(2))], outputs=()), tmp_path / "odd.onnx")


def test_a_network_that_can_be_read(command: Command, tmp_path: Path):
    done = command("inspect", save(linear(), tmp_path / "net.onnx"))
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines() == [
        "Gemm  layer  1x2  yes",
        "input x 1x2, output y 1x2",
        "6 parameters, opset 17, 1 node, 0 unsupported",
    ]


def test_unsupported_nodes_are_marked_and_the_status_stays_0(command: Command, odd: Path):
    done = command("inspect", odd)
    assert done.status == 0
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["Gemm", "Det", "Relu"]
    assert "unsupported" in lines[1] and "unsupported" not in lines[0]
    assert lines[-1].endswith("3 nodes, 1 unsupported")


def test_json(command: Command, odd: Path, tmp_path: Path):
    done = command("inspect", odd, "--json", "-")
    found = json.loads(done.out)
    assert (done.status, done.err) == (0, "")
    assert found["input"] == {"name": "x", "shape": [1, 2]}
    assert (found["parameters"], found["opset"], found["unsupported"]) == (4, 17, 1)
    assert [(node["name"], node["op"], node["supported"]) for node in found["nodes"]] == [
        ("first", "Gemm", True),
        ("strange", "Det", False),
        ("last", "Relu", True),
    ]
    quiet = command("inspect", odd, "--json", tmp_path / "found.json", "--quiet")
    assert (quiet.status, quiet.out) == (0, "")
    assert json.loads((tmp_path / "found.json").read_text()) == found


def test_a_dynamic_dimension_keeps_its_name(command: Command, tmp_path: Path):
    node = helper.make_node("Relu", ["x"], ["y"], name="act")
    made = model([node], inputs=[("x", ("batch", 2))], outputs=("batch", 2))
    assert "input x batchx2" in command("inspect", save(made, tmp_path / "net.onnx")).out


def test_what_cannot_be_read_is_refused_in_one_line(command: Command, tmp_path: Path):
    (tmp_path / "net.onnx").write_bytes(b"not a network")
    done = command("inspect", tmp_path / "net.onnx")
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert "net.onnx" in done.err
