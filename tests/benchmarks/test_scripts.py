"""The competition's scripts, called as the competition calls them, from another folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.benchmarks.queries import NETWORK, ROOT, write_spec
from verifier.attacks.witness import read_witness

SCRIPTS = ROOT / "benchmarks" / "vnncomp"


def call(folder: Path, script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script in a folder, with this interpreter as the active one."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    words = [str(SCRIPTS / script), *map(str, arguments)]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def run(folder: Path, spec: Path, limit: float) -> str:
    """What the results file holds after a run."""
    results = folder / "results.txt"
    done = call(folder, "run_instance.sh", "v1", "digits", NETWORK, spec.name, results, limit)
    assert done.returncode == 0, done.stderr
    return results.read_text()


def test_unsat(tmp_path: Path):
    assert run(tmp_path, write_spec(tmp_path / "p.vnnlib", 0.005), 60) == "unsat\n"


def test_sat_with_a_witness(tmp_path: Path):
    text = run(tmp_path, write_spec(tmp_path / "p.vnnlib", 0.3), 60)
    assert text.startswith("sat\n")
    x, y = read_witness(tmp_path / "results.txt")
    session = onnxruntime.InferenceSession(str(NETWORK), providers=["CPUExecutionProvider"])
    outputs = np.asarray(session.run(None, {"x": x.astype(np.float32).reshape(1, 1, 8, 8)})[0])
    assert np.array_equal(outputs.reshape(-1), y.astype(np.float32)) and y.argmax() != 0


def test_a_broken_file_is_an_error(tmp_path: Path):
    (tmp_path / "results.txt").write_text("unsat\n")  # of an earlier run
    assert run(tmp_path, write_spec(tmp_path / "p.vnnlib", 0.005, cut=3000), 60) == "error\n"


def test_the_limit_is_kept(tmp_path: Path):
    """Half a second is less than torch takes to load."""
    assert run(tmp_path, write_spec(tmp_path / "p.vnnlib", 0.005), 0.5) == "timeout\n"


def test_undecided_for_another_reason_is_unknown(tmp_path: Path):
    """A stand-in for the interpreter answers as the engine does when memory runs out."""
    (tmp_path / "bench" / "vnncomp").mkdir(parents=True)
    for script in SCRIPTS.glob("*.sh"):
        copy = tmp_path / "bench" / "vnncomp" / script.name
        copy.write_text(script.read_text())
        copy.chmod(0o755)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho \'"reason": "memory"\' > "${10}"\nexit 3\n')
    python.chmod(0o755)
    words = [tmp_path / "bench/vnncomp/run_instance.sh", *("v1", "c", "n.onnx", "p.vnnlib"), tmp_path / "r.txt", "10"]
    subprocess.run([str(word) for word in words], check=True, timeout=60)
    assert (tmp_path / "r.txt").read_text() == "unknown\n"


@pytest.mark.parametrize("arguments", [("v2", "digits", "n", "p"), ("v1", "digits", "n"), ()])
def test_another_calling_convention_is_refused(tmp_path: Path, arguments: tuple[str, ...]):
    done = call(tmp_path, "prepare_instance.sh", *arguments)
    assert done.returncode == 2 and "usage: prepare_instance.sh v1 CATEGORY ONNX VNNLIB" in done.stderr


@pytest.mark.slow
def test_installing_and_preparing(tmp_path: Path):
    spec = write_spec(tmp_path / "p.vnnlib", 0.005)
    assert call(tmp_path, "install_tool.sh", "v1").returncode == 0
    assert call(tmp_path, "prepare_instance.sh", "v1", "digits", NETWORK, spec).returncode == 0
    assert call(tmp_path, "prepare_instance.sh", "v1", "digits", NETWORK, "absent.vnnlib").returncode == 1
