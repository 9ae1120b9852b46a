"""JSON and exit statuses are those of the contract."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from verifier.cli.results import QueryResult, counts, document, exit_status
from verifier.verdict import Counterexample, Falsified, Reason, Stage, Undecided, Verdict, Verified

STAGES = (Stage("ibp", 0.1, None, 9), Stage("crown", 0.2, math.nan, 3), Stage("attack", 0.1, -0.5, 3))
FOUND = Counterexample(np.array([[0.1, 1e-300]]), np.array([[1.0, np.float32(0.1)]], dtype=np.float32))
VERDICTS: dict[str, Verdict] = {
    "verified": Verified(0.25, "crown", STAGES, 1.5, 2),
    "falsified": Falsified(-math.inf, "attack", STAGES, 1.5, counterexample=FOUND),
    "undecided": Undecided(None, "alpha-crown", STAGES, 1.5, reason=Reason.TIMEOUT),
}
FIELDS = ("verdict reason query bound method stages subproblems seconds counterexample certificate versions").split()


def result(kind: str) -> QueryResult:
    return QueryResult("net.onnx", "00ff", "spec.vnnlib", VERDICTS[kind])


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} in the JSON")


@pytest.mark.parametrize("kind", VERDICTS)
def test_fields(kind: str):
    (entry,) = json.loads(document([result(kind)]), parse_constant=refuse)["results"]
    assert list(entry) == FIELDS
    assert entry["verdict"] == kind
    assert entry["reason"] == ("timeout" if kind == "undecided" else None)
    assert entry["query"] == {"network": "net.onnx", "sha256": "00ff", "spec": "spec.vnnlib"}
    assert entry["bound"] == (0.25 if kind == "verified" else None)
    assert entry["stages"][1] == {"name": "crown", "seconds": 0.2, "bound": None, "open": 3}
    assert entry["stages"][2]["bound"] == -0.5
    assert (
        entry["certificate"] is None
        and entry["subproblems"] == (2 if kind == "verified" else 0)
        and entry["seconds"] == 1.5
    )
    assert set(entry["versions"]) == {"verifier", "python", "torch", "onnxruntime", "numpy"}


def test_counterexamples_keep_their_values_exactly():
    (entry,) = json.loads(document([result("falsified")]))["results"]
    found = entry["counterexample"]
    assert found["replayed"] is True
    assert found["input"] == [0.1, 1e-300]
    assert np.array_equal(np.array(found["output"], dtype=np.float32), FOUND.output.reshape(-1))


def test_a_result_is_a_line():
    lines = document([result("verified"), result("falsified")]).splitlines()
    assert lines[0] == '{"results": ['
    assert json.loads(lines[1].rstrip(","))["verdict"] == "verified"
    assert json.loads(lines[2])["verdict"] == "falsified"


@pytest.mark.parametrize(
    "kinds, status",
    [
        (["verified"], 0),
        (["verified", "undecided"], 3),
        (["undecided", "falsified", "verified"], 1),
        (["falsified"], 1),
    ],
)
def test_exit_status(kinds: list[str], status: int):
    assert exit_status([result(kind) for kind in kinds]) == status


def test_counts():
    assert counts([result("verified"), result("verified"), result("undecided")]) == {
        "verified": 2,
        "falsified": 0,
        "undecided": 1,
    }
