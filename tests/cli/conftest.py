"""Runs command lines in this process, and makes small files to give them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import pytest

from tests.cli.networks import SAFE, linear, save
from verifier.cli.main import run
from verifier.cli.session import Session


@dataclass(frozen=True)
class Outcome:
    """Exit status and what was printed."""

    status: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run one command line: ``command("verify", path, ...)``."""

    def call(*arguments: object) -> Outcome:
        words: Sequence[str] = [str(argument) for argument in arguments]
        capsys.readouterr()
        status = run(words, Session(monotonic()))
        printed = capsys.readouterr()
        return Outcome(status, printed.out, printed.err)

    return call


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return save(linear(), tmp_path / "net.onnx")


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "prop.vnnlib"
    path.write_text(SAFE)
    return path
