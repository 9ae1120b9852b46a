"""The code in the documentation runs, and the commands in it are accepted."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND_LINE = "import sys; from verifier.cli.main import main; sys.exit(main())"


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """The fenced blocks of a language: (line number of the first line of code, code)."""
    text = page.read_text(encoding="utf-8")
    fences = re.finditer(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, fence.start(1)) + 1, fence.group(1)) for fence in fences]


def commands() -> list[str]:
    """Every distinct ``$ verifier ...`` of the ```console blocks, continuation lines joined."""
    lines = [
        line.removeprefix("$ ").split("  #")[0].strip()
        for page in PAGES
        for _, code in blocks(page, "console")
        for line in code.replace("\\\n", " ").splitlines()
        if line.startswith("$ verifier ")
    ]
    return list(dict.fromkeys(lines))


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.name)
def test_python_blocks_run(page: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    namespace: dict[str, object] = {"__name__": "__docs__"}
    for line, code in blocks(page, "python"):
        # Leading newlines make a traceback name the line of the page.
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), namespace)


@pytest.mark.parametrize("command", commands())
def test_commands_are_accepted(command: str):
    line = [sys.executable, "-c", COMMAND_LINE, *shlex.split(command)[1:]]
    run = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in run.stderr, run.stderr  # a crash exits with 1, as a falsified query does
    assert run.returncode in (0, 1, 3), run.stderr


def test_the_pages_hold_code():
    assert any(blocks(page, "python") for page in PAGES)
    assert commands()
