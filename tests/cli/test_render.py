"""Lines for pipes, tables for terminals, and advice for what stayed open."""

from __future__ import annotations

import io
from pathlib import Path
from time import monotonic

import numpy as np
import pytest
from rich.console import Console

from verifier.cli import render
from verifier.cli.decide import Attempt
from verifier.cli.render import Display, line, next_steps, progress_line, summary, table
from verifier.cli.request import Request
from verifier.cli.results import QueryResult
from verifier.search.result import Standing
from verifier.verdict import Counterexample, Falsified, Reason, Stage, Undecided, Verdict, Verified

FOUND = Counterexample(np.zeros((1, 2)), np.array([[0.0, 3.0, 1.0]], dtype=np.float32))
STAGES = (Stage("crown", 0.1, -0.5, 1),)
VERIFIED = Verified(0.12345678, "crown", STAGES, 0.5)
FALSIFIED = Falsified(None, "attack", STAGES, 0.25, counterexample=FOUND)


def of_spec(verdict: Verdict) -> QueryResult:
    return QueryResult("net.onnx", "00", "folder/[odd]prop.vnnlib", verdict)


def of_data(verdict: Verdict, label: int | None = 2) -> QueryResult:
    return QueryResult("net.onnx", "00", {"dataset": "digits", "index": 7, "label": label}, verdict)


def undecided(reason: Reason, stages: tuple[Stage, ...] = STAGES) -> QueryResult:
    return of_spec(Undecided(-0.5, "alpha-crown", stages, 2.0, reason=reason))


def test_lines():
    assert line(of_data(VERIFIED)) == "index 7, label 2: verified, bound 0.1235, crown, 0.50 s"
    assert line(of_data(FALSIFIED)) == "index 7, label 2: falsified (becomes 1), bound -, attack, 0.25 s"
    assert line(of_spec(FALSIFIED)) == "[odd]prop.vnnlib: falsified, bound -, attack, 0.25 s"
    assert line(undecided(Reason.TIMEOUT)).startswith("[odd]prop.vnnlib: undecided (timeout), bound -0.5, alpha-crown")
    assert line(of_data(VERIFIED, label=None)).startswith("index 7: verified")


def test_a_table_shows_what_lines_show():
    console = Console(file=io.StringIO(), width=100, record=True)
    console.print(table([of_data(VERIFIED), of_data(FALSIFIED), undecided(Reason.MEMORY)]))
    text = console.export_text()
    for word in (
        "verified",
        "falsified",
        "undecided",
        "index 7",
        "label 2",
        "becomes 1",
        "[odd]prop",
        "0.1235",
        "memory",
    ):
        assert word in text


def test_summary_counts():
    results = [of_data(VERIFIED), of_data(FALSIFIED), of_data(VERIFIED)]
    assert summary(results, 1.26) == "3 queries: 2 verified, 1 falsified, 0 undecided, 1.3 s"
    assert summary(results[:1], 1.0).startswith("1 query:")


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_comes_with_advice(reason: Reason):
    (step,) = next_steps([undecided(reason), undecided(reason), of_data(VERIFIED)], "crown")
    assert step.startswith(f"{reason}: ")


def test_advice_fits_the_case():
    assert "--method auto" in next_steps([undecided(Reason.METHOD_INCOMPLETE)], "crown")[0]
    assert "--method" not in next_steps([undecided(Reason.METHOD_INCOMPLETE)], "auto")[0]
    assert "before the first bound" in next_steps([undecided(Reason.TIMEOUT, ())], "auto")[0]
    assert next_steps([of_data(VERIFIED)], "auto") == []


@pytest.mark.parametrize("answers", [True, False])
def test_a_pipe_gets_plain_lines_or_nothing(capsys: pytest.CaptureFixture[str], tmp_path, answers: bool):
    result = of_data(VERIFIED)
    with Display(answers, True, 1) as display:
        display.begin(Attempt(Request(tmp_path, tmp_path), 0, 0.0))
        display.finish(result)
        display.close([result], 1.0, ["a note"])
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.splitlines() == ([line(result), summary([result], 1.0), "a note"] if answers else [])


def _searching(folder: Path) -> Attempt:
    attempt = Attempt(Request(folder, folder), 0, monotonic(), stages=list(STAGES))
    attempt.standing = Standing(120, 40, 60, -0.25)
    return attempt


def test_the_status_tells_of_the_search(tmp_path: Path):
    text = progress_line(_searching(tmp_path), 3)
    assert text.startswith("query 1 of 3, ") and "after crown, bound -0.5" in text
    assert text.endswith("search: 60 subproblems open, 40 closed, bound -0.25")


def test_the_status_tells_how_far_a_rung_is(tmp_path: Path):
    attempt = _searching(tmp_path)
    attempt.standing, attempt.rung = None, "program 3 of 9"
    assert progress_line(attempt, 3).endswith("bound -0.5, program 3 of 9")


@pytest.mark.parametrize("progress", [True, False])
def test_in_a_pipe_a_long_search_says_a_line_now_and_then(
    progress: bool, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    clock = [0.0]
    monkeypatch.setattr(render, "monotonic", lambda: clock[0])
    display, attempt = Display(True, progress, 1), _searching(tmp_path)
    display.begin(attempt)
    for clock[0] in (1.0, 11.0, 12.0, 22.0):
        display.searching(attempt)
    display.finish(of_data(VERIFIED))
    clock[0] = 60.0
    display.searching(attempt)  # from a thread that nobody waits for any more
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (2 if progress else 0)
    assert all("60 subproblems open" in line for line in lines)


def test_on_a_terminal_the_status_shows_the_search(tmp_path: Path):
    console = Console(file=io.StringIO(), width=140, record=True)
    console.print(render._Progress(_searching(tmp_path), 1))
    assert "60 subproblems open" in console.export_text()
