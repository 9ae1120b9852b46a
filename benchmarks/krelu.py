"""k-ReLU beside what is published: one hard query, and images verified on the networks of the k-ReLU papers.

    python -m benchmarks.krelu [--images 20] [--methods crown,alpha-crown,k-relu] [--out rows.jsonl]

The networks and radii are those of Singh et al. 2019 (NeurIPS) and Mueller et al. 2022 (POPL), the images the first of
MNIST. A method verifies an image if `verifier.bounds` does. An image that CROWN verifies and one that an attack breaks
are not bounded again: all methods are at least as tight as CROWN on the boxes that they start from, and none verifies
what is false. Their seconds count as those of CROWN and the attack, which come first for every method.

Rows are written to the file as they come, and those that it has are not computed again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from verifier.process import tune

tune()

from rich.console import Console  # noqa: E402  (torch has to come after the settings)

from benchmarks.krelu_counts import CROWN, METHODS, PUBLISHED, Published, count, tabulate  # noqa: E402
from benchmarks.krelu_query import tabulate as tabulate_query  # noqa: E402
from benchmarks.machine import describe  # noqa: E402
from verifier.graph import load  # noqa: E402
from verifier.specs.datasets import load_dataset  # noqa: E402

#: the hard query: network, image
QUERY = ("mnist_6x100", 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20, help="the first so many of MNIST; 0 leaves the counts out")
    parser.add_argument("--methods", default=",".join(METHODS), help=f"of {', '.join(METHODS)}")
    parser.add_argument("--nets", default=",".join(PUBLISHED), help="names of networks")
    parser.add_argument("--out", type=Path, help="file of rows (JSON lines) to go on with")
    parser.add_argument("--timeout", type=float, help="seconds for one image and method")
    parser.add_argument("--no-query", action="store_true", help="counts only")
    parser.add_argument("--networks", type=Path, default=Path(__file__).parents[2] / "shared" / "eran")
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    methods, nets = options.methods.split(","), options.nets.split(",")
    if unknown := [n for n in methods if n not in METHODS] + [n for n in nets if n not in PUBLISHED]:
        raise SystemExit(f"{unknown[0]}: not known; choose of {', '.join((*METHODS, *PUBLISHED))}")
    if not options.networks.is_dir():
        raise SystemExit(f"{options.networks}: not found; give the folder of the networks with --networks")
    mnist, console = load_dataset("mnist", options.data_dir), Console(width=130)
    if not options.no_query:
        epsilon = PUBLISHED[QUERY[0]].epsilon
        console.print(tabulate_query(options.networks / f"{QUERY[0]}.onnx", mnist, QUERY[1], epsilon))
    for name in nets if options.images else ():
        known: Published = PUBLISHED[name]
        graph = load(options.networks / f"{name}.onnx")
        later = [method for method in methods if method != CROWN]
        rows = count(graph, name, mnist, options.images, known.epsilon, later, options.out, options.timeout)
        console.print(tabulate(name, rows, known, options.images, later))
    console.print(describe())


if __name__ == "__main__":
    main()
