"""Counts of the k-ReLU benchmark: what is run, what resumes, and how published counts are scaled."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import krelu_counts
from benchmarks.krelu_counts import ATTACK, CROWN, Published, Row, count, tabulate
from verifier.graph import load
from verifier.specs.datasets import load_dataset

LATER = ["alpha-crown"]


def test_only_what_crown_and_the_attack_leave_open_is_run(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    graph, digits, out = (
        load(root / "models" / "digits_mlp.onnx"),
        load_dataset("digits", None),
        tmp_path / "rows.jsonl",
    )
    near = count(graph, "toy", digits, 4, 1e-3, LATER, out)
    far = count(graph, "toy", digits, 4, 1.0, LATER, out)
    assert near and {row.method for row in near} == {CROWN} and all(row.verified for row in near)
    assert {row.method for row in far} == {CROWN, ATTACK} and not any(row.verified for row in far)
    written = [Row(**json.loads(line)) for line in out.read_text().splitlines()]
    assert written == near + far
    monkeypatch.setattr(krelu_counts, "_run", lambda *_: pytest.fail("a row of the file was computed again"))
    assert count(graph, "toy", digits, 4, 1.0, LATER, out) == far


def test_published_counts_are_scaled_and_said_to_be():
    def row(index: int, method: str, verified: bool) -> Row:
        return Row("toy", index, method, 0.1, verified, seconds=1.0, cpu=0.5)

    rows = [row(0, CROWN, True), row(1, CROWN, False), row(1, ATTACK, True), row(1, "k-relu", True)]
    known = Published(0.1, 900, 800, {"k-relu": ("PRIMA", 500, 30.0)})
    output = io.StringIO()
    Console(file=output, width=160).print(tabulate("toy", rows, known, 10, ["k-relu"]))
    text = output.getvalue()
    assert "scaled from 1000 to 10 images" in text
    line = next(line for line in text.splitlines() if "k-relu" in line)
    # verified 2 of 2, one of them run; seconds 1 and 3: mean 2; PRIMA 500 of 1000 is 5 of 10, and 15 times as long
    assert [cell.strip() for cell in line.strip("│").split("│")] == [
        *("k-relu", "2", "2", "1", "2.00", "2.00", "1.00"),
        *("PRIMA", "5.0", "30", "1/15"),
    ]
