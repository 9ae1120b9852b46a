"""VNN-COMP queries, one process each: solved, wrong, PAR-2, start-up and memory per family, also of other tools.

    python -m benchmarks.vnncomp --timeout 20 [--families acasxu,oval21] [--stride 4] [--out rows.jsonl]
    python -m benchmarks.vnncomp --peer nnenum='python -m nnenum.nnenum {onnx} {vnnlib} {timeout} {results}'
        [--plot cactus.png]

With ``--out`` every row is written as soon as it is known, and a second run goes on where the first one stopped. Every
``--peer NAME=COMMAND`` runs beside this tool, query by query, under the same limit: {onnx}, {vnnlib}, {timeout} and
{results} stand for the files, unpacked, the seconds, and where it writes its answer in the competition's words.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import track

from benchmarks.machine import describe
from benchmarks.vnncomp.queries import FAMILIES, read_instances
from benchmarks.vnncomp.rows import run_all
from benchmarks.vnncomp.summary import plot, tabulate
from benchmarks.vnncomp.tools import GRACE, Engine, Peer, Tool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds for each query")
    parser.add_argument("--families", default=",".join(FAMILIES), help="comma-separated folders of the benchmarks")
    parser.add_argument("--stride", type=int, default=1, help="take every n-th query of a family")
    parser.add_argument("--only", type=Path, metavar="FILE", help="CSV with names of files in columns onnx and vnnlib")
    parser.add_argument("--jobs", type=int, default=1, help="queries at a time; more than one makes times worse")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[3] / "shared" / "vnncomp")
    parser.add_argument("--out", type=Path, help="file of JSON lines to append to and to resume from")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND", help="another tool; repeatable")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw a cactus plot (.png, .svg or .pdf)")
    parser.add_argument("arguments", nargs="*", help="passed on to `verifier verify` (after --)")
    options = parser.parse_args()
    threads = ("--threads", "1") if options.jobs > 1 else ()
    engine, peers = Engine((*options.arguments, *threads)), [Peer.parse(text) for text in options.peer]
    tools: dict[str, Tool] = {engine.name: engine} | {peer.name: peer for peer in peers}
    instances = read_instances(options.data, tuple(options.families.split(",")), options.stride, options.only)
    rows = run_all(instances, tools, options.timeout, options.jobs, options.out)
    console = Console(width=140)
    found = list(track(rows, "queries", total=len(instances) * len(tools), console=console))
    console.print(tabulate(found, options.timeout))
    limit = f"{options.timeout:g} s a query, killed {GRACE:g} s later"
    console.print(f"{limit}, {options.jobs} at a time; {describe()}")
    if options.plot:
        plot(found, options.timeout, options.plot)


if __name__ == "__main__":
    main()
