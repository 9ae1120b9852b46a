"""The front of training goes on where it stopped, and its table and picture come from the rows alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.training import __main__ as front


def made_up(out: Path, adaptive: bool, kappa: float, seed: int, epochs: int, data_dir: Path | None) -> front.Row:
    natural, radius = 0.9 + 0.1 * kappa, 0.1 - 0.05 * kappa + 0.02 * adaptive
    return front.Row(adaptive, kappa, seed, epochs, natural + 0.01 * seed, 0.8, 0.1, radius, 0.2, 12.0)


def test_runs_that_are_done_are_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    asked: list[tuple] = []

    def measure(*arguments) -> front.Row:
        asked.append(arguments[1:4])
        if len(asked) == 4:
            raise KeyboardInterrupt
        return made_up(*arguments)

    monkeypatch.setattr(front, "measure", measure)
    monkeypatch.setattr("sys.argv", ["training", "--out", str(tmp_path), "--seeds", "2", "--kappas", "0,0.5"])
    with pytest.raises(KeyboardInterrupt):
        front.main()
    assert len(front.read(tmp_path)) == 3
    front.main()
    assert len(asked) == 4 + 5 and len(set(asked)) == 8
    assert asked[:2] == [(False, 0.0, 0), (True, 0.0, 0)]  # side by side
    table = capsys.readouterr().out
    assert "95.50 ± 0.71" in table and "adaptive" in table  # kappa 0.5, seeds 0 and 1
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
