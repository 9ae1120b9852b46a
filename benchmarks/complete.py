"""Complete verification of MNIST images on the networks of the published k-ReLU and PRIMA tables, and an ablation.

    python -m benchmarks.complete [--images 100] [--timeout 60] [--networks mnist_6x100] [--out rows.jsonl]
    python -m benchmarks.complete --ablation [--timeout 20] [--out rows.jsonl]

With ``--out`` every row is written as soon as it is known, and a second run goes on where the first one stopped.
The ablation takes a few queries that need a search, and leaves out one ingredient at a time.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median

from verifier.process import tune

tune()

import torch  # noqa: E402  (torch has to come after the settings)
from rich.console import Console  # noqa: E402
from rich.progress import track  # noqa: E402
from rich.table import Table  # noqa: E402

import verifier  # noqa: E402
from benchmarks.machine import describe  # noqa: E402
from benchmarks.vnncomp.queries import read_instances  # noqa: E402
from benchmarks.vnncomp.rows import Row, run_all  # noqa: E402
from benchmarks.vnncomp.summary import par2  # noqa: E402
from benchmarks.vnncomp.tools import WORDS  # noqa: E402
from verifier.operators import evaluate, place  # noqa: E402
from verifier.schedule import ATTACK, ATTACK_AGAIN, LADDERS, VerifyOptions  # noqa: E402
from verifier.search.result import SearchOptions  # noqa: E402
from verifier.specs.datasets import load_dataset  # noqa: E402
from verifier.verdict import Undecided  # noqa: E402

SHARED = Path(__file__).parents[2] / "shared"
#: network -> epsilon, share of the correctly classified that PRIMA decides, its seconds an image, and our aim
PUBLISHED = {"mnist_6x100": (0.026, 0.65, 159, 0.75), "mnist_6x200": (0.015, 0.78, 224, 0.82)}
#: images of mnist_6x100, and every n-th query of a family with few inputs, on which ingredients are compared
ABLATED_IMAGES, ABLATED_FAMILY, ABLATED_STRIDE = (12, 14, 16, 18, 19, 21, 26, 36, 37), "acasxu", 12


@dataclass(frozen=True)
class Query:
    """One query: an image of MNIST, or a VNN-LIB file.

    Args:
        image: number of the image and radius, or None.
        spec: file, or None.
    """

    network: Path
    image: tuple[int, float] | None = None
    spec: Path | None = None
    expected: str = "unknown"

    @property
    def key(self) -> str:
        what = self.spec.name if self.spec else "image {}, epsilon {}".format(*self.image or ())
        return f"{self.network.name}/{what}"


@dataclass(frozen=True)
class Inside:
    """The engine in this process, with options.

    Args:
        name: as it stands in the tables.
        options: of every query, but for the limit.
        folder: where MNIST is.
    """

    name: str
    options: VerifyOptions
    folder: Path | None

    def __call__(self, query: Query, timeout: float) -> Row:
        graph = verifier.load(query.network)
        if query.image is None:
            assert query.spec is not None
            spec = verifier.read_vnnlib(query.spec)
        else:
            mnist, (index, epsilon) = load_dataset("mnist", self.folder), query.image
            spec = verifier.robustness(mnist.x[index], int(mnist.y[index]), epsilon=epsilon)
        verdict = verifier.verify(graph, spec, **{**vars(self.options), "timeout": timeout})
        return Row(
            key=query.key,
            family=query.network.stem if query.spec is None else query.network.parent.parent.name,
            expected=query.expected,
            verdict=WORDS.get(type(verdict).__name__.lower(), "unknown"),
            seconds=verdict.seconds,
            engine_seconds=verdict.seconds,
            method=verdict.reason if isinstance(verdict, Undecided) else verdict.method,
            tool=self.name,
            subproblems=verdict.subproblems,
        )


def variants() -> dict[str, VerifyOptions]:
    """What is compared: everything, and everything but for one ingredient."""
    every, rungs, search = VerifyOptions(), LADDERS["auto"], SearchOptions()

    def without(*names: str) -> VerifyOptions:
        return replace(every, rungs=tuple(name for name in rungs if name not in names))

    def searching(**changes) -> VerifyOptions:
        return replace(every, search=replace(search, **changes))

    return {
        "all": every,
        "no attack": without(ATTACK, ATTACK_AGAIN),
        "no alpha-CROWN before the search": without("alpha-fixed", "alpha-crown"),
        "no k-ReLU before the search": without("k-relu"),
        "no refined boxes at the root": searching(root=None),
        "no narrowing of subproblems": searching(narrowing=None),
        "branching by scores only": searching(branching="scored"),
        "branching by the widest interval": searching(branching="widest"),
        "no warm starts": searching(warm=False),
        "activation splitting only": searching(splitting="activation"),
        "input splitting only": searching(splitting="input"),
    }


def images(networks: Path, name: str, count: int, folder: Path | None) -> list[Query]:
    """The first images of MNIST that a network classifies correctly."""
    path = networks / f"{name}.onnx"
    if not path.is_file():
        raise SystemExit(f"{path}: not found; give the folder of the networks with --data")
    graph, mnist = verifier.load(path), load_dataset("mnist", folder)
    inputs = torch.as_tensor(mnist.x[:count]).reshape(-1, *graph.input_shape)
    found = evaluate(place(graph, torch.float32), inputs).flatten(1).argmax(1).tolist()
    return [Query(path, (i, PUBLISHED[name][0])) for i, label in enumerate(found) if label == int(mnist.y[i])]


def ablated(data: Path) -> list[Query]:
    """The queries of the ablation."""
    network, epsilon = data / "eran" / "mnist_6x100.onnx", PUBLISHED["mnist_6x100"][0]
    files = read_instances(data / "vnncomp", (ABLATED_FAMILY,), ABLATED_STRIDE)
    queries = [Query(network, (index, epsilon)) for index in ABLATED_IMAGES]
    return queries + [Query(one.network, spec=one.spec, expected=one.expected) for one in files]


def tabulate(rows: Sequence[Row], timeout: float) -> Table:
    """One line for every network."""
    table = Table(title=f"Correctly classified images, {timeout:g} s each")
    for column in ("network", "images", "verified", "falsified", "undecided", "decided", "mean s", "median s"):
        table.add_column(column, justify="right")
    for column in ("PRIMA decides", "its s", "aim"):
        table.add_column(column, justify="right", style="dim")
    for name in dict.fromkeys(row.family for row in rows):
        chosen = [row for row in rows if row.family == name]
        counts = [sum(row.verdict == word for row in chosen) for word in ("unsat", "sat")]
        seconds, (_, share, published, aim) = [row.seconds for row in chosen], PUBLISHED[name]
        table.add_row(
            *(name, str(len(chosen)), *map(str, counts), str(len(chosen) - sum(counts))),
            *(f"{sum(counts) / len(chosen):.0%}", f"{mean(seconds):.1f}", f"{median(seconds):.1f}"),
            *(f"{share:.0%}", str(published), f"{aim:.0%}"),
        )
    return table


def tabulate_ablation(rows: Sequence[Row], timeout: float) -> Table:
    """One line for every variant."""
    families = list(dict.fromkeys(row.family for row in rows))
    table = Table(title=f"One ingredient at a time, {timeout:g} s a query")
    for column in ("", *(f"{family} solved" for family in families), "wrong", "PAR-2 s", "subproblems"):
        table.add_column(column, justify="right" if column else "left")
    for name in dict.fromkeys(row.tool for row in rows):
        chosen = [row for row in rows if row.tool == name]
        solved = [[row.solved for row in chosen if row.family == family] for family in families]
        table.add_row(
            name,
            *(f"{sum(each)}/{len(each)}" for each in solved),
            str(sum(row.wrong for row in chosen)),
            f"{par2(chosen, timeout):.1f}",
            f"{sum(row.subproblems or 0 for row in chosen):,}",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for each query")
    parser.add_argument("--networks", default=",".join(PUBLISHED), help="comma-separated names")
    parser.add_argument("--ablation", action="store_true", help="leave out one ingredient at a time")
    parser.add_argument("--variants", help="with --ablation: comma-separated variants instead of all")
    parser.add_argument("--threads", type=int, help="on the CPU")
    parser.add_argument("--data", type=Path, default=SHARED, help="folder of the folders eran and vnncomp")
    parser.add_argument("--data-dir", type=Path, help="folder of MNIST")
    parser.add_argument("--out", type=Path, help="file of JSON lines to append to and to resume from")
    options = parser.parse_args()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    if options.ablation:
        kinds = variants()
        names = options.variants.split(",") if options.variants else list(kinds)
        queries, tools = ablated(options.data), {n: Inside(n, kinds[n], options.data_dir) for n in names}
    else:
        chosen = options.networks.split(",")
        queries = [q for n in chosen for q in images(options.data / "eran", n, options.images, options.data_dir)]
        tools = {"verifier": Inside("verifier", VerifyOptions(), options.data_dir)}
    console = Console(width=140)
    rows = run_all(queries, tools, options.timeout, 1, options.out)
    found = list(track(rows, "queries", total=len(queries) * len(tools), console=console))
    console.print((tabulate_ablation if options.ablation else tabulate)(found, options.timeout))
    console.print(f"{torch.get_num_threads()} threads; {describe()}")


if __name__ == "__main__":
    main()
