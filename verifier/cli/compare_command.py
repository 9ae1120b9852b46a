"""The command `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from verifier.cli import options
from verifier.cli.checks import check_files, check_picture, check_timeout, parse_names, parse_positive
from verifier.cli.compare_output import Compared, Screen, csv_text, document
from verifier.cli.files import STDOUT, write_whole
from verifier.cli.request import Inputs, Request, choose, parse_memory, query_flags
from verifier.errors import InputError
from verifier.process import use_threads

EPILOG = """
\b
Examples:
  verifier compare network.onnx property.vnnlib --methods ibp,crown,alpha-crown
  verifier compare models/digits_mlp.onnx --dataset digits --index 0:5
      --epsilon 0.05 --boxes shared --plot compare.png

\b
Exit status: 0 the comparison was made, 2 bad usage or input, 70 an internal
error.
"""

#: seconds for each method and query where none are given
SECONDS = 30.0

Methods = Annotated[
    str | None, typer.Option(metavar="NAME,..", help="Methods of verify; all that bound without a search if not given.")
]
Boxes = Annotated[
    str,
    typer.Option(
        metavar="own|shared|NAME",
        help="Intermediate bounds: each method's own, CROWN's for all, or those of a method.",
    ),
]
MethodTimeout = Annotated[
    float, typer.Option(metavar="SECONDS", help="Limit of each method on each query, seen between its steps.")
]
Tolerance = Annotated[
    str | None,
    typer.Option("--radius", metavar="TOLERANCE", help="Also bisect for the largest radius that each method proves."),
]
Plot = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the comparison: .png, .svg or .pdf.")]
Csv = Annotated[Path | None, typer.Option(metavar="FILE", help="Write a line for each query and method; - for stdout.")]


def compare(
    context: typer.Context,
    network: options.Network,
    spec: options.Spec = None,
    dataset: options.Dataset = None,
    index: options.Index = None,
    epsilon: options.Epsilon = None,
    norm: options.Norm = None,
    targets: options.Targets = None,
    mean: options.Mean = None,
    std: options.Std = None,
    no_clip: options.NoClip = False,
    data_dir: options.DataDir = None,
    methods: Methods = None,
    boxes: Boxes = "own",
    timeout: MethodTimeout = SECONDS,
    radius: Tolerance = None,
    plot: Plot = None,
    csv: Csv = None,
    threads: options.Threads = None,
    memory: options.Memory = None,
    json: options.Json = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    quiet: options.QuietScreen = False,
    debug: options.Debug = False,
) -> int:
    """Bound the same queries by several methods, and show how tight each one is and what it costs."""
    flags = query_flags(index, epsilon, norm, targets, mean, std, no_clip, data_dir)
    request = Request(network, choose(spec, dataset, flags))
    tolerance = _tolerance(radius, request)
    _check(timeout, json, csv, plot)
    settings = {"timeout": timeout, "device": device, "seed": seed, "boxes": boxes}
    settings |= {} if memory is None else {"memory": parse_memory(memory)}
    use_threads(threads)
    piped = STDOUT in (json, csv)
    made: list[Compared] = []
    with Screen(not quiet and not piped, not quiet, request.count) as screen:
        try:
            _run(request, methods, tolerance, threads, settings, screen, made)
        finally:  # an error or an interrupt in a later query does not take away what is known
            if made:
                _write(made, json, csv, plot)
                screen.close(made)
    return 0


def _run(
    request: Request,
    names: str | None,
    tolerance: float | None,
    threads: int | None,
    settings: dict,
    screen: Screen,
    made: list[Compared],
) -> None:
    """Every query in turn, each into `made` as soon as it is known."""
    from verifier.analysis.compare import Radius, check_boxes, check_methods, compare  # torch behind it
    from verifier.cli.load import load

    wanted = None if names is None else check_methods(parse_names(names))
    check_boxes(settings["boxes"])
    files = load(request, threads)
    for number in range(request.count):
        query = files.query(number)
        search = None
        if tolerance is not None and query.at is not None and isinstance(request.what, Inputs):
            search = Radius(query.at, request.what.epsilon, tolerance)
        screen.begin(number)
        found = compare(files.graph, query.spec, wanted, progress=screen.method, radius=search, **settings)
        sha256 = None if files.graph.file is None else files.graph.file.sha256
        made.append(Compared(request, number, query.label, sha256, found))
        screen.finish(made[-1])


def _tolerance(text: str | None, request: Request) -> float | None:
    """The tolerance of the search for radii.

    Raises:
        InputError: it is not a positive number, or the query has no radius.
    """
    if text is None:
        return None
    if not isinstance(request.what, Inputs):
        raise InputError("--radius", "speaks of a data set, but a specification is given", "leave one of them out")
    return parse_positive(text, "--radius", "tolerance", "0.001")


def _check(timeout: float, json: Path | None, csv: Path | None, plot: Path | None) -> None:
    """Refuse now what would fail after the work."""
    check_timeout(timeout)
    check_files(json=json, csv=csv)
    check_picture(plot)
    if json == STDOUT and csv == STDOUT:
        raise InputError("--csv -", "is standard output, which --json has taken", "write one of them to a file")


def _write(made: list[Compared], json: Path | None, csv: Path | None, plot: Path | None) -> None:
    if json is not None:
        write_whole(json, document(made), "--json")
    if csv is not None:
        write_whole(csv, csv_text(made), "--csv")
    if plot is not None:
        from verifier.analysis.plots import save  # matplotlib behind it

        save([one.found for one in made], plot, made[0].title(len(made)))
