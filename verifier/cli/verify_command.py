"""The command `verify`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Annotated

import typer

from verifier.cli import request as ask
from verifier.cli.decide import Settings, decide
from verifier.cli.files import check_writable, write_whole
from verifier.cli.options import Debug, Device, Json, Network, Quiet, Seed
from verifier.cli.render import Display, next_steps
from verifier.cli.results import QueryResult, document, exit_status
from verifier.cli.session import Session
from verifier.errors import InputError
from verifier.verdict import Falsified

EXAMPLES = """\b
Examples:
  verifier verify network.onnx property.vnnlib --timeout 60
  verifier verify models/digits_mlp.onnx --dataset digits --index 0:5 --epsilon 8/255

\b
Exit status: 0 every query verified, 1 at least one falsified, 2 bad usage or input,
3 none falsified but at least one undecided.
"""


def verify(
    context: typer.Context,
    network: Network,
    spec: Annotated[
        Path | None, typer.Argument(metavar="[SPEC]", help="VNN-LIB file, .vnnlib or .vnnlib.gz.", show_default=False)
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="digits, mnist, cifar10, or an .npz with x and y.")
    ] = None,
    index: Annotated[str | None, typer.Option(metavar="RANGE", help="Which inputs: 7, 0:20 or 3,5,10:20.")] = None,
    epsilon: Annotated[str | None, typer.Option(metavar="RADIUS", help="Radius, such as 0.03 or 8/255.")] = None,
    norm: Annotated[ask.Norm | None, typer.Option(help="Norm of the radius; inf if not given.")] = None,
    targets: Annotated[str | None, typer.Option(metavar="all|K", help="Against all classes, or class K only.")] = None,
    mean: Annotated[str | None, typer.Option(metavar="M,..", help="Mean per channel that the network expects.")] = None,
    std: Annotated[str | None, typer.Option(metavar="S,..", help="Deviation per channel likewise.")] = None,
    no_clip: Annotated[bool, typer.Option("--no-clip", help="Let inputs leave [0, 1].")] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the data sets; $VERIFIER_DATA or ./data if not given."),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Hard limit for each query; the first counts from the command's start."),
    ] = None,
    method: Annotated[
        str, typer.Option(metavar="NAME", help="auto, ibp, crown-ibp, crown, alpha-crown or auto-lirpa.")
    ] = "auto",
    witness: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the counterexample here; with several inputs, that of input 7 goes to FILE with -7 in its name.",
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", min=1, help="Threads on the CPU.")] = None,
    json: Json = None,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Prove that a network meets a specification, or find an input that breaks it.

    The specification is a VNN-LIB file, or robustness around inputs of a data set.
    """
    session: Session = context.obj
    what = _spec(spec, locals()) if dataset is None else _inputs(spec, locals())
    request = ask.Request(network, what)
    _check(timeout, json, witness)
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # read when torch is loaded
    settings = Settings(method, timeout, device, seed, threads)
    json_to_stdout = json == Path("-")
    with Display(not quiet and not json_to_stdout, not quiet, request.count) as display:
        results = decide(request, settings, session, display)
        notes = _write_witnesses(witness, results) + next_steps(results, method)
        if json_to_stdout:
            sys.stdout.write(document(results))
        elif json is not None:
            write_whole(json, document(results), "--json")
        display.close(results, monotonic() - session.started, notes)
    return exit_status(results)
