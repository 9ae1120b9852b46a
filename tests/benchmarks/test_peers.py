"""Tools side by side: honest ones, one that lies, one that crashes, one that overruns; rows that resume."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image
from rich.console import Console

from benchmarks.vnncomp import tools
from benchmarks.vnncomp.process import measure
from benchmarks.vnncomp.queries import Instance, read_instances
from benchmarks.vnncomp.rows import OWN, Row, read_rows, run_all
from benchmarks.vnncomp.summary import par2, plot, tabulate
from benchmarks.vnncomp.tools import Engine, Peer
from tests.benchmarks.queries import NETWORK, ROOT, write_spec

#: shell scripts that stand for tools; $1 network, $2 specification, $3 seconds, $4 results file
HONEST = 'case "$2" in *safe*) echo unsat > "$4" ;; *) printf "sat\\n((X_0 0.0))" > "$4" ;; esac'
LIAR = 'case "$2" in *safe*) printf "sat\\n((X_0 0.0))" > "$4" ;; *) echo holds > "$4" ;; esac'
CRASH = 'echo "out of luck" >&2; exit 11'
OVERRUN = 'sleep 60; echo unsat > "$4"'
SPEAKER = "echo starting; echo unsat"
TIMEOUT = 0.3


def peer(folder: Path, name: str, script: str) -> Peer:
    path = folder / f"{name}.sh"
    path.write_text(script)
    return Peer.parse(f"{name}=sh {path} {{onnx}} {{vnnlib}} {{timeout}} {{results}}")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A benchmark of two queries: one that holds, one that does not."""
    family = tmp_path / "data" / "family"
    family.mkdir(parents=True)
    write_spec(family / "safe.vnnlib", 0.005)
    write_spec(family / "broken.vnnlib", 0.3)
    lines = ["onnx,vnnlib,expected", f"{NETWORK},safe.vnnlib,unsat", f"{NETWORK},broken.vnnlib,sat"]
    (family / "instances.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "data"


@pytest.fixture
def instances(data: Path, monkeypatch: pytest.MonkeyPatch) -> list[Instance]:
    monkeypatch.setattr(tools, "GRACE", 0.2)
    return read_instances(data, ("family",), 1)


def test_a_list_of_names_picks_queries(data: Path, tmp_path: Path):
    names = tmp_path / "names.csv"
    names.write_text(f"tool,onnx,vnnlib\nany,{NETWORK.name},broken.vnnlib\nother,{NETWORK.name},none.vnnlib\n")
    assert [one.expected for one in read_instances(data, ("family",), only=names)] == ["sat"]
    with pytest.raises(SystemExit, match="missing.csv: not found"):
        read_instances(data, ("family",), only=tmp_path / "missing.csv")


def rows_of(instances: list[Instance], *peers: Peer, out: Path | None = None) -> list[Row]:
    return list(run_all(instances, {one.name: one for one in peers}, TIMEOUT, 1, out))


def test_an_honest_peer_solves(instances: list[Instance], tmp_path: Path):
    rows = rows_of(instances, peer(tmp_path, "honest", HONEST))
    assert [(row.verdict, row.solved, row.tool) for row in rows] == [("unsat", True, "honest"), ("sat", True, "honest")]


def test_a_lie_is_wrong_and_earns_nothing(instances: list[Instance], tmp_path: Path):
    rows = rows_of(instances, peer(tmp_path, "liar", LIAR))
    assert [row.verdict for row in rows] == ["sat", "unsat"]
    assert all(row.wrong and not row.solved and not row.refutes for row in rows)
    assert par2(rows, TIMEOUT) == 2 * TIMEOUT


def test_a_witness_that_holds_clears_who_contradicts_the_label(instances: list[Instance], tmp_path: Path):
    witness = tmp_path / "witness.txt"
    line = [sys.executable, "-m", "verifier", "verify", str(NETWORK), str(instances[1].spec), "--witness", str(witness)]
    assert subprocess.run(line, cwd=ROOT, capture_output=True).returncode == 1
    mislabelled = Instance("family", NETWORK, instances[1].spec, "unsat")
    (row,) = rows_of([mislabelled], peer(tmp_path, "right", f'cp {witness} "$4"'))
    assert row.verdict == "sat" and row.refutes and row.solved


def test_a_crash_is_an_error_and_says_why(instances: list[Instance], tmp_path: Path):
    (row, _) = rows_of(instances, peer(tmp_path, "crash", CRASH))
    assert row.verdict == "error" and not row.wrong and "status 11" in row.method and "out of luck" in row.method


def test_an_overrun_is_ended_and_does_not_count(instances: list[Instance], tmp_path: Path):
    (row, _) = rows_of(instances, peer(tmp_path, "late", OVERRUN))
    assert (row.verdict, row.solved) == ("timeout", False) and row.seconds < 30 and "killed" in row.method


def test_a_word_on_standard_output_will_do(instances: list[Instance], tmp_path: Path):
    assert rows_of(instances, peer(tmp_path, "speaker", SPEAKER))[0].verdict == "unsat"
    assert rows_of(instances, peer(tmp_path, "mute", "echo nothing of use"))[0].verdict == "error"


def test_packed_files_are_unpacked_for_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import gzip

    network, spec = tmp_path / "net.onnx.gz", tmp_path / "p.vnnlib.gz"
    network.write_bytes(gzip.compress(b"a network"))
    spec.write_bytes(gzip.compress(b"a specification"))
    script = '[ "$(cat "$1") and $(cat "$2")" = "a network and a specification" ] && echo unsat'
    (row,) = rows_of([Instance("family", network, spec, "unsat")], peer(tmp_path, "reader", script))
    assert row.solved


def test_rows_resume_tool_by_tool(instances: list[Instance], tmp_path: Path):
    out, count = tmp_path / "rows.jsonl", tmp_path / "count"
    counting = peer(tmp_path, "counting", f'echo once >> {count}; echo unsat > "$4"')
    first = rows_of(instances[:1], counting, out=out)
    rows = rows_of(instances, counting, peer(tmp_path, "honest", HONEST), out=out)
    assert count.read_text().count("once") == 2
    assert rows[0] == first[0] and len(rows) == 4
    assert {(row.tool, row.key) for row in read_rows(out)} == {(row.tool, row.key) for row in rows}


def test_rows_of_older_runs_are_read(tmp_path: Path):
    line = '{"key": "k", "family": "f", "expected": "sat", "verdict": "sat", "seconds": 1.0, '
    (tmp_path / "rows.jsonl").write_text(line + '"engine_seconds": 0.5, "method": "attack", "refutes": false}\n')
    (row,) = read_rows(tmp_path / "rows.jsonl")
    assert (row.tool, row.peak, row.solved) == (OWN, None, True)


def test_our_own_rows_know_their_memory(instances: list[Instance]):
    row = Engine()(instances[0], 60)
    assert row.verdict == "unsat" and row.peak is not None and row.peak > 100  # torch alone takes more


def test_the_peak_is_that_of_the_process():
    """The floor is what this process takes itself, so the measured one has to take far more."""
    few, many = (measure([sys.executable, "-c", f"x = b'1' * ({mib} << 20)"], 60).peak for mib in (1, 1500))
    assert 1500 <= many < 1700 and few < 1500


def test_the_summary_has_a_line_for_each_tool_and_family(instances: list[Instance], tmp_path: Path):
    rows = rows_of(instances, *(peer(tmp_path, name, text) for name, text in {"honest": HONEST, "liar": LIAR}.items()))
    console = Console(width=150, record=True, file=io.StringIO())
    console.print(tabulate(rows, TIMEOUT))
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in console.export_text().splitlines()]
    cells = [line[:6] for line in lines]
    assert ["family", "honest", "2/2", "1", "1", "0"] in cells and ["all", "liar", "0/2", "0", "0", "2"] in cells


def test_the_plot_shows_every_tool(tmp_path: Path):
    def solved(tool: str, seconds: list[float]) -> list[Row]:
        return [Row(f"{s}", "f", "sat", "sat", s, None, "", tool=tool) for s in seconds]

    rows = solved("ours", [0.5, 1, 2, 4, 9]) + solved("theirs", [3.0, 8]) + [Row("k", "f", "sat", "error", 1, None, "")]
    plot(rows, 20, tmp_path / "cactus.png")
    pixels = image.imread(tmp_path / "cactus.png")
    assert pixels.shape[0] > 500 and float(np.ptp(pixels)) > 0.5
    plot(rows, 20, tmp_path / "cactus.svg")
    assert "<svg" in (tmp_path / "cactus.svg").read_text()


@pytest.mark.parametrize(
    "text",
    ["nnenum", "=run {onnx} {vnnlib}", "x=run {onnx}", f"{OWN}=sh {{onnx}} {{vnnlib}}", "x=gone {onnx} {vnnlib}"],
)
def test_a_peer_that_cannot_be_called_is_refused(text: str):
    with pytest.raises(SystemExit, match="--peer"):
        Peer.parse(text)


@pytest.mark.slow
def test_the_command(data: Path, tmp_path: Path):
    honest = peer(tmp_path, "honest", HONEST).template
    line = [sys.executable, "-m", "benchmarks.vnncomp", "--data", str(data), "--families", "family", "--timeout", "20"]
    line += ["--peer", f"honest={honest}", "--plot", str(tmp_path / "cactus.png"), "--out", str(tmp_path / "rows")]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2/2") == 4 and (tmp_path / "cactus.png").exists()
    assert {row.tool for row in read_rows(tmp_path / "rows")} == {OWN, "honest"}
