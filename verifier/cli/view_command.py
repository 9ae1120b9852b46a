"""The command `view`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verifier.cli import options
from verifier.cli.files import STDOUT, check_writable, write_json, write_whole
from verifier.cli.request import Inputs, Request, choose, query_flags
from verifier.errors import InputError

if TYPE_CHECKING:
    from verifier.analysis.pictures.marks import Film

EPILOG = """
\b
Examples:
  verifier view network.onnx property.vnnlib --out network.html
  verifier view models/digits_mlp.onnx --dataset digits --index 0 --epsilon 0.03 --picture pair --out pair.svg

\b
Exit status: 0 the pictures were made; 2 bad usage or input.
"""

FORMS = (".svg", ".png", ".html")

Out = Annotated[Path, typer.Option(metavar="FILE", help="Where to: .svg, .png, or .html for an interactive page.")]
Picture = Annotated[str, typer.Option(metavar="NAME", help="neuron, pair, outputs, logits, waterfall, or all.")]
LayerName = Annotated[
    str | None, typer.Option(metavar="NAME", help="An activation, as inspect names it; else the last undecided one.")
]
Neurons = Annotated[str | None, typer.Option(metavar="I,J", help="One or two neurons of it; else the least decided.")]
Logits = Annotated[str | None, typer.Option(metavar="A,B", help="Two outputs; else those nearest to the unsafe set.")]
Methods = Annotated[str | None, typer.Option(metavar="NAME,..", help="Methods to compare; else all that bound.")]


def view(
    network: options.Network,
    out: Out,
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
    picture: Picture = "all",
    layer: LayerName = None,
    neurons: Neurons = None,
    logits: Logits = None,
    methods: Methods = None,
    json: options.Json = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> int:
    """Draw the relaxations of a network in two dimensions.

    The specification is a VNN-LIB file, or robustness around one input of a data set. All that is drawn holds for its
    input set; of a file with several, the first. --json writes the pictures' coordinates.
    """
    flags = query_flags(index, epsilon, norm, targets, mean, std, no_clip, data_dir)
    request = Request(network, choose(spec, dataset, flags))
    _check(request, out, json)
    chosen = {"layer": layer, "neurons": parse_indices(neurons, "--neurons", (1, 2)), "device": device, "seed": seed}
    pair = parse_indices(logits, "--logits", (2,))
    chosen |= {"logits": pair or None, "kinds": () if picture == "all" else (picture,)}
    chosen |= {"methods": () if methods is None else tuple(name.strip() for name in methods.split(","))}
    films = _films(request, chosen | {"moving": out.suffix.lower() == ".html"})
    _write(films, request, out, json)
    if not quiet and json != STDOUT:
        for film in films:
            print(film.still.title)
        print(f"drawn in {out}")
    return 0


def parse_indices(text: str | None, flag: str, counts: tuple[int, ...]) -> tuple[int, ...]:
    """Comma-separated whole numbers, as many as one of the counts; none for None.

    Raises:
        InputError: something else.
    """
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if len(parts) not in counts or not all(re.fullmatch("[0-9]{1,9}", part) for part in parts):
        what = "two numbers" if counts == (2,) else "one or two numbers"
        raise InputError(f"{flag} {text}", f"is not {what}", "write it like 3,7")
    return tuple(map(int, parts))


def _check(request: Request, out: Path, json: Path | None) -> None:
    """Refuse now what would fail after the work."""
    if out.suffix.lower() not in FORMS:
        raise InputError(f"--out {out}", "its ending names no format that is known here", f"use {', '.join(FORMS)}")
    check_writable(out, "--out")
    if json is not None:
        check_writable(json, "--json")
    if isinstance(request.what, Inputs) and request.count != 1:
        raise InputError(
            f"--index {request.what.index}", f"names {request.count} inputs", "pictures are of one: give one"
        )


def _films(request: Request, chosen: dict) -> tuple[Film, ...]:
    """Read the files and compute what is to be drawn."""
    from verifier.cli.load import load

    files = load(request, None)
    from verifier.analysis.pictures.view import ViewOptions, view  # torch behind it

    return view(files.graph, files.query(0).spec, ViewOptions(**chosen))


def _write(films: tuple[Film, ...], request: Request, out: Path, json: Path | None) -> None:
    from verifier.analysis.pictures.drawing import draw
    from verifier.analysis.pictures.page import document, page

    form = out.suffix.lower()
    if form == ".html":
        write_whole(out, page(films, _heading(request)), "--out")
    else:
        write_whole(out, draw([film.still for film in films], "svg" if form == ".svg" else "png"), "--out")
    if json is not None:
        write_json(json, {"pictures": document(films)})


def _heading(request: Request) -> str:
    what = request.what
    if isinstance(what, Inputs):
        return (
            f"{request.network.name}, input {what.indices[0]} of {what.dataset}, {what.norm}-norm <= {what.epsilon:g}"
        )
    return f"{request.network.name}, {what.name}"
