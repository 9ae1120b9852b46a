"""The table of networks that differ in their loss: what it says, and that a stopped run goes on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import margin_models
from benchmarks.margin_tables import differences, groups, show

LOGITS = {"accuracy": 0.9, "max logit": 5.0, "gap": 3.0, "LM loss": -3.0, "confidence": 0.9, "gradient": 20.0}


def row(loss: str, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """A network as `rows.jsonl` has it."""
    setting = {"dataset": "digits", "loss": loss, "seed": seed, "epochs": 1, "epsilon": 0.1, "width": 8, "images": 20}
    kept = {
        "setting": setting,
        "natural": 0.9,
        "robust": 0.5,
        "certified": 0.4,
        "contradictions": 0,
        "margin": [0.05, 0.07],
        "tau": [0.5, 0.7],
        "tau_attacked": 0.6,
        "brittle": [8, 10],
        "auroc": [0.9, 0.95],
        "fpr95": [0.1, 0.2],
        "logits": {kind: {**LOGITS, "LM peaks": [-4.0, -0.5]} for kind in ("clean", "attacked")},
    }
    return {**kept, **changes}


def test_differences_are_those_of_shared_seeds():
    rows = [row("pgd"), row("pgd", 1), row("sovr", robust=0.6), row("sovr", 1, robust=0.7), row("sovr", 2, robust=0.0)]
    (line,) = differences(rows)
    assert line.startswith("sovr less pgd (seeds: 2): ") and "robust accuracy +15 ± 7.1 points" in line
    assert "natural accuracy +0" in line and list(differences([row("sovr"), row("ibp")])) == []


def test_what_is_not_known_is_a_dash(capsys: pytest.CaptureFixture[str]):
    show([row("ibp", auroc=None, fpr95=None, tau_attacked=None), row("standard", contradictions=2)])
    said = capsys.readouterr().out
    assert "90.00 to 95.00" in said and "+0.500 to" in said and "-4.0, -0.5" in said
    assert "2 images both certified and broken" in said
    line = next(line for line in said.splitlines() if "ibp" in line)
    assert line.count(" - ") == 3
    assert [loss for loss, _ in groups([row("b"), row("a"), row("b")])] == ["b", "a"]


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def run(losses: str) -> list[str]:
        size = "--epochs 1 --epsilon 0.05 --images 6 --seconds 0.1 --steps 5 --queries 10 --width 2 --dataset digits"
        words = ["margin_models", "--out", str(tmp_path), "--losses", losses, *size.split()]
        monkeypatch.setattr(sys, "argv", words)
        margin_models.main()
        return (tmp_path / "rows.jsonl").read_text().splitlines()

    first = run("pgd")
    both = run("pgd,certified-sovr")
    assert len(first) == 1 and both[0] == first[0] and len(both) == 2
    for line in both:
        found = json.loads(line)
        assert found["contradictions"] == 0
        assert 0 <= found["certified"] <= found["robust"] <= 1
        assert found["tau"][0] <= found["tau"][1] and found["margin"][0] <= found["margin"][1]
        assert set(found["logits"]["clean"]) == {*LOGITS, "LM peaks"}
    folder = tmp_path / margin_models.Setting(**json.loads(both[1])["setting"]).folder
    assert len(json.loads((folder / "brackets.json").read_text())["results"]) == 6
    assert (tmp_path / "clean.png").is_file() and (tmp_path / "attacked.png").is_file()
