"""The command `radius`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from verifier.cli import options
from verifier.cli.checks import check_files, check_picture, check_timeout, parse_names, parse_positive
from verifier.cli.files import STDOUT, write_whole
from verifier.cli.request import Inputs, chosen, parse_memory, query_flags
from verifier.cli.screens import Status, print_table
from verifier.errors import InputError
from verifier.process import use_threads

if TYPE_CHECKING:
    from verifier.graph.ir import Graph

EPILOG = """
\b
Examples:
  verifier radius models/digits_mlp.onnx --dataset digits --index 0:20
  verifier radius models/digits_mlp.onnx --dataset digits --index 0:20
      --norm 2 --tolerance 0.001 --json brackets.json --plot brackets.png

\b
Exit status: 0 the brackets were made, 2 bad usage or input, 70 an internal
error.
"""

#: inputs whose brackets are sought together
BATCH = 50

Tolerance = Annotated[str, typer.Option(metavar="T", help="Width at which a bracket counts as exact.")]
Timeout = Annotated[
    float, typer.Option(metavar="SECONDS", help="Time for each input on average, seen between the steps.")
]
Methods = Annotated[
    str, typer.Option(metavar="NAME,..", help="Bounds that bisect the radius, all inputs in one batch.")
]
Complete = Annotated[
    str, typer.Option(metavar="NAME|none", help="Method of verify that decides what is left, input by input.")
]
PerClass = Annotated[bool, typer.Option("--per-class", help="Also the distance to every single class.")]
Plot = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the brackets: .png, .svg or .pdf.")]


def radius(
    context: typer.Context,
    network: options.Network,
    dataset: options.Dataset = None,
    index: options.Index = None,
    norm: options.Norm = None,
    tolerance: Tolerance = "0.001",
    timeout: Timeout = 10.0,
    methods: Methods = "crown,alpha-crown",
    complete: Complete = "branch-and-bound",
    per_class: PerClass = False,
    mean: options.Mean = None,
    std: options.Std = None,
    no_clip: options.NoClip = False,
    data_dir: options.DataDir = None,
    plot: Plot = None,
    threads: options.Threads = None,
    memory: options.Memory = None,
    json: options.Json = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    quiet: options.QuietScreen = False,
    debug: options.Debug = False,
) -> int:
    """Bracket each input's margin: the distance to the nearest input that the network classifies otherwise.

    The lower end is a radius that was verified, the upper end the distance of a point replayed in onnxruntime.
    """
    inputs = chosen(dataset, query_flags(index, None, norm, None, mean, std, no_clip, data_dir))
    check_timeout(timeout)
    check_files(json=json)
    check_picture(plot)
    settings: dict[str, Any] = {"timeout": timeout, "device": device, "seed": seed, "per_class": per_class}
    settings |= {"tolerance": parse_positive(tolerance, "--tolerance", "tolerance", "0.001")} | check_methods(
        methods, complete
    )
    settings |= {} if memory is None else {"memory": parse_memory(memory)}
    use_threads(threads)
    made: list[Any] = []
    from verifier.graph import load  # onnx behind it

    with Status(not quiet) as status:
        try:
            made += [one for part in measure(load(network), network, inputs, settings, threads, status) for one in part]
        finally:  # an interrupt does not take away what is known
            if made:
                _write(made, json, plot, network)
    if not quiet and json != STDOUT:
        from verifier.analysis.bracket_tables import bracket_table

        print_table(bracket_table(made))
    return 0


def measure(
    graph: Graph, network: Path, inputs: Inputs, settings: dict[str, Any], threads: int | None, status: Status
) -> Iterator[list[Any]]:
    """`Measured` brackets of all inputs of a network that was read from a file, a batch at a time."""
    from verifier.analysis.measured import Measured
    from verifier.analysis.radius import radii  # torch behind it
    from verifier.cli.load import load_points, set_threads

    set_threads(threads)
    points = load_points(inputs, graph)
    sha256 = None if graph.file is None else graph.file.sha256
    choice = inputs.choice()
    metric = {"norm": inputs.norm, "clip": choice["clip"] and (0.0, 1.0), "mean": inputs.mean, "std": inputs.std}
    for start in range(0, len(points), BATCH):
        part = points[start : start + BATCH]

        def tell(what: str, start: int = start, count: int = len(part)) -> None:
            status.show(f"inputs {start + 1} to {start + count} of {len(points)}: {what}")

        found = radii(
            graph, [point.x for point in part], [point.label for point in part], progress=tell, **metric, **settings
        )
        yield [
            Measured(str(network), sha256, {**choice, "index": point.index, "label": point.label}, bracket)
            for point, bracket in zip(part, found, strict=True)
        ]


def check_methods(methods: str, complete: str) -> dict[str, Any]:
    """Methods by the names of `verifier.analysis.radius.RadiusOptions`.

    Raises:
        InputError: one is not known, or none that could verify anything is named.
    """
    from verifier.schedule import LADDERS, bounding_methods

    names = parse_names(methods)
    for name in names:
        if name not in bounding_methods():
            raise InputError("--methods", f"'{name}' is not known", f"choose from {', '.join(bounding_methods())}")
    if complete != "none" and complete not in LADDERS:
        raise InputError(f"--complete {complete}", "is not known", f"choose none, {', '.join(LADDERS)}")
    if not names and complete == "none":
        raise InputError("--methods", "names no method", "name one, such as crown, or a method with --complete")
    return {"methods": names, "complete": None if complete == "none" else complete}


def _write(made: list[Any], json: Path | None, plot: Path | None, network: Path) -> None:
    if json is not None:
        from verifier.analysis.measured import document
        from verifier.cli.results import versions

        write_whole(json, document(made, versions()), "--json")
    if plot is not None:
        from verifier.analysis.bracket_plots import save  # matplotlib behind it

        save(made, plot, network.name)
