"""The command `verify`: verdicts, files, exit statuses, time limits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from threading import Event
from time import monotonic

import numpy as np
import pytest

from tests.cli.conftest import Command
from tests.cli.networks import SAFE, UNSAFE, linear, save
from verifier import pipeline, schedule
from verifier.attacks.witness import read_witness
from verifier.verdict import Stage


def spec(folder: Path, text: str) -> Path:
    path = folder / "prop.vnnlib"
    path.write_text(text)
    return path


@pytest.fixture
def points(tmp_path: Path) -> Path:
    """Inputs of a classifier that takes the larger of two numbers: far from the edge, near it, on the wrong side."""
    path = tmp_path / "points.npz"
    np.savez(path, x=np.array([[0.9, 0.1], [0.55, 0.5], [0.2, 0.8]], dtype=np.float32), y=np.array([0, 0, 0]))
    return path


def test_a_specification_that_holds(command: Command, network: Path, tmp_path: Path):
    done = command("verify", network, spec(tmp_path, SAFE), "--timeout", 60)
    assert (done.status, done.err) == (0, "")
    first, total = done.out.splitlines()
    assert first.startswith("prop.vnnlib: verified, bound 2")
    assert total.startswith("1 query: 1 verified, 0 falsified, 0 undecided, ")


def test_a_specification_that_fails_and_its_files(command: Command, network: Path, tmp_path: Path):
    witness, results = tmp_path / "w.txt", tmp_path / "r.json"
    done = command("verify", network, spec(tmp_path, UNSAFE), "--witness", witness, "--json", results)
    assert (done.status, done.err) == (1, "")
    assert f"counterexample in {witness}" in done.out
    x, y = read_witness(witness)
    assert np.array_equal(x, y) and y[0] >= 0.5
    (entry,) = json.loads(results.read_text())["results"]
    assert entry["verdict"] == "falsified" and entry["query"]["spec"] == str(tmp_path / "prop.vnnlib")
    assert entry["counterexample"] == {"input": x.tolist(), "output": y.tolist(), "replayed": True}
    assert entry["query"]["sha256"] and entry["subproblems"] == 0


def test_a_counterexample_without_a_file_says_how_to_get_one(command: Command, network: Path, tmp_path: Path):
    assert "--witness FILE" in command("verify", network, spec(tmp_path, UNSAFE)).out


def test_inputs_of_a_data_set(command: Command, network: Path, points: Path, tmp_path: Path):
    flags = ("--dataset", points, "--index", "0:3", "--epsilon", "1/10", "--witness", tmp_path / "w.txt")
    done = command("verify", network, *flags)
    assert (done.status, done.err) == (1, "")
    kinds = [line.split(":")[1].split(",")[0].strip() for line in done.out.splitlines()[:3]]
    assert kinds == ["verified", "falsified (becomes 1)", "falsified (becomes 1)"]
    assert read_witness(tmp_path / "w-1.txt")[0][0] <= read_witness(tmp_path / "w-1.txt")[0][1]
    assert (tmp_path / "w-2.txt").exists() and not (tmp_path / "w.txt").exists()


def test_an_error_in_a_later_query_keeps_the_answers_before(command: Command, network: Path, tmp_path: Path):
    """The last input lies outside [0, 1], which is seen when its turn comes; the first is on the wrong side."""
    points, witness, results = (tmp_path / name for name in ("points.npz", "w.txt", "r.json"))
    np.savez(points, x=np.array([[0.2, 0.8], [0.9, 0.1], [0.5, 1.5]]), y=np.array([0, 0, 0]))
    flags = ("--dataset", points, "--index", "0:3", "--epsilon", "0.1", "--json", results, "--witness", witness)
    done = command("verify", network, *flags)
    assert done.status == 2 and done.err.count("\n") == 1 and "input 2" in done.err and "1.5" in done.err
    assert [entry["verdict"] for entry in json.loads(results.read_text())["results"]] == ["falsified", "verified"]
    assert read_witness(tmp_path / "w-0.txt")[0][0] <= read_witness(tmp_path / "w-0.txt")[0][1]
    assert "2 queries: 1 verified, 1 falsified" in done.out and "stopped after 2 of 3 queries" in done.out


@pytest.mark.parametrize("flags", [("--targets", "1"), ()])
def test_labels_and_targets_are_checked_before_the_first_query(
    command: Command, network: Path, tmp_path: Path, flags: tuple[str, ...]
):
    points, results = tmp_path / "points.npz", tmp_path / "r.json"
    np.savez(points, x=np.full((2, 2), 0.5), y=np.array([0, 1 if flags else 7]))
    queries = ("--dataset", points, "--index", "0:2", "--epsilon", "0.1", "--json", results, *flags)
    done = command("verify", network, *queries)
    assert (done.status, done.out) == (2, "") and "input 1" in done.err and not results.exists()


def test_threads_reach_torch(command: Command, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import torch

    seen = []
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # to be restored
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    assert command("verify", network, spec(tmp_path, SAFE), "--threads", 3).status == 0
    assert seen[0] == 3  # before the work, in which every operation has one


def test_json_on_stdout_is_alone_there(command: Command, network: Path, points: Path):
    done = command("verify", network, "--dataset", points, "--index", "0", "--epsilon", "8/255", "--json", "-")
    (entry,) = json.loads(done.out)["results"]
    assert (done.status, done.err) == (0, "")
    assert entry["query"]["spec"] == {
        **{"dataset": str(points), "index": 0, "label": 0, "epsilon": 8 / 255, "norm": "inf"},
        **{"targets": "all", "clip": True, "mean": None, "std": None},
    }
    assert entry["bound"] == pytest.approx(0.8 - 16 / 255, rel=1e-6)


def test_quiet_leaves_the_exit_status(command: Command, network: Path, points: Path):
    done = command("verify", network, "--dataset", points, "--index", "1", "--epsilon", "0.1", "--quiet")
    assert (done.status, done.out, done.err) == (1, "", "")


@pytest.mark.parametrize(
    "flags, status",
    [
        (("--epsilon", "0.3"), 0),
        (("--epsilon", "0.3", "--norm", "1"), 0),
        (("--epsilon", "0.3", "--norm", "2"), 0),
        (("--epsilon", "0.5", "--norm", "2"), 0),
        (("--epsilon", "0.6", "--norm", "2"), 1),
        (("--epsilon", "0.7", "--norm", "1"), 0),
        (("--epsilon", "0.9", "--norm", "1"), 1),
        (("--epsilon", "0.3", "--targets", "1"), 0),
        (("--epsilon", "0.3", "--mean", "0.5", "--std", "0.25"), 0),
        (("--epsilon", "0.6", "--mean", "0.5", "--std", "0.25"), 1),
    ],
)
def test_flags_reach_the_property(command: Command, network: Path, points: Path, flags: tuple[str, ...], status: int):
    assert command("verify", network, "--dataset", points, "--index", "0", *flags).status == status


def test_clipping_decides(command: Command, tmp_path: Path):
    # y = (x0 + 0.15, x1) at x = (1, 1): the least y0 is 1.05, and only an input above 1 lets y1 exceed it
    network = save(linear(((1.0, 0.0), (0.0, 1.0)), (0.15, 0.0)), tmp_path / "net.onnx")
    points = tmp_path / "points.npz"
    np.savez(points, x=np.array([[1.0, 1.0]], dtype=np.float32), y=np.array([0]))
    flags = ("--dataset", points, "--index", "0", "--epsilon", "0.1")
    assert command("verify", network, *flags).status == 0
    assert command("verify", network, *flags, "--no-clip").status == 1


@pytest.mark.parametrize("method", schedule.methods())
def test_every_method_is_offered(command: Command, method: str):
    assert method in "".join(command("verify", "--help").out.split())  # lines break after hyphens


def test_an_incomplete_method_stays_undecided(command: Command, tmp_path: Path):
    """relu(x0 - x1) - relu(x0 - x1) is 0, which intervals cannot see."""
    from onnx import helper

    from tests.cli.networks import model, tensor

    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Gemm", ["b", "v"], ["y"], name="second"),
    ]
    weights = [tensor("w", [[1, 1], [-1, -1]]), tensor("v", [[1, 0], [-1, 0]])]
    network = save(model(nodes, weights), tmp_path / "net.onnx")
    text = SAFE.replace("(assert (>= Y_0 3.0))", "(assert (>= Y_0 0.5))")
    done = command("verify", network, spec(tmp_path, text), "--method", "ibp")
    assert done.status == 3
    assert "undecided (method-incomplete)" in done.out
    assert "try --method auto" in done.out


def test_the_clock_of_one_query_does_not_wait_for_the_engine(
    command: Command, network: Path, points: Path, monkeypatch: pytest.MonkeyPatch
):
    release = Event()

    def endless(*_: object, progress, **__: object):
        progress(Stage("crown", 0.1, -0.5, 1))
        release.wait(30)
        raise AssertionError("nobody listens any more")

    monkeypatch.setattr(pipeline, "verify", endless)
    begun = monotonic()
    flags = ("--dataset", points, "--index", "0:2", "--epsilon", "0.1", "--timeout", "0.4", "--json", "-")
    done = command("verify", network, *flags)
    release.set()
    assert 0.8 <= monotonic() - begun < 1.5
    assert done.status == 3
    first, second = json.loads(done.out)["results"]
    assert (first["verdict"], first["reason"], first["bound"], first["method"]) == (
        *("undecided", "timeout"),
        *(-0.5, "crown"),
    )
    assert second["reason"] == "timeout" and second["stages"] == [] and second["query"]["sha256"] is None


def test_the_engine_is_told_less_than_the_limit(
    command: Command, network: Path, points: Path, monkeypatch: pytest.MonkeyPatch
):
    seen = []
    genuine = pipeline.verify

    def spy(*arguments, **options):
        seen.append(options["timeout"])
        return genuine(*arguments, **options)

    monkeypatch.setattr(pipeline, "verify", spy)
    flags = ("--dataset", points, "--index", "0:2", "--epsilon", "0.01")
    assert command("verify", network, *flags, "--timeout", 30).status == 0
    assert command("verify", network, *flags).status == 0
    assert all(25 < limit < 30 for limit in seen[:2])
    assert seen[2:] == [None, None]


def test_a_process_answers_within_its_limit(network: Path, tmp_path: Path):
    """Loading torch alone takes longer than this; the answer comes all the same, and then the process is gone."""
    begun = monotonic()
    line = [sys.executable, "-m", "verifier", "verify", str(network), str(spec(tmp_path, SAFE)), "--timeout", "0.2"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert monotonic() - begun < 2  # a busy machine needs some of it to start Python
    assert (done.returncode, done.stderr) == (3, "")
    assert "undecided (timeout)" in done.stdout and "--timeout" in done.stdout


def test_memory_reaches_the_engine(command: Command, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen = []
    genuine = pipeline.verify

    def spy(*arguments, **options):
        seen.append(options.get("memory"))
        return genuine(*arguments, **options)

    monkeypatch.setattr(pipeline, "verify", spy)
    assert command("verify", network, spec(tmp_path, SAFE), "--memory", "512MiB").status == 0
    assert command("verify", network, spec(tmp_path, SAFE)).status == 0
    assert seen == [512 << 20, None]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_memory_that_runs_out_is_an_answer(
    error: Exception, command: Command, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def starving(*_: object, **__: object):
        raise error

    monkeypatch.setattr(pipeline, "verify", starving)
    done = command("verify", network, spec(tmp_path, SAFE), "--json", "-")
    assert (done.status, done.err) == (3, "")
    (entry,) = json.loads(done.out)["results"]
    assert (entry["verdict"], entry["reason"]) == ("undecided", "memory")
    assert "--memory" in command("verify", network, spec(tmp_path, SAFE)).out


def test_a_search_that_is_cut_off_tells_how_far_it_came(
    command: Command, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from verifier.search.result import Standing

    release = Event()

    def endless(*_: object, watch, **__: object):
        watch(Standing(120, 40, 60, -0.5))
        release.wait(30)
        raise AssertionError("nobody listens any more")

    monkeypatch.setattr(pipeline, "verify", endless)
    done = command("verify", network, spec(tmp_path, SAFE), "--timeout", "0.5", "--json", "-")
    release.set()
    assert json.loads(done.out)["results"][0]["subproblems"] == 120
