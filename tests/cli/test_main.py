"""The program: its help loads nothing heavy, its version is there, and its process leaves with the right status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from time import sleep

import pytest

import verifier
from tests.cli.conftest import Command
from tests.cli.networks import SAFE, UNSAFE, linear, save

PROGRAM = (sys.executable, "-m", "verifier")


def test_version(command: Command):
    done = command("--version")
    assert (done.status, done.out) == (0, f"verifier {verifier.__version__}\n")


@pytest.mark.parametrize("words", [("--help",), ("verify", "--help"), ("inspect", "--help"), ("train", "--help")])
def test_help_shows_an_example(command: Command, words: tuple[str, ...]):
    done = command(*words)
    assert done.status == 0
    assert "Example" in done.out and "verifier " in done.out.split("Example")[1]


def test_later_commands_are_not_offered(command: Command):
    assert command("--help").out.split("Commands:")[1].split("Example")[0].split().count("verify") == 1
    for later in ("campaign", "check"):
        assert f"  {later} " not in command("--help").out


def test_help_loads_nothing_heavy():
    script = (
        "import sys\nfrom time import monotonic\nfrom verifier.cli.main import run\n"
        "from verifier.cli.session import Session\nrun(['verify', '--help'], Session(monotonic()))\n"
        "print(sorted({'torch', 'numpy', 'onnx', 'onnxruntime', 'rich', 'sklearn'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


def test_the_process_ends_with_the_status_and_all_of_the_output(tmp_path: Path):
    network, spec = save(linear(), tmp_path / "net.onnx"), tmp_path / "prop.vnnlib"
    spec.write_text(UNSAFE)
    line = [*PROGRAM, "verify", str(network), str(spec), "--json", "-"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.endswith("]}\n")


def test_an_interrupt_ends_the_process(tmp_path: Path):
    network, spec = save(linear(), tmp_path / "net.onnx"), tmp_path / "prop.vnnlib"
    spec.write_text(SAFE)
    os.mkfifo(tmp_path / "json")  # nobody reads it, so the command hangs when it writes, until it is interrupted
    line = [*PROGRAM, "verify", str(network), str(spec), "--json", str(tmp_path / "json")]
    # what a shell starts in the background ignores interrupts, and hands that on
    heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipe = subprocess.PIPE
    with subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True, preexec_fn=heeds) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            assert process.stdout.readline().startswith("prop.vnnlib: verified")
            sleep(0.2)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
            assert process.stderr.read() == ""
        finally:
            process.kill()


def test_a_reader_that_goes_away_is_no_verdict(tmp_path: Path):
    network = save(linear(), tmp_path / "net.onnx")
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run([*PROGRAM, "inspect", str(network)], stdout=write_end, stderr=subprocess.PIPE, timeout=60)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, b"")
